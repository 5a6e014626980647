// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

#include "sallyport/config/v1/services.pb.h"
#include "services/authn/group_names.h"
#include "services/authn/identity.h"
#include "services/authn/platforms/service_account.h"

namespace sallyport::authn::platforms {

// In a grant's apps: every app.
inline constexpr char kEveryApp[] = "*";
// What metrics and logs call whoever has not proved to be a platform; no platform may have this id.
inline constexpr char kUnknownPlatform[] = "unknown";

// The id of the configuration's cluster if it has exactly one; else empty.
std::string OnlyCluster(const config::v1::AuthnConfig& config);

// What grants say of one user.
struct Granted {
  // Slugs, sorted, or kEveryApp alone. Empty: no grant covers the user.
  std::vector<std::string> apps;
  // The first grant that covers the user: "platforms.grants[0]"; "platforms.grants.none".
  std::string rule = "platforms.grants.none";
  // None does, but one names groups, and the provider has left the user's out because they are too many.
  bool groups_overage = false;
};

// A platform of the configuration. Immutable.
class Platform {
 public:
  Platform(config::v1::Platform config, const GroupNames& names);

  const std::string& id() const { return config_.id(); }
  const config::v1::Platform& config() const { return config_; }
  const std::vector<std::string>& subject_token_audiences() const { return audiences_; }
  // Requests at once, where there is a rate limit.
  int rate_burst() const;

  // For a user who is known by a token.
  Granted ForUser(const Identity& identity) const;
  // For a subject that the platform names itself. Groups do not count.
  Granted ForSubject(absl::string_view subject) const;

 private:
  struct Grant {
    std::set<std::string> apps;
    std::set<std::string> users;
    std::set<std::string> groups;  // As "<connector>:<group>".
    bool everybody = false;        // Names neither users nor groups.
    bool without_user = false;
  };
  template <typename Covers>
  Granted Collect(Covers covers) const;

  const config::v1::Platform config_;
  const std::vector<std::string> audiences_;
  std::vector<Grant> grants_;
};

// Which platform an identity is. Immutable.
class PlatformPolicy {
 public:
  // `config` is valid (ValidatePlatforms).
  explicit PlatformPolicy(const config::v1::AuthnConfig& config);
  PlatformPolicy(const PlatformPolicy&) = delete;
  PlatformPolicy& operator=(const PlatformPolicy&) = delete;

  const std::vector<Platform>& all() const { return platforms_; }
  // Every platform that has one of these SANs, compared whole (DNS names without case). A certificate may hold names of
  // several: it then is none of them.
  std::set<const Platform*> OfCertificate(const google::protobuf::RepeatedPtrField<std::string>& uris,
                                          const google::protobuf::RepeatedPtrField<std::string>& dns_names) const;
  // Null if there is none.
  const Platform* OfAccount(const ServiceAccount& account) const;

 private:
  std::vector<Platform> platforms_;
  std::map<std::string, const Platform*> uris_;
  std::map<std::string, const Platform*> dns_names_;
  std::map<ServiceAccount, const Platform*> accounts_;
};

}  // namespace sallyport::authn::platforms
