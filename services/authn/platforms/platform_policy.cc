// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/platform_policy.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sallyport::authn::platforms {
namespace {

template <typename Map, typename Key>
const Platform* Look(const Map& map, const Key& key) {
  const auto it = map.find(key);
  return it == map.end() ? nullptr : it->second;
}

}  // namespace

std::string OnlyCluster(const config::v1::AuthnConfig& config) {
  return config.kubernetes_size() == 1 ? config.kubernetes(0).id() : "";
}

Platform::Platform(config::v1::Platform config, const GroupNames& names)
    : config_(std::move(config)),
      audiences_(config_.subject_token_audiences().begin(), config_.subject_token_audiences().end()) {
  for (const config::v1::PlatformGrant& entry : config_.grants()) {
    Grant grant;
    grant.apps = {entry.apps().begin(), entry.apps().end()};
    grant.users = {entry.users().begin(), entry.users().end()};
    for (const std::string& name : entry.groups()) {
      if (std::optional<std::string> group = names.Qualify(name); group.has_value()) {
        grant.groups.insert(*std::move(group));
      }
    }
    // By the configuration, not by what is left of it: a group that means nothing must not become everybody.
    grant.everybody = entry.users().empty() && entry.groups().empty();
    grant.without_user = entry.without_user();
    grants_.push_back(std::move(grant));
  }
}

int Platform::rate_burst() const {
  if (config_.rate_limit() <= 0) {
    return 0;
  }
  return config_.rate_burst() > 0 ? config_.rate_burst()
                                  : std::max(1, static_cast<int>(std::ceil(2 * config_.rate_limit())));
}

template <typename Covers>
Granted Platform::Collect(Covers covers) const {
  Granted granted;
  std::set<std::string> apps;
  for (size_t i = 0; i < grants_.size(); ++i) {
    if (!covers(grants_[i])) {
      continue;
    }
    if (apps.empty()) {
      granted.rule = absl::StrCat("platforms.grants[", i, "]");
    }
    apps.insert(grants_[i].apps.begin(), grants_[i].apps.end());
  }
  if (apps.contains(kEveryApp)) {
    apps = {kEveryApp};
  }
  granted.apps.assign(apps.begin(), apps.end());
  return granted;
}

Granted Platform::ForUser(const Identity& identity) const {
  const std::vector<std::string> groups = QualifiedGroups(identity);
  const auto is_member = [&groups](const Grant& grant) {
    return std::any_of(groups.begin(), groups.end(), [&](const auto& group) { return grant.groups.contains(group); });
  };
  Granted granted = Collect([&](const Grant& grant) {
    return grant.everybody || grant.users.contains(identity.subject) || is_member(grant);
  });
  granted.groups_overage =
      granted.apps.empty() && identity.groups_overage &&
      std::any_of(grants_.begin(), grants_.end(), [](const Grant& grant) { return !grant.groups.empty(); });
  return granted;
}

Granted Platform::ForSubject(absl::string_view subject) const {
  return Collect([&](const Grant& grant) {
    return grant.without_user && (grant.everybody || grant.users.contains(std::string(subject)));
  });
}

PlatformPolicy::PlatformPolicy(const config::v1::AuthnConfig& config) {
  const GroupNames names(config.connectors());
  const std::string only_cluster = OnlyCluster(config);
  platforms_.reserve(static_cast<size_t>(config.platforms_size()));  // Pointers into it are kept.
  for (const config::v1::Platform& entry : config.platforms()) {
    const Platform* platform = &platforms_.emplace_back(entry, names);
    for (const std::string& uri : entry.certificate_uris()) {
      uris_.emplace(uri, platform);
    }
    for (const std::string& name : entry.certificate_dns_names()) {
      dns_names_.emplace(name, platform);
    }
    for (const std::string& text : entry.service_accounts()) {
      if (auto account = ParseServiceAccount(text, only_cluster); account.has_value()) {
        accounts_.emplace(*std::move(account), platform);
      }
    }
  }
}

std::set<const Platform*> PlatformPolicy::OfCertificate(
    const google::protobuf::RepeatedPtrField<std::string>& uris,
    const google::protobuf::RepeatedPtrField<std::string>& dns_names) const {
  std::set<const Platform*> found;
  for (const std::string& uri : uris) {
    found.insert(Look(uris_, uri));
  }
  for (const std::string& name : dns_names) {
    found.insert(Look(dns_names_, absl::AsciiStrToLower(name)));
  }
  found.erase(nullptr);
  return found;
}

const Platform* PlatformPolicy::OfAccount(const ServiceAccount& account) const { return Look(accounts_, account); }

}  // namespace sallyport::authn::platforms
