// SPDX-License-Identifier: Apache-2.0
#include "common/http/url.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/http/networks.h"
#include "common/http/percent.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "common/text/string_view.h"

namespace sallyport {
namespace {

constexpr size_t kMaxUrlSize = 8 << 10;
constexpr size_t kMaxHostSize = 253;
constexpr size_t kMaxLabelSize = 63;

absl::Status Refused(absl::string_view why) { return absl::InvalidArgumentError(absl::StrCat("url: ", why)); }

// RFC 3986 section 3.3, with '/'.
bool IsPathCharacter(char c) { return IsUnreserved(c) || absl::StrContains("!$&'()*+,;=:@/", c); }
bool IsQueryCharacter(char c) { return IsPathCharacter(c) || c == '?'; }
bool IsHex(char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); }

// `allowed` says which characters may stand unescaped.
absl::Status CheckEscapes(absl::string_view text, bool (*allowed)(char), absl::string_view part) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      if (!allowed(text[i])) return Refused(absl::StrCat("a character in the ", part, " must be percent-encoded"));
      continue;
    }
    if (i + 2 >= text.size() || !IsHex(text[i + 1]) || !IsHex(text[i + 2])) {
      return Refused(absl::StrCat("a percent escape in the ", part, " is broken"));
    }
    if (text[i + 1] == '0' && text[i + 2] == '0') return Refused(absl::StrCat("the ", part, " holds NUL"));
    i += 2;
  }
  return absl::OkStatus();
}

absl::Status CheckDotSegments(absl::string_view path) {
  for (const std::string& segment : std::vector<std::string>(absl::StrSplit(path, '/'))) {
    std::string plain = absl::AsciiStrToLower(segment);
    for (size_t at = plain.find("%2e"); at != std::string::npos; at = plain.find("%2e")) plain.replace(at, 3, ".");
    if (plain == "." || plain == "..") return Refused("\".\" and \"..\" segments are not allowed");
  }
  return absl::OkStatus();
}

// Would some resolver take the name for a number? Then it must be a dotted quad (WHATWG URL, "ends in a number").
bool LooksNumeric(absl::string_view last_label) {
  if (last_label.size() > 1 && (last_label[0] == '0') && (last_label[1] == 'x' || last_label[1] == 'X')) return true;
  for (const char c : last_label) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

absl::StatusOr<std::string> ParseName(absl::string_view text) {
  if (text.empty()) return Refused("the host is missing");
  if (text.size() > kMaxHostSize) return Refused("the host is too long");
  const std::string host = absl::AsciiStrToLower(text);
  const std::vector<std::string> labels = absl::StrSplit(host, '.');
  for (const std::string& label : labels) {
    if (label.empty()) return Refused("the host has an empty label");
    if (label.size() > kMaxLabelSize || label.front() == '-' || label.back() == '-') {
      return Refused("the host has a malformed label");
    }
    for (const char c : label) {
      if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_') {
        return Refused("the host has a character that no host name has; write international names as xn--…");
      }
    }
  }
  if (LooksNumeric(labels.back()) && !IpAddress::Parse(host).ok()) {
    return Refused("a numeric host must be four decimal numbers without leading zeros");
  }
  return host;
}

absl::StatusOr<std::string> ParseIpv6Host(absl::string_view text) {
  auto address = IpAddress::Parse(text);
  if (!address.ok()) return Refused("the host is no IPv6 address");
  if (address->is_v4()) return Refused("write IPv4-mapped addresses as IPv4");
  return address->ToString();
}

absl::StatusOr<uint16_t> ParsePort(absl::string_view text) {
  int port = 0;
  for (const char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return Refused("the port is no number");
  }
  if (text.size() > 5 || !absl::SimpleAtoi(text, &port) || port < 1 || port > 65535) {
    return Refused("the port must be 1 to 65535");
  }
  return static_cast<uint16_t>(port);
}

}  // namespace

