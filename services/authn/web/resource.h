// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace sallyport::authn::web {

// `resource` (RFC 8707) in the one form we compare: scheme and host in lower case, no default port, no query, no slash
// at the end. Clients send the address as its user typed it: a query or a slash makes no other server. Empty if it is
// no URL, or has a fragment or user information.
std::string NormalizeResource(absl::string_view resource);

// Does `resource` name no server at all: absent, empty, or the bare origin `public_url`? Clients of MCP 2025-03-26, for
// which the origin is the server, send it so.
bool NamesNoServer(absl::string_view resource, absl::string_view public_url);

}  // namespace sallyport::authn::web
