// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/upstream_target.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/text/string_view.h"
#include "services/edge/http/field_parser.h"
#include "services/edge/http/request_target.h"

namespace sallyport::edge {
namespace {

absl::Status Invalid(absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat("url: ", what)); }

absl::Status SplitAuthority(std::string_view authority, UpstreamTarget& target) {
  if (!IsAuthority(authority)) {
    return Invalid("host must be a name or an address, with at most a port");
  }
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  const std::string_view host = authority.substr(0, colon);
  target.host = absl::AsciiStrToLower(ToAbsl(bracket == std::string_view::npos ? host : host.substr(1, bracket - 1)));
  const uint16_t default_port = target.tls ? 443 : 80;
  target.port = default_port;
  if (colon != std::string_view::npos) {
    const auto port = ParseContentLength(authority.substr(colon + 1));
    if (!port.has_value() || *port == 0 || *port > 65535) {
      return Invalid("port must be 1 to 65535");
    }
    target.port = static_cast<uint16_t>(*port);
  }
  target.host_header = absl::AsciiStrToLower(ToAbsl(host));
  if (target.port != default_port) {
    absl::StrAppend(&target.host_header, ":", target.port);
  }
  target.origin = absl::StrCat(target.tls ? "https://" : "http://", target.host_header);
  target.pool_key = target.origin;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<UpstreamTarget> ParseUpstreamUrl(std::string_view url) {
  UpstreamTarget target;
  if (EqualIgnoreCase(url.substr(0, 8), "https://")) {
    target.tls = true;
    url.remove_prefix(8);
  } else if (EqualIgnoreCase(url.substr(0, 7), "http://")) {
    url.remove_prefix(7);
  } else {
    return Invalid("scheme must be https or http");
  }
  if (!std::all_of(url.begin(), url.end(), [](char c) { return c > 0x20 && c < 0x7f; })) {
    return Invalid("must be visible ascii; percent-encode other bytes");
  }
  if (url.find('#') != std::string_view::npos || url.find('\\') != std::string_view::npos) {
    return Invalid("must have no fragment and no backslash");
  }
  const size_t end = std::min(url.find_first_of("/?"), url.size());
  if (absl::Status status = SplitAuthority(url.substr(0, end), target); !status.ok()) {
    return status;
  }
  url.remove_prefix(end);
  const size_t question = url.find('?');
  const std::string_view path = url.substr(0, question);
  target.path = std::string(path.empty() ? "/" : path);
  if (question != std::string_view::npos) {
    target.query = std::string(url.substr(question + 1));
  }
  return target;
}

}  // namespace sallyport::edge
