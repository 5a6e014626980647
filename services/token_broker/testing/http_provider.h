// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"

#include "common/http/url.h"
#include "common/mutex.h"
#include "tests/testing/http_server.h"

namespace sallyport::token_broker::testing {

// A provider's endpoints on loopback. What they answer is the test's business.
class HttpProvider {
 public:
  struct Request {
    std::string path;  // With the query.
    std::map<std::string, std::string> form;
    std::string authorization;
  };
  struct Response {
    int status = 200;
    std::string body;
    std::string content_type = "application/json";
    std::string extra_headers;  // "Retry-After: 7\r\n"
  };
  using Handler = std::function<Response(const Request&)>;

  explicit HttpProvider(Handler handler)
      : handler_(std::move(handler)), server_([this](const auto& request) { return Answer(request); }) {}

  std::string Url(const std::string& path) const { return server_.origin() + path; }
  // Where nothing listens.
  static std::string UrlOfNobody(const std::string& path) {
    return HttpProvider([](const Request&) { return Response(); }).Url(path);
  }
  void SetHandler(Handler handler) {
    MutexLock lock(mu_);
    handler_ = std::move(handler);
  }

 private:
  using Server = ::sallyport::testing::TestHttpServer;

  Server::Response Answer(const Server::Request& received) {
    Request request;
    request.path = received.target;
    request.form = FormDecodeUnique(received.body).value_or(std::map<std::string, std::string>());
    if (const auto header = received.headers.find("authorization"); header != received.headers.end()) {
      request.authorization = header->second;
    }
    Handler handler;
    {
      MutexLock lock(mu_);
      handler = handler_;
    }
    const Response response = handler(request);
    Server::Response answer;
    answer.status = response.status;
    answer.body = response.body;
    answer.headers.emplace_back("Content-Type", response.content_type);
    for (const absl::string_view line : absl::StrSplit(response.extra_headers, "\r\n", absl::SkipEmpty())) {
      answer.headers.push_back(absl::StrSplit(line, absl::MaxSplits(": ", 1)));
    }
    return answer;
  }

  Mutex mu_;
  Handler handler_ ABSL_GUARDED_BY(mu_);
  Server server_;  // Last: it calls the handler until it is gone.
};

}  // namespace sallyport::token_broker::testing
