// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/platform_config.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/http/networks.h"
#include "common/http/url.h"
#include "common/text/utf8.h"
#include "services/authn/group_names.h"
#include "services/authn/platforms/platform_policy.h"
#include "services/authn/platforms/service_account.h"

namespace sallyport::authn::platforms {
namespace {

using config::v1::Platform;
using config::v1::PlatformGrant;

constexpr size_t kMaxDisplayName = 80;
constexpr size_t kMaxUri = 2048;
constexpr size_t kMaxDnsName = 253;
constexpr size_t kMaxAudience = 512;
constexpr size_t kMaxSubject = 512;
constexpr double kMaxRate = 1e6;
constexpr absl::string_view kSpiffe = "spiffe://";

bool IsGraph(char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); }
bool IsLowerAlnum(char c) {
  return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c));
}

// SPIFFE-ID section 2: a trust domain in lower case and a path, without port, query or fragment.
bool IsSpiffeId(absl::string_view uri) {
  const std::vector<absl::string_view> parts = absl::StrSplit(uri.substr(kSpiffe.size()), '/');
  const auto is_domain = [](char c) { return IsLowerAlnum(c) || c == '.' || c == '-' || c == '_'; };
  const auto is_path = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_';
  };
  return parts.size() > 1 && !parts[0].empty() && std::all_of(parts[0].begin(), parts[0].end(), is_domain) &&
         std::all_of(parts.begin() + 1, parts.end(), [&](absl::string_view part) {
           return !part.empty() && part != "." && part != ".." && std::all_of(part.begin(), part.end(), is_path);
         });
}

// RFC 3986: a scheme, and behind it only characters that a URI may hold, or an escape begins with.
bool IsUri(absl::string_view uri) {
  const size_t colon = uri.find(':');
  if (colon == absl::string_view::npos || colon == 0 || colon + 1 == uri.size() ||
      !absl::ascii_isalpha(static_cast<unsigned char>(uri[0]))) {
    return false;
  }
  const absl::string_view scheme = uri.substr(0, colon);
  return std::all_of(scheme.begin(), scheme.end(),
                     [](char c) {
                       return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '+' || c == '-' || c == '.';
                     }) &&
         std::all_of(uri.begin(), uri.end(),
                     [](char c) { return IsGraph(c) && !absl::StrContains("\"<>\\^`{|}*", c); });
}

bool IsDnsName(absl::string_view name) {
  const std::vector<absl::string_view> labels = absl::StrSplit(name, '.');
  return name.size() <= kMaxDnsName && std::all_of(labels.begin(), labels.end(), [](absl::string_view label) {
           return IsName(label) && label.front() != '-' && label.back() != '-';
         });
}

bool IsReturnOrigin(const std::string& text) {
  const absl::StatusOr<Url> url = Url::Parse(text);
  if (!url.ok() || url->origin() != text) {
    return false;
  }
  const absl::StatusOr<IpAddress> address = IpAddress::Parse(url->host());
  return url->is_https() || url->host() == "localhost" || (address.ok() && address->is_loopback());
}

// Checks the platforms in turn: what one is, no other may be.
class Checker {
 public:
  explicit Checker(const config::v1::AuthnConfig& config)
      : config_(config), groups_(config.connectors()), only_cluster_(OnlyCluster(config)) {
    for (const auto& connector : config.connectors()) {
      connectors_.insert(connector.id());
    }
    for (const auto& cluster : config.kubernetes()) {
      clusters_.insert(cluster.id());
    }
  }

  absl::Status Run() {
    for (int i = 0; i < config_.platforms_size(); ++i) {
      const std::string field = absl::StrCat("platforms[", i, "]");
      const Platform& platform = config_.platforms(i);
      CheckNames(field, platform);
      CheckIdentities(field, platform);
      CheckLimits(field, platform);
      CheckLists(field, platform);
      for (int j = 0; j < platform.grants_size(); ++j) {
        CheckGrant(absl::StrCat(field, ".grants[", j, "]"), platform.grants(j));
      }
    }
    return MergeViolations(found_);
  }

 private:
  void Refuse(const std::string& field, absl::string_view message) { found_.push_back(InvalidField(field, message)); }

  void CheckNames(const std::string& field, const Platform& platform) {
    if (!IsName(platform.id()) || platform.id() == kUnknownPlatform) {
      Refuse(field + ".id", "must be 1 to 63 of a-z, 0-9 and '-', not 'unknown'");
    } else if (!ids_.insert(platform.id()).second) {
      Refuse(field + ".id", "occurs twice");
    }
    const std::string& name = platform.display_name();
    if (name.size() > kMaxDisplayName || !IsValidUtf8(name) || std::any_of(name.begin(), name.end(), [](char c) {
          return absl::ascii_iscntrl(static_cast<unsigned char>(c));
        })) {
      Refuse(field + ".displayName", "must be at most 80 bytes without control characters");
    }
  }

  // `key`: the identity with its kind.
  void Claim(const std::string& field, const std::string& key) {
    const auto [other, is_new] = identities_.try_emplace(key, field);
    if (!is_new) {
      Refuse(field, absl::StrCat("is that of ", other->second, ", too: give each platform one of its own"));
    }
  }

