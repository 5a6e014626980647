// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/user_credentials.h"

namespace sallyport::token_broker {

// A credential of the organization, at the version its configuration names, or the caller's own. What is missing of the
// latter is a link.
class StoredCredentialSource final : public Source {
 public:
  // Both outlive this.
  StoredCredentialSource(SecretReader& secrets, UserCredentials& own) : secrets_(secrets), own_(own) {}
  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;

 private:
  absl::StatusOr<Outcome> Read(const Need& need);
  absl::StatusOr<Outcome> ReadOwn(const Need& need, const registry::v1::Credential& credential);
  absl::StatusOr<Outcome> ReadOrganizations(const Need& need, const registry::v1::Credential& credential);

  SecretReader& secrets_;
  UserCredentials& own_;
};

}  // namespace sallyport::token_broker
