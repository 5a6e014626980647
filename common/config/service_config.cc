// SPDX-License-Identifier: Apache-2.0
#include "common/config/service_config.h"

#include <algorithm>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/reflection.h>

#include "common/audit/outbox.h"
#include "common/config/egress.h"
#include "common/error.h"
#include "common/files.h"
#include "common/http/networks.h"
#include "common/http/url.h"

namespace sallyport {
namespace {

using Violations = std::vector<ErrorDetail::Violation>;

constexpr int kMaxThreads = 4096;
constexpr int kMaxPool = 512;

absl::Status CheckNetworks(const std::string& field, const google::protobuf::RepeatedPtrField<std::string>& texts) {
  return ParseNetworks({texts.begin(), texts.end()}, field).status();
}

bool IsLoopbackHost(const std::string& host) {
  const absl::StatusOr<IpAddress> address = IpAddress::Parse(host);
  return host == "localhost" || (address.ok() && address->is_loopback());
}

// As browsers say it in Origin (RFC 6454 section 6.2).
bool IsOrigin(const std::string& text) {
  const absl::StatusOr<Url> url = Url::Parse(text);
  return url.ok() && url->origin() == text;
}

// As Host says it: Url, which knows what a host is, would take the rest of an address, too.
absl::Status CheckHost(absl::string_view field, const std::string& text) {
  const absl::StatusOr<Url> url = Url::Parse(absl::StrCat("https://", text));
  if (!url.ok() || absl::StrContains(text, '/') || absl::StrContains(text, '?')) {
    return InvalidField(field, "must be a host with or without a port, such as gateway.internal:8443");
  }
  const std::string host = absl::AsciiStrToLower(text);
  // A client may name the scheme's port.
  return host == url->authority() || host == absl::StrCat(url->authority(), ":443")
             ? absl::OkStatus()
             : InvalidField(field, absl::StrCat("must be as clients say it: write ", url->authority()));
}

absl::Status Require(absl::string_view field, absl::string_view value) {
  return value.empty() ? InvalidField(field, "is required") : absl::OkStatus();
}

absl::Status CheckTlsFile(absl::string_view field, const std::string& path) {
  return path.empty() ? Require(field, path) : CheckReadable(field, path);
}

}  // namespace

absl::Status MergeViolations(const std::vector<absl::Status>& checks) {
  Violations all;
  for (const absl::Status& check : checks) {
    const Violations found = DetailOf(check).violations;
    if (!check.ok() && found.empty()) {
      return check;
    }
    for (const ErrorDetail::Violation& violation : found) {
      const bool known = std::any_of(
          all.begin(), all.end(), [&](const ErrorDetail::Violation& other) { return other.field == violation.field; });
      if (!known) {
        all.push_back(violation);
      }
    }
  }
  return InvalidFields(all);
}

absl::Status CheckListenAddress(absl::string_view field, absl::string_view address) {
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port > 65535) {
    return InvalidField(field, "must be address:port, such as 127.0.0.1:7001");
  }
  const absl::string_view host = address.substr(0, colon);
  // Otherwise the last group of an IPv6 address is taken for the port.
  if (absl::StrContains(host, ':') && !(absl::StartsWith(host, "[") && absl::EndsWith(host, "]"))) {
    return InvalidField(field, "must have an IPv6 address in brackets, such as [::1]:7001");
  }
  return absl::OkStatus();
}

bool IsLoopbackListen(absl::string_view address) {
  return absl::StartsWith(address, "127.") || absl::StartsWith(address, "[::1]:") ||
         absl::StartsWith(address, "localhost:");
}

absl::Status CheckReadable(absl::string_view field, const std::string& path) {
  if (path.empty() || access(path.c_str(), R_OK) == 0) {
    return absl::OkStatus();
  }
  return InvalidField(field, absl::StrCat("cannot read ", path));
}

absl::Status CheckSecretFile(absl::string_view field, const std::string& path) {
  if (path.empty()) {
    return absl::OkStatus();
  }
  const absl::Status read = ReadSecretFile(path).status();
  return read.ok() ? read : InvalidField(field, read.message());
}

absl::Status ValidateServer(const config::v1::Server& server, Listener listener) {
  const std::string& listen = server.listen();
  absl::Status address;
  if (!listen.empty()) {
    address = CheckListenAddress("server.listen", listen);
  } else if (listener == Listener::kRequired) {
    address = InvalidField("server.listen", "is required: where the other services reach this one");
  }
  const bool bad_threads = server.max_threads() < 0 || server.max_threads() > kMaxThreads;
  return MergeViolations(
      {address, CheckTlsFile("server.tls.certificate", server.tls().certificate()),
       CheckTlsFile("server.tls.privateKey", server.tls().private_key()),
       CheckTlsFile("server.tls.caBundle", server.tls().ca_bundle()),
       Require("server.tls.trustDomain", server.tls().trust_domain()),
       bad_threads ? InvalidField("server.maxThreads", absl::StrCat("must be 0 (the default) to ", kMaxThreads))
                   : absl::OkStatus()});
}

