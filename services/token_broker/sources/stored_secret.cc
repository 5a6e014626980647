// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/stored_secret.h"

#include "absl/strings/str_cat.h"

#include "common/status_macros.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {

std::string LiteralSource::CacheKey(const Need& need) const {
  return KeyOf({need.server->uid(), need.piece->literal()});
}

void LiteralSource::Get(const std::shared_ptr<const Need>& need, Done done) {
  Value value;
  value.secret = std::make_shared<const Secret>(need->piece->literal());
  value.uid = need->server->uid();
  done(Outcome(std::move(value)));
}

std::string StoredSecretSource::CacheKey(const Need& need) const {
  const Plan::StoredSecret& reference = need.piece->stored_secret();
  return KeyOf({reference.record(), absl::StrCat(reference.version())});
}

absl::StatusOr<Outcome> StoredSecretSource::Read(const Need& need) {
  const Plan::StoredSecret& reference = need.piece->stored_secret();
  if (reference.record().empty()) {
    return error::CredentialMissing(absl::StrCat(need.piece->id(), " has no stored value; enter it again"));
  }
  Value value;
  ASSIGN_OR_RETURN(value.secret, secrets_.Read(OrganizationRecord("server_secret", reference.record()),
                                               reference.version(), {need.upstream_origin}));
  value.uid = need.server->uid();
  value.version = reference.version();
  return Outcome(std::move(value));
}

void StoredSecretSource::Get(const std::shared_ptr<const Need>& need, Done done) { done(Read(*need)); }

}  // namespace sallyport::token_broker
