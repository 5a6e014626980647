// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/urls.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "common/status_macros.h"
#include "common/text/utf8.h"

namespace sallyport::authn::web {
namespace {

constexpr size_t kMaxParameters = 64;
constexpr size_t kMaxRedirectUri = 2048;
constexpr size_t kMaxReturnTo = 2048;

int HexValue(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  if (c >= 'a' && c <= 'f') {
    return c - 'a' + 10;
  }
  if (c >= 'A' && c <= 'F') {
    return c - 'A' + 10;
  }
  return -1;
}

bool IsUnreserved(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' || c == '~';
}

// RFC 3986: what may stand in a URI at all, and every '%' is an escape.
bool IsUriText(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c <= 0x20 || c >= 0x7f || absl::string_view("\"<>\\^`{|}").find(c) != absl::string_view::npos) {
      return false;
    }
    if (c == '%' && (i + 2 >= text.size() || HexValue(text[i + 1]) < 0 || HexValue(text[i + 2]) < 0)) {
      return false;
    }
  }
  return true;
}

bool IsScheme(absl::string_view scheme) {
  if (scheme.empty() || !absl::ascii_islower(static_cast<unsigned char>(scheme[0]))) {
    return false;
  }
  return std::all_of(scheme.begin(), scheme.end(), [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
           c == '+' || c == '-' || c == '.';
  });
}

// Schemes a browser or an operating system gives a meaning of its own.
bool IsDangerousScheme(absl::string_view scheme) {
  static const auto& schemes = *new std::set<std::string, std::less<>>{
      "about",       "android-app", "blob",       "chrome",   "chrome-extension",
      "cid",         "content",     "data",       "devtools", "edge",
      "feed",        "file",        "filesystem", "ftp",      "ftps",
      "http",        "https",       "intent",     "jar",      "javascript",
      "ldap",        "ldaps",       "livescript", "mailto",   "mhtml",
      "mocha",       "ms-appx",     "ms-its",     "mid",      "moz-extension",
      "ms-msdt",     "nntp",        "news",       "query",    "res",
      "resource",    "search-ms",   "shell",      "sms",      "smb",
      "ssh",         "tel",         "telnet",     "urn",      "vbscript",
      "view-source", "wais",        "ws",         "wss",      "wyciwyg",
      "x-javascript"};
  return schemes.contains(std::string(scheme));
}