absl::Status ValidatePeers(const config::v1::Peers& peers, const std::vector<std::string>& names) {
  std::vector<absl::Status> checks;
  for (const std::string& name : names) {
    const google::protobuf::FieldDescriptor* field = peers.GetDescriptor()->FindFieldByCamelcaseName(name);
    checks.push_back(Require(absl::StrCat("peers.", name), peers.GetReflection()->GetString(peers, field)));
  }
  return MergeViolations(checks);
}

absl::Status CheckPublicUrl(const std::string& public_url) {
  constexpr char kField[] = "deployment.publicUrl";
  if (public_url.empty()) {
    return InvalidField(kField, "is required: the origin clients use, such as https://gw.example.com");
  }
  const absl::StatusOr<Url> url = Url::Parse(public_url);
  if (!url.ok()) {
    return InvalidField(kField, "must be a bare origin like https://gw.example.com, without path or trailing slash");
  }
  if (url->origin() != public_url) {
    return InvalidField(kField, absl::StrCat("must be a bare origin: write ", url->origin()));
  }
  if (!url->is_https() && !IsLoopbackHost(url->host())) {
    return InvalidField(kField, "must be https, except on loopback");
  }
  return absl::OkStatus();
}

absl::Status ValidateDeployment(const config::v1::Deployment& deployment) {
  std::vector<absl::Status> checks = {CheckPublicUrl(deployment.public_url()),
                                      CheckNetworks("deployment.trustedProxies", deployment.trusted_proxies())};
  // Every list in there is one of networks.
  const config::v1::Egress& egress = deployment.egress();
  for (int i = 0; i < egress.GetDescriptor()->field_count(); ++i) {
    const google::protobuf::FieldDescriptor* field = egress.GetDescriptor()->field(i);
    if (field->is_repeated()) {
      const auto texts = egress.GetReflection()->GetRepeatedFieldRef<std::string>(egress, field);
      checks.push_back(ParseNetworks(std::vector<std::string>(texts.begin(), texts.end()),
                                     absl::StrCat("deployment.egress.", field->json_name()))
                           .status());
    }
  }
  checks.push_back(ValidateEgressProxy(egress));
  for (int i = 0; i < deployment.extra_hosts_size(); ++i) {
    checks.push_back(CheckHost(absl::StrCat("deployment.extraHosts[", i, "]"), deployment.extra_hosts(i)));
  }
  for (int i = 0; i < deployment.allowed_origins_size(); ++i) {
    if (!IsOrigin(deployment.allowed_origins(i))) {
      checks.push_back(InvalidField(absl::StrCat("deployment.allowedOrigins[", i, "]"),
                                    "must be an origin such as https://app.example.com"));
    }
  }
  const auto& hosted = deployment.hosted_client_origins();
  for (int i = 0; i < hosted.size(); ++i) {
    if (!IsOrigin(hosted[i]) && (hosted[i] != "none" || hosted.size() > 1)) {
      checks.push_back(InvalidField(absl::StrCat("deployment.hostedClientOrigins[", i, "]"),
                                    "must be an origin such as https://chat.example.com, or the single entry none"));
    }
  }
  return MergeViolations(checks);
}

absl::Status ValidateDatabase(const config::v1::Database& database) {
  std::vector<absl::Status> checks;
  const auto refuse = [&](absl::string_view field, absl::string_view message) {
    checks.push_back(InvalidField(field, message));
  };
  if (database.sqlite().empty() && database.postgresql().empty()) {
    refuse("database", "is required: sqlite or postgresql");
  }
  if (absl::StrContains(database.sqlite(), '"')) {
    refuse("database.sqlite", "must not contain quotes");
  }
  if (absl::StrContains(database.postgresql(), "://") || absl::StrContains(database.postgresql(), "password")) {
    refuse("database.postgresql", "must have the form \"host=… dbname=…\"; the password belongs into passwordFile");
  }
  if (database.pool_size() < 0 || database.pool_size() > kMaxPool) {
    refuse("database.poolSize", absl::StrCat("must be 0 (the default) to ", kMaxPool));
  }
  checks.push_back(CheckSecretFile("database.passwordFile", database.password_file()));
  checks.push_back(AuditOutbox::LimitFrom(database.audit_outbox_limit(), "database.auditOutboxLimit").status());
  return MergeViolations(checks);
}

}  // namespace sallyport
