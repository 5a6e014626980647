// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <google/protobuf/message.h>

#include "common/http/client.h"
#include "common/http/url.h"
#include "tools/cli/credentials.h"
#include "tools/cli/terminal.h"

namespace sallyport::cli {

// Which gateway, as the user said it.
struct Target {
  std::string url;      // --url; else SALLYPORT_URL; else the latest login's.
  std::string ca_file;  // --ca-file; else SALLYPORT_CA_FILE: further certificate authorities (PEM).
};

// A gateway's HTTP API: POST <url>/api/<package>.<Service>/<Method> with proto-JSON.
class ApiClient {
 public:
  // Does not connect yet. INVALID_ARGUMENT if no URL is known or it is no bare origin, or plain http to anything but
  // loopback (tokens would travel in the clear).
  static absl::StatusOr<ApiClient> Create(const Target& target, const Terminal& terminal);

  // `method` is "sallyport.registry.v1.Registry/Apply". Sends the saved token, renewed first if it is about to end.
  // Errors carry the code that fits the HTTP status, the gateway's message, and its violations as detail
  // (common/error.h); UNAUTHENTICATED and UNAVAILABLE say what to do.
  absl::Status Call(const std::string& method, const google::protobuf::Message& request,
                    google::protobuf::Message* response);
  // Without a token.
  absl::Status CallAnonymously(const std::string& method, const google::protobuf::Message& request,
                               google::protobuf::Message* response);
  // POST of a form to /oauth/token or /oauth/revoke. Errors by RFC 6749 section 5.2.
  absl::StatusOr<std::string> PostForm(const std::string& path, const FormFields& fields);

  // One request of any kind to a path of the gateway; every status is an answer.
  absl::StatusOr<HttpResponse> Exchange(const std::string& path, HttpRequest request);

  // Reads the answer of /oauth/token. Keeps `old_refresh_token` when there is no new one.
  absl::StatusOr<Login> ParseTokens(const std::string& body, Secret old_refresh_token) const;
  // Saves a login for this gateway and makes it the default.
  absl::Status Save(Login login);
  // Removes the saved login and returns it; an empty one if there was none.
  absl::StatusOr<Login> Forget();

  const std::string& url() const { return url_; }
  // Something was sent to the gateway.
  bool sent() const { return sent_; }

 private:
  ApiClient(std::string url, std::string path, std::unique_ptr<HttpClient> http, const Terminal& terminal)
      : url_(std::move(url)), credentials_path_(std::move(path)), http_(std::move(http)), terminal_(&terminal) {}

  // As Exchange; every status but 200 is an error.
  absl::StatusOr<HttpResponse> Send(const std::string& path, HttpRequest request);
  absl::Status Post(const std::string& method, const Secret& token, const google::protobuf::Message& request,
                    google::protobuf::Message* response);
  absl::StatusOr<Secret> Token();

  std::string url_;  // Bare origin.
  std::string credentials_path_;
  std::unique_ptr<HttpClient> http_;
  const Terminal* terminal_;
  bool sent_ = false;
};

}  // namespace sallyport::cli
