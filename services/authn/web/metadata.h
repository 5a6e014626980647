// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "services/authn/web/context.h"

namespace sallyport::authn::web {

// Documents under /.well-known/ and the key set. Addresses come from public_url alone, whatever Host said.
//   oauth-protected-resource/mcp/<slug>                      RFC 9728, enabled Interactive servers only
//   oauth-authorization-server, …/mcp/<slug>                 RFC 8414
//   openid-configuration, …/mcp/<slug>                       the same, for clients that look there only
class Metadata {
 public:
  explicit Metadata(const Context& context) : context_(context) {}

  // 404 for anything else. UNAVAILABLE while the servers are not known yet: clients must not take that for "no OAuth
  // here".
  absl::StatusOr<WebResponse> WellKnown(absl::string_view path) const;
  absl::StatusOr<WebResponse> Jwks() const;

 private:
  std::string AuthorizationServer(bool as_openid) const;

  const Context& context_;
};

}  // namespace sallyport::authn::web
