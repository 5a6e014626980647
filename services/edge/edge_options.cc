// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_options.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "common/text/string_view.h"
#include "services/edge/http/field_parser.h"

namespace sallyport::edge {
namespace {

bool IsPort(std::string_view text) {
  return !text.empty() && text.size() <= 5 && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

// One element of X-Forwarded-For as proxies write it: "192.0.2.1", "192.0.2.1:4711", "2001:db8::1", "[2001:db8::1]",
// "[2001:db8::1]:4711".
std::optional<NetworkAddress> ParseHop(std::string_view text) {
  text = TrimWhitespace(text);
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view port = text.substr(end + 1);
    if (!port.empty() && (port[0] != ':' || !IsPort(port.substr(1)))) return std::nullopt;
    const std::string_view literal = text.substr(1, end - 1);
    return literal.find(':') == std::string_view::npos ? std::nullopt : NetworkAddress::Parse(literal);
  }
  // One colon parts a port; more of them are IPv6.
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos && colon == text.rfind(':')) {
    return IsPort(text.substr(colon + 1)) ? NetworkAddress::Parse(text.substr(0, colon)) : std::nullopt;
  }
  return NetworkAddress::Parse(text);
}

// Longer ones, and bytes that no origin has, are not repeated.
constexpr size_t kMaxShownOrigin = 200;

std::string Shown(std::string_view origin) {
  if (origin.empty()) return "an empty Origin";
  const bool showable = origin.size() <= kMaxShownOrigin && std::all_of(origin.begin(), origin.end(), [](char c) {
                          return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                                 std::string_view("-._~:/[]%+").find(c) != std::string_view::npos;
                        });
  return showable ? absl::StrCat("the origin ", ToAbsl(origin)) : "a malformed Origin";
}

}  // namespace

absl::flat_hash_set<std::string> HostedClientOrigins(
    const google::protobuf::RepeatedPtrField<std::string>& configured) {
  if (configured.size() == 1 && configured[0] == "none") return {};
  if (!configured.empty()) return {configured.begin(), configured.end()};
  return {"https://claude.ai",  "https://claude.com",          "https://chatgpt.com",
          "https://vscode.dev", "https://insiders.vscode.dev", "https://www.cursor.com"};
}

std::string ForeignOriginMessage(std::string_view origin, OriginRule rule) {
  const char* remedy = rule == OriginRule::kBearer
                           ? "add it to deployment.allowedOrigins, or to deployment.hostedClientOrigins if it is a "
                             "hosted MCP client"
                           : "add it to deployment.allowedOrigins to allow it";
  return absl::StrCat("pages of ", Shown(origin), " may not call this address; ", remedy);
}

bool HostAllowed(const SiteOptions& site, const RequestHead& head) {
  if (head.host == site.public_host) return true;
  return site.hosts.contains(absl::AsciiStrToLower(ToAbsl(head.host)));
}

bool OriginAllowed(const SiteOptions& site, std::string_view origin, OriginRule rule) {
  if (rule == OriginRule::kAny || origin == site.public_url) return true;
  if (site.allowed_origins.contains(ToAbsl(origin))) return true;
  if (rule == OriginRule::kBearer && site.hosted_client_origins.contains(ToAbsl(origin))) return true;
  if (!site.public_is_loopback) return false;
  const auto url = Url::Parse(ToAbsl(origin));
  if (!url.ok() || url->origin() != ToAbsl(origin)) return false;
  if (url->host() == "localhost") return true;
  const auto address = IpAddress::Parse(url->host());
  return address.ok() && address->is_loopback();
}

IpAddress ToIpAddress(const NetworkAddress& address) {
  const auto* bytes = reinterpret_cast<const char*>(address.bytes.data());
  return *IpAddress::FromBytes(absl::string_view(bytes, 16));
}

bool BodyAllowed(const RequestHead& head) { return head.framing == BodyFraming::kNone || head.method == "POST"; }

std::optional<NetworkAddress> ClientAddress(const SiteOptions& site, const NetworkAddress& peer,
                                            const RequestHead& head) {
  if (site.trusted_proxies.empty() || !ContainsAddress(site.trusted_proxies, ToIpAddress(peer))) return peer;
  NetworkAddress client = peer;
  // Several fields count as one list, in order; read from its end.
  const auto fields = head.fields();
  for (auto field = fields.rbegin(); field != fields.rend(); ++field) {
    if (field->id != HeaderId::kXForwardedFor) continue;
    for (std::string_view list = field->value;;) {
      const size_t comma = list.rfind(',');
      const auto hop = ParseHop(list.substr(comma == std::string_view::npos ? 0 : comma + 1));
      if (!hop) return std::nullopt;
      client = *hop;
      if (!ContainsAddress(site.trusted_proxies, ToIpAddress(client))) return client;
      if (comma == std::string_view::npos) break;
      list = list.substr(0, comma);
    }
  }
  return client;
}

std::string ClientAddressText(const SiteOptions& site, const NetworkAddress& peer, const RequestHead& head) {
  const std::optional<NetworkAddress> address = ClientAddress(site, peer, head);
  return address ? address->ToString() : "unknown";
}

}  // namespace sallyport::edge
