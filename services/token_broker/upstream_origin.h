// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/http/url.h"
#include "sallyport/registry/v1/mcp_server.pb.h"

namespace sallyport::token_broker {

// Where the requests of a server go, as Url::origin() writes it. Of a secret address it is what was stored beside it.
// Empty if the configuration names none.
inline std::string UpstreamOriginOf(const registry::v1::McpServer& server) {
  if (server.has_secret_upstream_url()) return server.upstream_origin();
  const absl::StatusOr<Url> url = Url::Parse(server.upstream_url());
  return url.ok() ? url->origin() : "";
}

}  // namespace sallyport::token_broker
