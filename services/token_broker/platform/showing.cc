// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/showing.h"

#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/http/networks.h"
#include "common/status_macros.h"

namespace sallyport::token_broker {
namespace {

constexpr size_t kMaxTokenBytes = 16 << 10;
// As the vault takes them.
constexpr size_t kMaxSubjectBytes = 512;

absl::Status Unknown(absl::string_view message) {
  return WithReason(absl::UnauthenticatedError(message), "platform_unknown");
}

// Of metadata "authorization"; empty if there is none.
absl::StatusOr<absl::string_view> BearerOf(const grpc::ServerContextBase& context) {
  const auto [first, last] = context.client_metadata().equal_range("authorization");
  if (first == last) {
    return absl::string_view();
  }
  if (std::next(first) != last) {
    return Unknown("more than one authorization in the metadata");
  }
  constexpr absl::string_view kScheme = "bearer ";
  const absl::string_view value(first->second.data(), first->second.size());
  if (!absl::StartsWithIgnoreCase(value, kScheme)) {
    return Unknown("authorization in the metadata must be \"Bearer\" and a service-account token");
  }
  const absl::string_view token = absl::StripAsciiWhitespace(value.substr(kScheme.size()));
  if (token.empty() || token.size() > kMaxTokenBytes) {
    return Unknown("the service-account token is empty or longer than 16 KiB");
  }
  return token;
}

absl::Status CheckUser(const v1::PlatformUser& user) {
  switch (user.user_case()) {
    case v1::PlatformUser::kSubjectToken:
      return user.subject_token().empty() || user.subject_token().size() > kMaxTokenBytes
                 ? InvalidField("user.subject_token", "must be 1 to 16384 bytes")
                 : absl::OkStatus();
    case v1::PlatformUser::kSubject:
      return user.subject().empty() || user.subject().size() > kMaxSubjectBytes
                 ? InvalidField("user.subject", "must be 1 to 512 bytes, such as corp:00u1")
                 : absl::OkStatus();
    default:
      return InvalidField("user", "is required: subject_token, or subject");
  }
}

// Lengths before the parts: "a" + "bc" must not be "ab" + "c".
void Append(absl::string_view part, std::string& out) { absl::StrAppend(&out, part.size(), ":", part); }

std::string IdentityOf(const Showing& showing) {
  std::string text;
  for (const std::string& uri : showing.names.uris) {
    Append(absl::StrCat("uri ", uri), text);
  }
  for (const std::string& name : showing.names.dns_names) {
    Append(absl::StrCat("dns ", name), text);
  }
  Append(showing.token.empty() ? "" : Sha256(showing.token), text);
  return Sha256(text);
}

std::string KeyOf(const Showing& showing) {
  const v1::PlatformUser& user = *showing.user;
  return Sha256(absl::StrCat(showing.identity, static_cast<int>(user.user_case()), " ",
                             Sha256(user.has_subject_token() ? user.subject_token() : user.subject())));
}

}  // namespace

std::string CountedHost(absl::string_view peer) {
  const absl::string_view host = peer.substr(0, peer.rfind(':'));
  absl::string_view text = host;
  if (!absl::ConsumePrefix(&text, "ipv6:")) {
    return std::string(host);
  }
  const absl::StatusOr<IpAddress> address =
      IpAddress::Parse(absl::StrReplaceAll(text, {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}}));
  return address.ok() ? absl::StrCat("ipv6:", address->Prefix64().ToString()) : std::string(host);
}

absl::StatusOr<Showing> ShowingOf(const grpc::ServerContextBase& context, const v1::PlatformUser& user,
                                  absl::Time now) {
  Showing showing;
  absl::StatusOr<PeerNames> names = PeerNamesOf(context, now);
  if (!names.ok()) {
    return Unknown(names.status().message());
  }
  showing.names = *std::move(names);
  ASSIGN_OR_RETURN(showing.token, BearerOf(context));
  if (showing.names.empty() && showing.token.empty()) {
    return Unknown("a client certificate with a URI or DNS name, or a service-account token, is required");
  }
  RETURN_IF_ERROR(CheckUser(user));
  showing.user = &user;
  showing.address = CountedHost(context.peer());
  showing.identity = IdentityOf(showing);
  showing.key = KeyOf(showing);
  return showing;
}

}  // namespace sallyport::token_broker