  void CheckIdentities(const std::string& field, const Platform& platform) {
    if (platform.certificate_uris().empty() && platform.certificate_dns_names().empty() &&
        platform.service_accounts().empty()) {
      Refuse(field, "needs certificateUris, certificateDnsNames or serviceAccounts: how it proves who it is");
    }
    for (int i = 0; i < platform.certificate_uris_size(); ++i) {
      const std::string at = absl::StrCat(field, ".certificateUris[", i, "]");
      const std::string& uri = platform.certificate_uris(i);
      if (uri.size() > kMaxUri || !(absl::StartsWith(uri, kSpiffe) ? IsSpiffeId(uri) : IsUri(uri))) {
        Refuse(at, "must be a whole URI, such as spiffe://example.org/ns/chat/sa/bot; there are no patterns");
      } else {
        Claim(at, absl::StrCat("uri:", uri));
      }
    }
    for (int i = 0; i < platform.certificate_dns_names_size(); ++i) {
      const std::string at = absl::StrCat(field, ".certificateDnsNames[", i, "]");
      const std::string& name = platform.certificate_dns_names(i);
      if (!IsDnsName(name)) {
        Refuse(at, "must be a whole DNS name in lower case, such as chat.example.com; there are no patterns");
      } else {
        Claim(at, absl::StrCat("dns:", name));
      }
    }
    for (int i = 0; i < platform.service_accounts_size(); ++i) {
      CheckServiceAccount(absl::StrCat(field, ".serviceAccounts[", i, "]"), platform.service_accounts(i));
    }
  }

  void CheckServiceAccount(const std::string& field, const std::string& text) {
    if (clusters_.empty()) {
      return Refuse(field, "needs a cluster: describe it under kubernetes");
    }
    const std::optional<ServiceAccount> account = ParseServiceAccount(text, only_cluster_);
    if (!account.has_value()) {
      return Refuse(field, only_cluster_.empty() && text.find(':') == std::string::npos
                               ? "must be <cluster>:<namespace>/<service account>: there are several clusters"
                               : "must be <cluster>:<namespace>/<service account>, such as main:chat/bot");
    }
    if (!clusters_.contains(account->cluster)) {
      return Refuse(field, absl::StrCat("there is no cluster \"", account->cluster, "\" under kubernetes"));
    }
    Claim(field, absl::StrCat("account:", account->ToString()));
  }

  void CheckLimits(const std::string& field, const Platform& platform) {
    if (!std::isfinite(platform.rate_limit()) || platform.rate_limit() < 0 || platform.rate_limit() > kMaxRate) {
      Refuse(field + ".rateLimit", "must be 0 (no limit) to 1000000 requests a second");
    }
    if (platform.rate_burst() < 0) {
      Refuse(field + ".rateBurst", "must not be negative");
    } else if (platform.rate_burst() > 0 && platform.rate_limit() == 0) {
      Refuse(field + ".rateBurst", "needs rateLimit");
    }
  }

  void CheckLists(const std::string& field, const Platform& platform) {
    for (int i = 0; i < platform.return_origins_size(); ++i) {
      if (!IsReturnOrigin(platform.return_origins(i))) {
        Refuse(absl::StrCat(field, ".returnOrigins[", i, "]"),
               "must be an origin such as https://chat.example.com; plain http is for loopback only");
      }
    }
    for (int i = 0; i < platform.subject_token_audiences_size(); ++i) {
      const std::string& audience = platform.subject_token_audiences(i);
      if (audience.empty() || audience.size() > kMaxAudience ||
          !std::all_of(audience.begin(), audience.end(), IsGraph)) {
        Refuse(absl::StrCat(field, ".subjectTokenAudiences[", i, "]"),
               "must be an `aud` of tokens issued for the platform, without spaces");
      }
    }
  }

  void CheckGrant(const std::string& field, const PlatformGrant& grant) {
    if (grant.apps().empty()) {
      Refuse(field + ".apps", "is required: slugs of apps, or \"*\" for every app");
    }
    for (int i = 0; i < grant.apps_size(); ++i) {
      if (!IsName(grant.apps(i)) && grant.apps(i) != kEveryApp) {
        Refuse(absl::StrCat(field, ".apps[", i, "]"), "must be the slug of an app, or \"*\" for every app");
      }
    }
    for (int i = 0; i < grant.users_size(); ++i) {
      CheckUser(absl::StrCat(field, ".users[", i, "]"), grant.users(i));
    }
    for (int i = 0; i < grant.groups_size(); ++i) {
      found_.push_back(groups_.Check(absl::StrCat(field, ".groups[", i, "]"), grant.groups(i)));
    }
    if (grant.without_user() && grant.users().empty() && !grant.groups().empty()) {
      Refuse(field + ".withoutUser",
             "needs users: nobody says in which groups a user is who is not there; list the users, or give the groups "
             "a grant without withoutUser");
    }
  }

  void CheckUser(const std::string& field, const std::string& user) {
    const size_t colon = user.find(':');
    const std::string value = colon == std::string::npos ? "" : user.substr(colon + 1);
    if (value.empty() || user.size() > kMaxSubject || std::any_of(value.begin(), value.end(), [](char c) {
          return absl::ascii_iscntrl(static_cast<unsigned char>(c));
        })) {
      return Refuse(field,
                    "must be a subject of at most 512 bytes: <connector>:<value>, as `sallyport audit` shows it");
    }
    if (const std::string connector = user.substr(0, colon); !connectors_.contains(connector)) {
      Refuse(field, absl::StrCat("there is no connector \"", connector, "\""));
    }
  }

  const config::v1::AuthnConfig& config_;
  const GroupNames groups_;
  const std::string only_cluster_;
  std::set<std::string> connectors_;
  std::set<std::string> clusters_;
  std::set<std::string> ids_;
  std::map<std::string, std::string> identities_;  // To the field that has it.
  std::vector<absl::Status> found_;
};

}  // namespace

absl::Status ValidatePlatforms(const config::v1::AuthnConfig& config) { return Checker(config).Run(); }

}  // namespace sallyport::authn::platforms