bool IsPort(absl::string_view port) {
  return !port.empty() && port.size() <= 5 && std::all_of(port.begin(), port.end(), [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
}

bool IsHost(absl::string_view host) {
  if (host.empty() || host.size() > 253) {
    return false;
  }
  if (host.front() == '[') {
    return host.size() > 2 && host.back() == ']' &&
           host.substr(1, host.size() - 2).find_first_not_of("0123456789abcdef:.") == absl::string_view::npos;
  }
  return std::all_of(host.begin(), host.end(), [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
           c == '-' || c == '.' || c == '_';
  });
}

// Splits "user@host:port" into `uri`. False if it is malformed.
bool SplitAuthority(absl::string_view authority, Uri& uri) {
  if (const size_t at = authority.rfind('@'); at != absl::string_view::npos) {
    uri.has_userinfo = true;
    uri.userinfo = std::string(authority.substr(0, at));
    authority.remove_prefix(at + 1);
  }
  const size_t after_host = authority.empty() || authority.front() != '[' ? 0 : authority.find(']');
  if (after_host == absl::string_view::npos) {
    return false;
  }
  if (const size_t colon = authority.find(':', after_host); colon != absl::string_view::npos) {
    uri.port = std::string(authority.substr(colon + 1));
    if (!uri.port.empty() && !IsPort(uri.port)) {
      return false;
    }
    authority = authority.substr(0, colon);
  }
  uri.host = std::string(authority);
  return true;
}

}  // namespace

absl::StatusOr<Form> Form::Parse(absl::string_view encoded) {
  Form form;
  ASSIGN_OR_RETURN(form.fields_, FormDecode(encoded, kMaxParameters));
  for (const auto& [name, value] : form.fields_) {
    if (!IsValidUtf8(name) || !IsValidUtf8(value)) {
      return absl::InvalidArgumentError("malformed parameter");
    }
  }
  return form;
}

const std::string& Form::Get(absl::string_view name) const {
  static const auto& empty = *new std::string();
  for (const auto& [key, value] : fields_) {
    if (key == name) {
      return value;
    }
  }
  return empty;
}

bool Form::Has(absl::string_view name) const { return Count(name) > 0; }

int Form::Count(absl::string_view name) const {
  return static_cast<int>(
      std::count_if(fields_.begin(), fields_.end(), [&](const auto& field) { return field.first == name; }));
}

std::string Form::Duplicate(absl::string_view except) const {
  for (const auto& [key, value] : fields_) {
    if (key != except && Count(key) > 1) {
      return key;
    }
  }
  return "";
}

std::string EncodeQuery(const FormFields& parameters) {
  FormFields present;
  std::copy_if(parameters.begin(), parameters.end(), std::back_inserter(present),
               [](const auto& field) { return !field.second.empty(); });
  return FormEncode(present);
}

std::string WithParameters(absl::string_view uri, const FormFields& parameters) {
  const std::string query = EncodeQuery(parameters);
  if (query.empty()) {
    return std::string(uri);
  }
  const bool has_query = uri.find('?') != absl::string_view::npos;
  const bool open = has_query && (uri.back() == '?' || uri.back() == '&');
  return absl::StrCat(uri, !has_query ? "?" : open ? "" : "&", query);
}

std::optional<Uri> ParseUri(absl::string_view text) {
  if (!IsUriText(text)) {
    return std::nullopt;
  }
  const size_t colon = text.find(':');
  if (colon == absl::string_view::npos || !IsScheme(text.substr(0, colon))) {
    return std::nullopt;
  }
  Uri uri;
  uri.scheme = std::string(text.substr(0, colon));
  text.remove_prefix(colon + 1);
  if (const size_t hash = text.find('#'); hash != absl::string_view::npos) {
    uri.has_fragment = true;
    text = text.substr(0, hash);
  }
  if (const size_t mark = text.find('?'); mark != absl::string_view::npos) {
    uri.has_query = true;
    uri.query = std::string(text.substr(mark + 1));
    text = text.substr(0, mark);
  }
  if (absl::ConsumePrefix(&text, "//")) {
    uri.has_authority = true;
    const size_t slash = text.find('/');
    if (!SplitAuthority(text.substr(0, slash), uri)) {
      return std::nullopt;
    }
    text = slash == absl::string_view::npos ? absl::string_view() : text.substr(slash);
  }
  uri.path = std::string(text);
  return uri;
}

bool IsLoopbackHost(absl::string_view host) { return host == "localhost" || host == "127.0.0.1" || host == "[::1]"; }

absl::Status ValidateRedirectUri(absl::string_view text) {
  if (text.size() > kMaxRedirectUri) {
    return absl::InvalidArgumentError("redirect_uri is longer than 2048 bytes");
  }
  const std::optional<Uri> uri = ParseUri(text);
  if (!uri.has_value()) {
    return absl::InvalidArgumentError("redirect_uri is not an absolute URI");
  }
  if (uri->has_fragment || uri->has_userinfo) {
    return absl::InvalidArgumentError("redirect_uri must not have a fragment or user information");
  }
  if (uri->host.find('*') != std::string::npos) {
    return absl::InvalidArgumentError("redirect_uri must not have a wildcard");
  }
  if (uri->scheme == "https" || uri->scheme == "http") {
    if (!uri->has_authority || !IsHost(uri->host)) {
      return absl::InvalidArgumentError("redirect_uri must have a host in lower case");
    }
    if (uri->scheme == "http" && !IsLoopbackHost(uri->host)) {
      return absl::InvalidArgumentError("redirect_uri must be https, or http to localhost, 127.0.0.1 or [::1]");
    }
    return absl::OkStatus();
  }
  if (IsDangerousScheme(uri->scheme)) {
    return absl::InvalidArgumentError("redirect_uri has a scheme that is not allowed");
  }
  // RFC 8252 section 7.1 wants a reversed domain name; editors in wide use have "name://host/path".
  if (uri->scheme.find('.') == std::string::npos && !(uri->has_authority && !uri->host.empty())) {
    return absl::InvalidArgumentError(
        "redirect_uri with a private-use scheme must be like com.example:/path or name://host/path");
  }
  return absl::OkStatus();
}

bool RedirectUriMatches(absl::string_view registered, absl::string_view requested) {
  if (registered == requested) {
    return true;
  }
  const std::optional<Uri> a = ParseUri(registered);
  const std::optional<Uri> b = ParseUri(requested);
  if (!a.has_value() || !b.has_value() || a->scheme != "http" || b->scheme != "http") {
    return false;
  }
  return IsLoopbackHost(a->host) && a->host == b->host && !b->has_userinfo && !b->has_fragment && a->path == b->path &&
         a->has_query == b->has_query && a->query == b->query;
}

std::string RedirectHost(absl::string_view text) {
  const std::optional<Uri> uri = ParseUri(text);
  if (!uri.has_value()) {
    return "";
  }
  return uri->scheme == "https" || uri->scheme == "http" ? uri->host : absl::StrCat(uri->scheme, ":");
}

bool IsLoopbackRedirect(absl::string_view text) {
  const std::optional<Uri> uri = ParseUri(text);
  return uri.has_value() && uri->scheme == "http" && IsLoopbackHost(uri->host);
}

std::string SafeReturnTo(absl::string_view return_to) {
  constexpr char kHome[] = "/";
  if (return_to.empty() || return_to.size() > kMaxReturnTo || return_to[0] != '/' || !IsUriText(return_to) ||
      return_to.find('#') != absl::string_view::npos) {
    return kHome;
  }
  const absl::string_view path = return_to.substr(0, return_to.find('?'));
  // A path of ours has neither empty nor dot segments, and no escapes: so there is nothing to be read in two ways.
  if (path.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/") !=
          absl::string_view::npos ||
      path.find("//") != absl::string_view::npos) {
    return kHome;
  }
  for (const absl::string_view segment : absl::StrSplit(path.substr(1), '/')) {
    if (segment == "." || segment == "..") {
      return kHome;
    }
  }
  return std::string(return_to);
}

bool IsCodeVerifier(absl::string_view verifier) {
  return verifier.size() >= 43 && verifier.size() <= 128 && std::all_of(verifier.begin(), verifier.end(), IsUnreserved);
}

bool IsS256Challenge(absl::string_view challenge) {
  return challenge.size() == 43 && std::all_of(challenge.begin(), challenge.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
         });
}

}  // namespace sallyport::authn::web
