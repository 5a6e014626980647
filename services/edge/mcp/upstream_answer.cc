// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/upstream_answer.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "common/text/string_view.h"
#include "services/edge/http/field_parser.h"

namespace sallyport::edge {
namespace {

constexpr size_t kLongestType = 64;
constexpr size_t kLongestAddress = 200;
constexpr char kRemedy[] = "set upstreamUrl to the address of the MCP endpoint itself";
constexpr char kSecretRemedy[] = "set secretUpstreamUrl to the address of the MCP endpoint itself";

// RFC 6838 section 4.2.
bool IsRestrictedName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           std::string_view("!#$&-^_.+").find(c) != std::string_view::npos;
  });
}

// Where a Location leads, as far as it is told.
struct Place {
  bool same_host = false;
  std::string origin;  // Empty: it named none.
  std::string path;
};

std::optional<Place> PlaceOf(std::string_view location, const UpstreamTarget& target) {
  location = location.substr(0, location.find_first_of("?#;"));
  if (location.empty() || location.size() > kLongestAddress) return std::nullopt;
  std::string address(location);
  const bool relative = location.front() == '/' && !location.starts_with("//");
  if (relative) {
    address = absl::StrCat(target.origin, address);
  } else if (location.front() == '/') {
    address = absl::StrCat(target.tls ? "https:" : "http:", address);
  }
  const auto url = Url::Parse(address);
  if (!url.ok()) return std::nullopt;
  return Place{url->host() == target.host, relative ? "" : url->origin(), url->path()};
}

bool DiffersByASlash(std::string_view a, std::string_view b) {
  return (a.size() == b.size() + 1 && a.back() == '/' && a.starts_with(b)) ||
         (b.size() == a.size() + 1 && b.back() == '/' && b.starts_with(a));
}

// Only where the Location is the configured address in another spelling: an address anywhere else, a sign-in page say,
// is none to configure. Never from https to http: servers behind a proxy that ends TLS answer so.
std::string RemedyFor(const Place& place, const UpstreamTarget& target) {
  const bool slash = DiffersByASlash(place.path, target.path);
  if (place.same_host && slash) return absl::StrCat("set upstreamUrl to …", place.path);
  const bool downgrade = target.tls && std::string_view(place.origin).starts_with("http:");
  const bool elsewhere = !place.origin.empty() && place.origin != target.origin;
  if (elsewhere && !downgrade && (slash || place.path == target.path))
    return absl::StrCat("set upstreamUrl to ", place.origin, place.path);
  return kRemedy;
}

}  // namespace

AnswerKind KindOf(const ResponseHead& head) {
  if (head.status == 202) return AnswerKind::kAccepted;
  if (head.status >= 300 && head.status < 400) return AnswerKind::kRedirect;
  const bool known = head.body_type == BodyType::kJson || head.body_type == BodyType::kEventStream;
  return known || head.framing == BodyFraming::kNone ? AnswerKind::kRelayed : AnswerKind::kBodiless;
}

std::string DescribeType(const ResponseHead& head) {
  const auto fields = head.fields();
  const auto is_type = [](const HeaderField& field) { return field.id == HeaderId::kContentType; };
  const auto first = std::find_if(fields.begin(), fields.end(), is_type);
  if (first == fields.end()) return "no Content-Type";
  if (std::count_if(first, fields.end(), is_type) > 1) return "more than one Content-Type";
  const std::string_view type = TrimWhitespace(first->value.substr(0, first->value.find(';')));
  const size_t slash = std::min(type.find('/'), type.size());
  if (type.size() > kLongestType || slash == type.size() || !IsRestrictedName(type.substr(0, slash)) ||
      !IsRestrictedName(type.substr(slash + 1))) {
    return "an unreadable Content-Type";
  }
  const std::string name = absl::AsciiStrToLower(ToAbsl(type));
  // The type itself would do: it is what follows.
  if (name == "application/json" || name == "text/event-stream") return absl::StrCat(name, " that is not UTF-8");
  return name;
}

std::string DescribeRedirect(const ResponseHead& head, const UpstreamTarget& target) {
  const std::string what = absl::StrCat("the upstream redirects (HTTP ", head.status, ")");
  constexpr char kAdvice[] = ", and redirects are not followed: ";
  if (target.secret) return absl::StrCat(what, kAdvice, kSecretRemedy);
  const auto place = PlaceOf(head.ValueOf("Location"), target);
  if (!place) return absl::StrCat(what, kAdvice, kRemedy);
  return absl::StrCat(what, " to ", place->origin, place->path, kAdvice, RemedyFor(*place, target));
}

}  // namespace sallyport::edge
