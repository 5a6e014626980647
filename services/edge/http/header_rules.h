// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "services/edge/http/request_head.h"
#include "services/edge/http/upstream_target.h"

namespace sallyport::edge {

// A set of field-name patterns ('*' any run, '?' one byte; case-insensitive, '_' equal to '-'), compiled once.
class NamePatterns {
 public:
  NamePatterns() = default;
  // INVALID_ARGUMENT for an empty pattern, one over 128 bytes, or bytes that no field name has.
  static absl::StatusOr<NamePatterns> Compile(const std::vector<std::string>& patterns);
  bool Matches(std::string_view name) const;
  bool empty() const { return exact_.empty() && prefixes_.empty() && globs_.empty(); }

 private:
  // All normalized: lower case, '_' turned into '-'.
  std::vector<std::string> exact_;
  std::vector<std::string> prefixes_;  // "x-internal-*", the common form.
  std::vector<std::string> globs_;
};

// Which rule drops a request field; in the order the rules are applied. For the dry run.
enum class DropReason : uint8_t {
  kKept,
  kHopByHop,
  kConnectionListed,
  kAlways,
  kIdentity,
  kRestricted,
  kInjected,
  kFraming
};
std::string_view DropReasonName(DropReason reason);

// The request side of one server's header rules, immutable.
class RequestRules {
 public:
  RequestRules() = default;
  // `restricted`: globs. `injected`: every name that app authentication or an outbound header sets (also
  // "Authorization" where the gateway sets or forwards it), each of which a caller can therefore not pre-set.
  static absl::StatusOr<RequestRules> Compile(const std::vector<std::string>& restricted,
                                              const std::vector<std::string>& injected);
  // What proxies assert of a caller (HeaderId::kIdentity) goes on as the caller sent it; else it is dropped.
  void ForwardIdentity() { forward_identity_ = true; }
  DropReason Decide(const RequestHead& head, const HeaderField& field) const;
  // Appends the caller's fields that pass. `skip` and `skip_too` name more ids to leave out (the session id, when it is
  // rewritten; Accept-Encoding, when the answer goes into a stream of ours).
  void AppendFields(const RequestHead& head, HeaderId skip, std::string& out,
                    HeaderId skip_too = HeaderId::kOther) const;

 private:
  NamePatterns restricted_;
  NamePatterns injected_;
  bool forward_identity_ = false;
};

// "POST /path?query HTTP/1.1\r\nHost: …\r\n". The caller's query follows the URL's own. If `api_key_name` is not empty,
// parameters that some server takes for that name (query_parameters.h) are taken out of both and "name=value" is
// appended, percent-encoded.
void AppendRequestLine(std::string_view method, const UpstreamTarget& target, std::string_view query,
                       std::string_view api_key_name, std::string_view api_key_value, std::string& out);
// False, and nothing appended, if the value cannot be a field value (CR, LF, NUL, other controls).
[[nodiscard]] bool AppendField(std::string_view name, std::string_view prefix, std::string_view value,
                               std::string& out);
// Content-Length (unless the request has no body and its method expects none) and the blank line.
void FinishRequestHead(std::string_view method, size_t body_length, std::string& out);

// What this server answers at all (RFC 9110 section 10.2.1).
inline constexpr std::string_view kAllowedMethods = "GET, POST, DELETE, OPTIONS";
// For our own answers to browsers from an allowed origin (with Access-Control-Allow-Origin: <origin> and Vary: Origin).
inline constexpr std::string_view kCorsExposeHeaders = "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version";
inline constexpr std::string_view kCorsAllowMethods = kAllowedMethods;
inline constexpr std::string_view kCorsAllowHeaders =
    "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID, "
    "X-Sallyport-Account, X-Sallyport-Authorization";
// The value of Access-Control-Allow-Headers for a preflight: the list above and those mcp-param-* names that it asks
// for.
std::string CorsAllowHeaders(std::string_view requested);

}  // namespace sallyport::edge
