// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/header_rules.h"

#include <algorithm>
#include <charconv>

#include "common/http/percent.h"
#include "services/edge/http/field_parser.h"
#include "services/edge/http/query_parameters.h"

namespace sallyport::edge {
namespace {

constexpr size_t kMaxPattern = 128;

bool StartsWithNormal(std::string_view name, std::string_view normal_prefix) {
  return name.size() >= normal_prefix.size() &&
         std::equal(normal_prefix.begin(), normal_prefix.end(), name.begin(),
                    [](char normal, char c) { return normal == NormalNameByte(c); });
}

bool EqualsNormal(std::string_view name, std::string_view normal) {
  return name.size() == normal.size() && StartsWithNormal(name, normal);
}

// Iterative with one point of return, so linear in practice and never exponential.
bool GlobMatches(std::string_view glob, std::string_view name) {
  size_t g = 0;
  size_t n = 0;
  size_t star = std::string_view::npos;
  size_t star_name = 0;
  while (n < name.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_name = n;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == NormalNameByte(name[n]))) {
      ++g;
      ++n;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  return glob.find_first_not_of('*', g) == std::string_view::npos;
}

void AppendQuery(std::string_view query, char& separator, std::string& out) {
  if (!query.empty()) {
    out += separator;
    out += query;
    separator = '&';
  }
}

bool Lists(std::span<const std::string_view> options, std::string_view name) {
  return std::any_of(options.begin(), options.end(),
                     [name](std::string_view option) { return EqualNames(option, name); });
}

void AppendLine(const HeaderField& field, std::string& out) {
  out += field.name;
  out += ": ";
  out += field.value;
  out += "\r\n";
}

}  // namespace

absl::StatusOr<NamePatterns> NamePatterns::Compile(const std::vector<std::string>& patterns) {
  NamePatterns compiled;
  for (const std::string& pattern : patterns) {
    if (pattern.empty() || pattern.size() > kMaxPattern) {
      return absl::InvalidArgumentError("header pattern: must have 1 to 128 characters");
    }
    std::string normal;
    for (char c : pattern) {
      normal += c == '?' ? '?' : NormalNameByte(c);
    }
    if (normal.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError("header pattern: only characters of a header name, '*' and '?'");
    }
    const size_t wildcard = normal.find_first_of("*?");
    if (wildcard == std::string::npos) {
      compiled.exact_.push_back(normal);
    } else if (wildcard == normal.size() - 1 && normal.back() == '*') {
      compiled.prefixes_.push_back(normal.substr(0, wildcard));
    } else {
      compiled.globs_.push_back(normal);
    }
  }
  return compiled;
}

bool NamePatterns::Matches(std::string_view name) const {
  return std::any_of(exact_.begin(), exact_.end(), [name](const auto& exact) { return EqualsNormal(name, exact); }) ||
         std::any_of(prefixes_.begin(), prefixes_.end(),
                     [name](const auto& prefix) { return StartsWithNormal(name, prefix); }) ||
         std::any_of(globs_.begin(), globs_.end(), [name](const auto& glob) { return GlobMatches(glob, name); });
}

std::string_view DropReasonName(DropReason reason) {
  static constexpr std::string_view kNames[] = {
      "kept", "hop_by_hop", "named_in_connection", "always_dropped", "identity", "restricted", "injected", "framing"};
  return kNames[static_cast<size_t>(reason)];
}

absl::StatusOr<RequestRules> RequestRules::Compile(const std::vector<std::string>& restricted,
                                                   const std::vector<std::string>& injected) {
  RequestRules rules;
  auto compiled = NamePatterns::Compile(restricted);
  if (!compiled.ok()) {
    return compiled.status();
  }
  rules.restricted_ = *std::move(compiled);
  for (const std::string& name : injected) {
    if (!IsToken(name) || name.find('*') != std::string::npos) {
      return absl::InvalidArgumentError("injected header: not a header name");
    }
  }
  compiled = NamePatterns::Compile(injected);
  if (!compiled.ok()) {
    return compiled.status();
  }
  rules.injected_ = *std::move(compiled);
  return rules;
}

DropReason RequestRules::Decide(const RequestHead& head, const HeaderField& field) const {
  if (field.id == HeaderId::kHost || field.id == HeaderId::kContentLength || field.id == HeaderId::kExpect) {
    return DropReason::kFraming;
  }
  if (IsHopByHop(field.id)) {
    return DropReason::kHopByHop;
  }
  if (Lists(head.connection_options(), field.name)) {
    return DropReason::kConnectionListed;
  }
  if (IsAlwaysDropped(field.id)) {
    return DropReason::kAlways;
  }
  if (field.id == HeaderId::kIdentity && !forward_identity_) {
    return DropReason::kIdentity;
  }
  if (restricted_.Matches(field.name)) {
    return DropReason::kRestricted;
  }
  return injected_.Matches(field.name) ? DropReason::kInjected : DropReason::kKept;
}

void RequestRules::AppendFields(const RequestHead& head, HeaderId skip, std::string& out, HeaderId skip_too) const {
  for (const HeaderField& field : head.fields()) {
    if ((field.id == HeaderId::kOther || (field.id != skip && field.id != skip_too)) &&
        Decide(head, field) == DropReason::kKept) {
      AppendLine(field, out);
    }
  }
}

void AppendRequestLine(std::string_view method, const UpstreamTarget& target, std::string_view query,
                       std::string_view api_key_name, std::string_view api_key_value, std::string& out) {
  out += method;
  out += ' ';
  out += target.path;
  char separator = '?';
  if (api_key_name.empty()) {
    AppendQuery(target.query, separator, out);
    AppendQuery(query, separator, out);
  } else {
    AppendQueryWithout(target.query, api_key_name, separator, out);
    AppendQueryWithout(query, api_key_name, separator, out);
    out += separator;
    AppendPercentEncoded(api_key_name, out);
    out += '=';
    AppendPercentEncoded(api_key_value, out);
  }
  out += " HTTP/1.1\r\nHost: ";
  out += target.host_header;
  out += "\r\n";
}

bool AppendField(std::string_view name, std::string_view prefix, std::string_view value, std::string& out) {
  if (!IsToken(name) || !IsFieldValue(prefix) || !IsFieldValue(value)) {
    return false;
  }
  out += name;
  out += ": ";
  out += prefix;
  out += value;
  out += "\r\n";
  return true;
}

void FinishRequestHead(std::string_view method, size_t body_length, std::string& out) {
  if (body_length > 0 || method == "POST" || method == "PUT" || method == "PATCH") {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof(digits), body_length).ptr;
    out += "Content-Length: ";
    out.append(digits, end);
    out += "\r\n";
  }
  out += "\r\n";
}

std::string CorsAllowHeaders(std::string_view requested) {
  std::string allowed(kCorsAllowHeaders);
  for (size_t count = 0; !requested.empty() && count < RequestHead::kMaxFields; ++count) {
    const std::string_view name = NextListElement(requested);
    if (IsToken(name) && name.size() > 10 && EqualNames(name.substr(0, 10), "mcp-param-")) {
      allowed += ", ";
      allowed += name;
    }
  }
  return allowed;
}

}  // namespace sallyport::edge
