// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/clock.h"
#include "common/mutex.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/user_credentials.h"

namespace sallyport::token_broker {

// A credential of the organization, at the version its configuration names, or the caller's own. What is missing of the
// latter is a link.
class StoredCredentialSource final : public Source {
 public:
  // All outlive this.
  StoredCredentialSource(SecretReader& secrets, UserCredentials& own, const Clock& clock)
      : secrets_(secrets), own_(own), clock_(clock) {}
  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;

 private:
  absl::StatusOr<Outcome> Read(const Need& need);
  absl::StatusOr<Outcome> ReadOwn(const Need& need, const registry::v1::Credential& credential);
  absl::StatusOr<Outcome> ReadOrganizations(const Need& need, const registry::v1::Credential& credential);
  // Whether the upstream refuses this one: said now, or not long ago. It is not sent again and again: upstreams lock
  // accounts over that.
  bool IsRefused(const Need& need, const UserCredentials::Stored& stored);

  SecretReader& secrets_;
  UserCredentials& own_;
  const Clock& clock_;

  struct Refused {
    int64_t generation = 0;
    int64_t version = 0;
    absl::Time until;
  };
  static constexpr size_t kMaxRefused = 10'000;
  Mutex mu_;
  std::map<std::string, Refused> refused_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker
