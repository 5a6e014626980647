// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/http/networks.h"
#include "common/jose/jwt.h"
#include "common/mutex.h"
#include "common/text/json.h"
#include "sallyport/config/v1/services.pb.h"
#include "services/authn/platforms/clusters.h"
#include "tests/testing/http_server.h"

// A Kubernetes cluster for tests: its key, and its API server on loopback.
namespace sallyport::authn::platforms {

inline constexpr char kAudience[] = "sallyport";

// Loopback may be reached, with plain http, too.
inline Clusters::Options LoopbackAllowed() {
  Clusters::Options options;
  options.policy = EgressPolicy({*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback);
  return options;
}

class TestCluster {
 public:
  explicit TestCluster(std::string issuer = "https://kubernetes.default.svc.cluster.local")
      : issuer_(std::move(issuer)), key_(*PrivateKey::GenerateP256()) {}

  const std::string& issuer() const { return issuer_; }
  std::string Jwks() const { return JwkSet({key_.public_key()}).ToJson(); }
  config::v1::KubernetesCluster Config(const std::string& id) const {
    config::v1::KubernetesCluster config;
    config.set_id(id);
    config.set_issuer(issuer_);
    config.set_audience(kAudience);
    return config;
  }
  // A projected token, good for ten minutes, of account "chat/bot"; `change` overrides claims (null removes one).
  std::string Token(absl::Time now, const nlohmann::json& change = nlohmann::json::object(),
                    absl::string_view typ = "JWT") const {
    nlohmann::json claims = {
        {"iss", issuer_},
        {"aud", nlohmann::json::array({kAudience})},
        {"sub", "system:serviceaccount:chat:bot"},
        {"iat", absl::ToUnixSeconds(now)},
        {"nbf", absl::ToUnixSeconds(now)},
        {"exp", absl::ToUnixSeconds(now) + 600},
        {"kubernetes.io", {{"namespace", "chat"}, {"serviceaccount", {{"name", "bot"}, {"uid", "1-2"}}}}}};
    for (const auto& [name, value] : change.items()) {
      if (value.is_null()) {
        claims.erase(name);
      } else {
        claims[name] = value;
      }
    }
    return *SignJwt(claims, typ, key_);
  }
  // The same of another account.
  std::string TokenOf(absl::Time now, const std::string& ns, const std::string& name) const {
    return Token(now, {{"sub", absl::StrCat("system:serviceaccount:", ns, ":", name)}, {"kubernetes.io", nullptr}});
  }

 private:
  const std::string issuer_;
  const PrivateKey key_;
};

// The API server. Answers as it is told to; remembers the last request.
class TestApiServer {
 public:
  using Response = ::sallyport::testing::TestHttpServer::Response;
  using Request = ::sallyport::testing::TestHttpServer::Request;

  explicit TestApiServer(bool tls = false)
      : server_(
            [this](const Request& request) {
              std::function<Response(const Request&)> answer;
              {
                MutexLock lock(mu_);
                last_ = request;
                answer = answer_;
              }
              return answer(request);
            },
            tls) {}

  std::string origin() const { return server_.origin(); }
  const std::string& ca_pem() const { return server_.ca_pem(); }
  int requests() const { return server_.requests(); }
  Request last() {
    MutexLock lock(mu_);
    return last_;
  }
  void Answer(std::function<Response(const Request&)> answer) {
    MutexLock lock(mu_);
    answer_ = std::move(answer);
  }
  void AnswerBody(const std::string& body, int status = 201) {
    Answer([=](const Request&) { return Response{.status = status, .body = body}; });
  }
  // A review that takes the token for this user's; `change` overrides members of its status (null removes one).
  // `before` runs for each request before it is answered, and may block.
  void AnswerReview(const std::string& username, const nlohmann::json& change = nlohmann::json::object(),
                    std::function<void()> before = nullptr) {
    nlohmann::json status = {{"authenticated", true},
                             {"audiences", nlohmann::json::array({kAudience})},
                             {"user", {{"username", username}, {"uid", "1-2"}}}};
    for (const auto& [name, value] : change.items()) {
      if (value.is_null()) {
        status.erase(name);
      } else {
        status[name] = value;
      }
    }
    const std::string body = DumpJson({{"apiVersion", "authentication.k8s.io/v1"},
                                       {"kind", "TokenReview"},
                                       {"spec", {{"token", "-"}}},
                                       {"status", status}});
    Answer([body, before = std::move(before)](const Request&) {
      if (before != nullptr) before();
      return Response{.status = 201, .body = body};
    });
  }

 private:
  Mutex mu_;
  std::function<Response(const Request&)> answer_ ABSL_GUARDED_BY(mu_) = [](const Request&) {
    return Response{.status = 500};
  };
  Request last_ ABSL_GUARDED_BY(mu_);
  ::sallyport::testing::TestHttpServer server_;  // Last: its threads use what stands above.
};

}  // namespace sallyport::authn::platforms