absl::StatusOr<Url> Url::Parse(absl::string_view text) {
  if (text.size() > kMaxUrlSize) return Refused("too long");
  Url url;
  const size_t colon = text.find("://");
  url.scheme_ = absl::AsciiStrToLower(text.substr(0, colon == absl::string_view::npos ? 0 : colon));
  if (url.scheme_ != "http" && url.scheme_ != "https") return Refused("must begin with https:// or http://");
  text.remove_prefix(colon + 3);
  if (text.find('#') != absl::string_view::npos) return Refused("must not have a fragment");
  const size_t authority_end = std::min(text.find_first_of("/?"), text.size());
  absl::string_view authority = text.substr(0, authority_end);
  absl::string_view rest = text.substr(authority_end);
  if (authority.find('@') != absl::string_view::npos) return Refused("must not have user information");
  absl::string_view port;
  bool has_port = false;
  if (absl::StartsWith(authority, "[")) {
    const size_t end = authority.find(']');
    if (end == absl::string_view::npos) return Refused("the host is no IPv6 address");
    url.ipv6_ = true;
    ASSIGN_OR_RETURN(url.host_, ParseIpv6Host(authority.substr(1, end - 1)));
    port = authority.substr(end + 1);
    has_port = !port.empty();
    if (has_port && port[0] != ':') return Refused("the host is malformed");
    if (has_port) port.remove_prefix(1);
  } else {
    const size_t port_colon = authority.find(':');
    has_port = port_colon != absl::string_view::npos;
    if (has_port) port = authority.substr(port_colon + 1);
    ASSIGN_OR_RETURN(url.host_, ParseName(authority.substr(0, port_colon)));
  }
  url.port_ = url.is_https() ? 443 : 80;
  if (has_port) {
    ASSIGN_OR_RETURN(url.port_, ParsePort(port));
  }
  const size_t question = rest.find('?');
  url.has_query_ = question != absl::string_view::npos;
  url.path_ = std::string(rest.substr(0, question));
  if (url.path_.empty()) url.path_ = "/";
  if (url.has_query_) url.query_ = std::string(rest.substr(question + 1));
  RETURN_IF_ERROR(CheckEscapes(url.path_, IsPathCharacter, "path"));
  RETURN_IF_ERROR(CheckEscapes(url.query_, IsQueryCharacter, "query"));
  RETURN_IF_ERROR(CheckDotSegments(url.path_));
  return url;
}

std::string Url::authority() const {
  const std::string host = ipv6_ ? absl::StrCat("[", host_, "]") : host_;
  return port_ == (is_https() ? 443 : 80) ? host : absl::StrCat(host, ":", port_);
}

std::string Url::origin() const { return absl::StrCat(scheme_, "://", authority()); }
std::string Url::target() const { return has_query_ ? absl::StrCat(path_, "?", query_) : path_; }
std::string Url::ToString() const { return absl::StrCat(origin(), target()); }

std::string PercentEncode(absl::string_view bytes) {
  std::string out;
  AppendPercentEncoded(ToStd(bytes), out);
  return out;
}

absl::StatusOr<std::string> PercentDecode(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return absl::InvalidArgumentError("percent escape is broken");
    auto byte = HexDecode(text.substr(i + 1, 2));
    if (!byte.ok()) return absl::InvalidArgumentError("percent escape is broken");
    out += *byte;
    i += 2;
  }
  return out;
}

std::string FormEncode(const FormFields& fields) {
  const auto encode = [](const std::string& text) {
    std::string encoded = PercentEncode(text);
    std::string out;
    // The serializer of forms leaves '*' alone and escapes '~'; parsers take either. Only the space differs for all.
    for (size_t i = 0; i < encoded.size(); ++i) {
      if (encoded.compare(i, 3, "%20") == 0) {
        out.push_back('+');
        i += 2;
      } else {
        out.push_back(encoded[i]);
      }
    }
    return out;
  };
  std::string out;
  for (const auto& [name, value] : fields)
    absl::StrAppend(&out, out.empty() ? "" : "&", encode(name), "=", encode(value));
  return out;
}

absl::StatusOr<FormFields> FormDecode(absl::string_view text, size_t max_fields) {
  FormFields fields;
  const auto decode = [](absl::string_view part) {
    std::string spaced(part);
    for (char& c : spaced) c = c == '+' ? ' ' : c;
    return PercentDecode(spaced);
  };
  while (!text.empty()) {
    const size_t end = std::min(text.find('&'), text.size());
    const absl::string_view piece = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (piece.empty()) continue;
    if (fields.size() == max_fields) return absl::InvalidArgumentError("form: too many fields");
    const size_t equals = piece.find('=');
    ASSIGN_OR_RETURN(std::string name, decode(piece.substr(0, equals)));
    std::string value;
    if (equals != absl::string_view::npos) {
      ASSIGN_OR_RETURN(value, decode(piece.substr(equals + 1)));
    }
    if (name.empty()) return absl::InvalidArgumentError("form: a field has no name");
    if (name.find('\0') != std::string::npos || value.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError("form: a field holds NUL");
    }
    fields.emplace_back(std::move(name), std::move(value));
  }
  return fields;
}

absl::StatusOr<std::map<std::string, std::string>> FormDecodeUnique(absl::string_view text, size_t max_fields) {
  ASSIGN_OR_RETURN(FormFields fields, FormDecode(text, max_fields));
  std::map<std::string, std::string> unique;
  for (auto& [name, value] : fields) {
    if (!unique.emplace(name, std::move(value)).second) {
      return absl::InvalidArgumentError("form: a field occurs more than once");
    }
  }
  return unique;
}

std::string AppendQuery(absl::string_view url, const FormFields& fields) {
  if (fields.empty()) return std::string(url);
  const size_t question = url.find('?');
  absl::string_view separator = "?";
  if (question != absl::string_view::npos) separator = absl::EndsWith(url, "?") || absl::EndsWith(url, "&") ? "" : "&";
  return absl::StrCat(url, separator, FormEncode(fields));
}

}  // namespace sallyport
