// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/source.h"

namespace sallyport::token_broker {

// A credential of the organization, at the version its configuration names.
class StoredCredentialSource final : public Source {
 public:
  explicit StoredCredentialSource(SecretReader& secrets) : secrets_(secrets) {}
  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;

 private:
  absl::StatusOr<Outcome> Read(const Need& need);

  SecretReader& secrets_;
};

}  // namespace sallyport::token_broker
