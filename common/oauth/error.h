// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

// Error codes of OAuth 2.0 and OpenID Connect, as they stand on the wire.
namespace sallyport::oauth {

// RFC 6749 sections 4.1.2.1 and 5.2.
inline constexpr char kInvalidRequest[] = "invalid_request";
inline constexpr char kInvalidClient[] = "invalid_client";
inline constexpr char kInvalidGrant[] = "invalid_grant";
inline constexpr char kUnauthorizedClient[] = "unauthorized_client";
inline constexpr char kUnsupportedGrantType[] = "unsupported_grant_type";
inline constexpr char kUnsupportedResponseType[] = "unsupported_response_type";
inline constexpr char kInvalidScope[] = "invalid_scope";
inline constexpr char kAccessDenied[] = "access_denied";
inline constexpr char kServerError[] = "server_error";
inline constexpr char kTemporarilyUnavailable[] = "temporarily_unavailable";
// RFC 6750 section 3.1.
inline constexpr char kInvalidToken[] = "invalid_token";
inline constexpr char kInsufficientScope[] = "insufficient_scope";
// RFC 7009 section 2.2.1.
inline constexpr char kUnsupportedTokenType[] = "unsupported_token_type";
// RFC 7591 section 3.2.2.
inline constexpr char kInvalidRedirectUri[] = "invalid_redirect_uri";
inline constexpr char kInvalidClientMetadata[] = "invalid_client_metadata";
// RFC 8707 section 2.
inline constexpr char kInvalidTarget[] = "invalid_target";
// OpenID Connect Core section 3.1.2.6.
inline constexpr char kLoginRequired[] = "login_required";
inline constexpr char kConsentRequired[] = "consent_required";
inline constexpr char kInteractionRequired[] = "interaction_required";

// Another party's code as it may go into logs, audit and pages: up to 64 letters, digits, '_', '-' and '.';
// "unreadable_error" for anything else.
std::string SafeErrorCode(absl::string_view code);

}  // namespace sallyport::oauth
