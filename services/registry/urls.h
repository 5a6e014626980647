// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "services/registry/validation.h"

namespace sallyport::registry {

// An MCP endpoint: https anywhere the networks allow, plain http (warned about) to loopback and private networks. Warns
// of a query, too.
void ValidateUpstreamUrl(const std::string& url, const std::vector<std::string>& networks, Findings& findings);
// Authorization servers and key sets: https, or http to loopback where the networks name it.
void ValidateOAuthUrl(const std::string& url, const std::string& field, const std::vector<std::string>& networks,
                      Findings& findings);
// Of an app: an OAuth URL without query and fragment (RFC 8414 section 2).
void ValidateIssuer(const std::string& url, const std::vector<std::string>& networks, Findings& findings);
void ValidateCidr(const std::string& text, const std::string& field, Findings& findings);
// OK if it is a JWKS with at least one usable key.
absl::Status CheckJwks(const std::string& json);

}  // namespace sallyport::registry
