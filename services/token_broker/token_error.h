// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker {

// What an answer is the answer to.
enum class GrantKind {
  // Of a code, or of a client itself. Nothing depends on it yet: anything odd is an error and nothing is stored.
  kCode,
  // It may hold the only copy of a rotated refresh token: what can be kept is kept, with or without an access token.
  kRefresh,
};

// An error as a token endpoint sent it (RFC 6749 section 5.2).
struct TokenErrorAnswer {
  int http_status = 0;
  std::string code;         // Empty: none.
  std::string suberror;     // Microsoft Entra: what kind of `code`.
  std::string description;  // Read here, and never repeated anywhere.
  bool html = false;        // A page for people, of whatever stands before the provider.
};

// The one place that decides what an error means.
ProviderFailure ClassifyError(GrantKind kind, const TokenErrorAnswer& answer);

// The text says that the refresh token itself is at fault: "refresh_token is invalid". Not "the client may not use the
// grant type refresh_token", which is what unauthorized_client means (RFC 6749 section 5.2).
bool BlamesRefreshToken(absl::string_view text);

}  // namespace sallyport::token_broker
