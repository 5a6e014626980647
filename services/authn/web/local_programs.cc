// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/local_programs.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"

#include "common/http/networks.h"
#include "services/authn/web/urls.h"

namespace sallyport::authn::web {
namespace {

// Hosts whose page /redirect hands the code to an editor on the computer. The whole host counts: a path has many
// spellings.
bool IsRelay(absl::string_view host) { return host == "vscode.dev" || host == "insiders.vscode.dev"; }

// Browsers read a host whose last label is a number as an IPv4 address in any of its old forms ("127.1", "0x7f000001").
bool LooksLikeIpv4(absl::string_view host) {
  const size_t dot = host.rfind('.');
  absl::string_view last = dot == absl::string_view::npos ? host : host.substr(dot + 1);
  if (absl::ConsumePrefix(&last, "0x")) {
    return std::all_of(last.begin(), last.end(),
                       [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); });
  }
  return !last.empty() && std::all_of(last.begin(), last.end(),
                                      [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
}

bool IsThisComputer(absl::string_view host) {
  if (host == "localhost" || absl::EndsWith(host, ".localhost")) {
    return true;
  }
  const bool bracketed = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  if (!bracketed && !LooksLikeIpv4(host)) {
    return false;
  }
  const absl::StatusOr<IpAddress> address = IpAddress::Parse(host);
  // A connection to the unspecified address reaches this computer, too.
  return !address.ok() || address->is_loopback() || *address == *IpAddress::Parse("0.0.0.0") ||
         *address == *IpAddress::Parse("::");
}

}  // namespace

bool LeadsToLocalProgram(absl::string_view redirect_uri) {
  const std::optional<Uri> uri = ParseUri(redirect_uri);
  if (!uri.has_value() || (uri->scheme != "https" && uri->scheme != "http")) {
    return true;
  }
  absl::string_view host = uri->host;
  absl::ConsumeSuffix(&host, ".");
  return host.empty() || IsRelay(host) || IsThisComputer(host);
}

}  // namespace sallyport::authn::web
