// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/service_account.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/text/json.h"
#include "services/authn/errors.h"

namespace sallyport::authn::platforms {
namespace {

constexpr size_t kMaxLabel = 63;
constexpr size_t kMaxAccountName = 253;
constexpr char kClaim[] = "kubernetes.io";

bool IsNameCharacter(char c) {
  return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
         c == '-';
}

bool IsLabel(absl::string_view text) { return IsName(text) && text.front() != '-' && text.back() != '-'; }

bool IsAccountName(absl::string_view text) {
  const std::vector<absl::string_view> labels = absl::StrSplit(text, '.');
  return text.size() <= kMaxAccountName &&
         std::all_of(labels.begin(), labels.end(), [](absl::string_view label) { return IsLabel(label); });
}

std::optional<ServiceAccount> Make(absl::string_view cluster, absl::string_view ns, absl::string_view name) {
  if (!IsName(cluster) || !IsLabel(ns) || !IsAccountName(name)) {
    return std::nullopt;
  }
  return ServiceAccount{std::string(cluster), std::string(ns), std::string(name)};
}

// Does the claim that Kubernetes adds name the same account?
bool Agrees(const nlohmann::json& claim, const ServiceAccount& account) {
  const nlohmann::json* named = JsonMember(claim, "serviceaccount");
  return JsonString(claim, "namespace") == account.ns && named != nullptr && JsonString(*named, "name") == account.name;
}

}  // namespace

bool IsName(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxLabel && std::all_of(text.begin(), text.end(), IsNameCharacter);
}

std::string ServiceAccount::ToString() const { return absl::StrCat(cluster, ":", ns, "/", name); }

std::optional<ServiceAccount> ParseServiceAccount(absl::string_view text, absl::string_view only_cluster) {
  const size_t colon = text.find(':');
  const absl::string_view cluster = colon == absl::string_view::npos ? only_cluster : text.substr(0, colon);
  const absl::string_view account = colon == absl::string_view::npos ? text : text.substr(colon + 1);
  const size_t slash = account.find('/');
  return slash == absl::string_view::npos ? std::nullopt
                                          : Make(cluster, account.substr(0, slash), account.substr(slash + 1));
}

std::optional<ServiceAccount> ServiceAccountOfUsername(absl::string_view cluster, absl::string_view username) {
  const std::vector<absl::string_view> parts = absl::StrSplit(username, ':');
  if (parts.size() != 4 || parts[0] != "system" || parts[1] != "serviceaccount") {
    return std::nullopt;
  }
  return Make(cluster, parts[2], parts[3]);
}

absl::StatusOr<ServiceAccount> ServiceAccountOfClaims(absl::string_view cluster, const Jwt& jwt) {
  std::optional<ServiceAccount> account = ServiceAccountOfUsername(cluster, jwt.subject());
  if (!account.has_value()) {
    return InvalidToken("bad_subject");
  }
  const nlohmann::json* claim = JsonMember(jwt.json(), kClaim);
  if (claim != nullptr && !Agrees(*claim, *account)) {
    return InvalidToken("bad_subject");
  }
  return *std::move(account);
}

}  // namespace sallyport::authn::platforms
