// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/source.h"

namespace sallyport::token_broker {

// What the configuration itself holds; not secret.
class LiteralSource final : public Source {
 public:
  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;
};

// What somebody entered with the server, at the version its configuration names.
class StoredSecretSource final : public Source {
 public:
  explicit StoredSecretSource(SecretReader& secrets) : secrets_(secrets) {}
  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;

 private:
  absl::StatusOr<Outcome> Read(const Need& need);

  SecretReader& secrets_;
};

}  // namespace sallyport::token_broker
