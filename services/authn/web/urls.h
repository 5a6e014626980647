// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/http/url.h"

namespace sallyport::authn::web {

// application/x-www-form-urlencoded, as a query or a body. Pure.
class Form {
 public:
  // INVALID_ARGUMENT as FormDecode, and for invalid UTF-8 or more than 64 parameters.
  static absl::StatusOr<Form> Parse(absl::string_view encoded);

  // The first value; empty when absent.
  const std::string& Get(absl::string_view name) const;
  bool Has(absl::string_view name) const;
  int Count(absl::string_view name) const;
  // A name that occurs more than once (RFC 6749 section 3.1 forbids it), other than `except`; empty if there is none.
  std::string Duplicate(absl::string_view except = "") const;

 private:
  FormFields fields_;
};

// Form-encoded; parameters with an empty value are left out.
std::string EncodeQuery(const FormFields& parameters);
// `uri` with the parameters added to its query; it has no fragment.
std::string WithParameters(absl::string_view uri, const FormFields& parameters);

// An absolute URI, split by RFC 3986 appendix B after a strict look: printable ASCII only, no space, quote, backslash,
// '<', '>'; every '%' followed by two hex digits.
struct Uri {
  std::string scheme;  // Lower case in the input, or it is refused.
  bool has_authority = false;
  std::string userinfo;
  bool has_userinfo = false;
  std::string host;  // As written, with brackets for IPv6.
  std::string port;  // As written, may be empty.
  std::string path;
  std::string query;  // Without '?'.
  bool has_query = false;
  bool has_fragment = false;
};
std::optional<Uri> ParseUri(absl::string_view text);

// localhost, 127.0.0.1 or [::1], literally.
bool IsLoopbackHost(absl::string_view host);

// May a client register this redirect URI? https; http to a loopback host (RFC 8252 section 7.3); a private-use scheme
// (section 7.1) that no browser runs or reads files with. No fragment, userinfo or wildcard; at most 2,048 bytes. The
// error says what is wrong.
absl::Status ValidateRedirectUri(absl::string_view uri);
// RFC 9700 section 2.1.1: byte for byte; only for http loopback the port may differ, with the same literal host, path,
// query.
bool RedirectUriMatches(absl::string_view registered, absl::string_view requested);
// What the user is shown and consent is remembered by: the host, or "scheme:" for private-use schemes.
std::string RedirectHost(absl::string_view uri);
bool IsLoopbackRedirect(absl::string_view uri);

// Where to go after the sign-in: a path of our own origin, or "/" for anything else. Only a plain path and query pass;
// nothing that a browser could read as another origin (RFC 3986 and the URL standard's leniencies: "//", backslashes,
// controls, encoded slashes, dot segments).
std::string SafeReturnTo(absl::string_view return_to);

// RFC 7636 section 4.1 and 4.2.
bool IsCodeVerifier(absl::string_view verifier);
bool IsS256Challenge(absl::string_view challenge);

}  // namespace sallyport::authn::web
