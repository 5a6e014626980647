// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>

#include "common/clock.h"
#include "common/http/client.h"
#include "common/http/url.h"
#include "common/mutex.h"
#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/token_response.h"

namespace sallyport::token_broker {

// Over HTTP. A client a provider has rejected is not presented to it again for 60 s.
class HttpTokenEndpoint final : public TokenEndpoint, public ClientGrants {
 public:
  // Both outlive this.
  HttpTokenEndpoint(HttpClient& http, const Clock& clock) : http_(http), clock_(clock) {}

  TokenResult ExchangeCode(const Provider& provider, const Secret& code, const std::string& redirect_uri,
                           const Secret& code_verifier) override;
  TokenResult Refresh(const Provider& provider, const Secret& refresh_token) override;
  RevocationResult Revoke(const Provider& provider, const Secret& token, absl::string_view hint) override;
  TokenResult Ask(const Provider& provider, const FormFields& fields) override;

 private:
  TokenResult Ask(const Provider& provider, GrantKind kind, FormFields fields);
  absl::StatusOr<HttpRequest> ClientRequest(const Provider& provider, const std::string& url, FormFields fields) const;
  // How long this client is still not presented there.
  absl::Duration RejectedFor(const Provider& provider);
  void SetRejected(const Provider& provider);

  HttpClient& http_;
  const Clock& clock_;
  Mutex mu_;
  std::map<std::pair<std::string, std::string>, absl::Time> rejected_until_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker
