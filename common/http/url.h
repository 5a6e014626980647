// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sallyport {

// The one URL parser of the suite, for absolute http and https URLs. Strict instead of forgiving: what two parsers
// could understand differently is refused, so that the URL that was checked is the URL that is dialled.
class Url {
 public:
  // INVALID_ARGUMENT for: another scheme; user info; a fragment; more than 8 KiB; a character RFC 3986 does not have
  // there; an empty host, a trailing dot, a numeric host that is not a dotted quad ("127.1", "0x7f.1", "2130706433"),
  // an IPv6 zone or IPv4-mapped address; port 0 or above 65535; a broken percent escape, or one for NUL; "." and ".."
  // segments, escaped or not. Scheme and host become lower case, IPv6 hosts canonical; an absent path becomes "/". Path
  // and query stay byte for byte.
  static absl::StatusOr<Url> Parse(absl::string_view text);

  const std::string& scheme() const { return scheme_; }  // "http" or "https".
  // Lower case; IPv6 without brackets.
  const std::string& host() const { return host_; }
  bool host_is_ipv6() const { return ipv6_; }
  uint16_t port() const { return port_; }              // Always set: 80 or 443 if absent.
  const std::string& path() const { return path_; }    // Begins with '/'.
  const std::string& query() const { return query_; }  // Without '?'; empty if absent.
  bool is_https() const { return scheme_ == "https"; }
  // "https://host" or "https://host:8443"; a default port is left out. RFC 6454 section 6.2.
  std::string origin() const;
  // Value of the Host header: the origin without its scheme.
  std::string authority() const;
  // Path and query, as in a request line.
  std::string target() const;
  std::string ToString() const;

 private:
  Url() = default;
  std::string scheme_;
  std::string host_;
  bool ipv6_ = false;
  uint16_t port_ = 0;
  std::string path_;
  std::string query_;
  bool has_query_ = false;
};

// RFC 3986 section 2.1: everything but unreserved characters is escaped.
std::string PercentEncode(absl::string_view bytes);
// INVALID_ARGUMENT for a broken escape. '+' stays '+'.
absl::StatusOr<std::string> PercentDecode(absl::string_view text);

using FormFields = std::vector<std::pair<std::string, std::string>>;

// application/x-www-form-urlencoded (RFC 6749 appendix B): space becomes '+'.
std::string FormEncode(const FormFields& fields);
// In order, duplicates kept. INVALID_ARGUMENT for a broken escape, an empty name, an escaped NUL, or more than
// `max_fields`.
absl::StatusOr<FormFields> FormDecode(absl::string_view text, size_t max_fields = 100);
// INVALID_ARGUMENT also if a name occurs twice (RFC 6749 section 3.1).
absl::StatusOr<std::map<std::string, std::string>> FormDecodeUnique(absl::string_view text, size_t max_fields = 100);
// `url` with fields added to its query: "?" or "&" as needed. `url` must have no fragment.
std::string AppendQuery(absl::string_view url, const FormFields& fields);

}  // namespace sallyport
