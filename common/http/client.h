// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/http/networks.h"
#include "common/http/provider_gate.h"

namespace sallyport {

struct HttpRequest {
  std::string method = "GET";
  std::string url;  // As Url::Parse takes it.
  // No CR, LF or NUL. Content-Type is sent only if given here.
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  // From the call to the last byte of the answer.
  absl::Duration timeout = absl::Seconds(10);
  // Longer answers fail with RESOURCE_EXHAUSTED.
  size_t max_body = 256 << 10;
  // For what must not arrive twice (codes, refresh tokens): a connection of its own. On a reused one that the server
  // closes without an answer, the request is sent again: the server may have closed before it saw it, or after.
  bool once = false;
};

struct HttpResponse {
  int status = 0;
  // Names in lower case, in order of arrival.
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;

  // First value of the header (name in lower case); empty if absent.
  std::string Header(absl::string_view name) const;
  // Content-Type without parameters, lower case.
  std::string MediaType() const;
};

// Client for everything the services fetch themselves: discovery, JWKS, token and revocation endpoints. One libcurl
// multi handle on one thread, connections kept and reused. Does not follow redirects (a 3xx is an answer like any
// other), reads no proxy environment, no netrc, keeps no cookies. The policy is applied to the address of every
// connection when it is made, so a name that resolves elsewhere later gains nothing. Where the policy has a proxy, each
// connection it covers is a tunnel (CONNECT) through it, for http URLs too, and never a direct one; the policy is
// applied to the URL then. Request bodies and header values are wiped when the exchange is over.
class HttpClient {
 public:
  struct Options {
    EgressPolicy policy;
    // PEM file of additional certificate authorities, beside the system's. Empty: the system's only.
    std::string ca_bundle;
    absl::Duration connect_timeout = absl::Seconds(5);
    ProviderGate::Options gate;
    // Exchanges in flight and waiting; more fail with RESOURCE_EXHAUSTED.
    size_t max_exchanges = 1000;
    const Clock* clock = nullptr;  // Null: system time. Must outlive the client.
  };
  using Callback = std::function<void(absl::StatusOr<HttpResponse>)>;

  static absl::StatusOr<std::unique_ptr<HttpClient>> Create(Options options);
  // Calls in flight end with CANCELLED.
  ~HttpClient();

  // Errors: INVALID_ARGUMENT (URL, method or header), PERMISSION_DENIED reason "network_not_allowed",
  // RESOURCE_EXHAUSTED (answer too long; too many in flight), UNAVAILABLE (name, connection, proxy, TLS, broken answer;
  // reason "circuit_open" when it was not even tried), DEADLINE_EXCEEDED. Whatever the code, reason "not_sent" says
  // that the request certainly did not leave, in no attempt at it. Messages name the host, never the query, a header or
  // the body.
  absl::StatusOr<HttpResponse> Fetch(HttpRequest request);
  // `done` runs exactly once, on the client's thread or, for requests refused at once, on the caller's. It must not
  // block and must not call the blocking form.
  void FetchAsync(HttpRequest request, Callback done);

 private:
  struct State;
  explicit HttpClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sallyport
