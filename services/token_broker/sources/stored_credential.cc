// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/stored_credential.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/status_macros.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {

std::string StoredCredentialSource::CacheKey(const Need& need) const {
  return KeyOf({need.piece->stored_credential().uid()});
}

absl::StatusOr<Outcome> StoredCredentialSource::Read(const Need& need) {
  const Plan::StoredCredential& wanted = need.piece->stored_credential();
  const registry::v1::Credential* credential = need.snapshot->CredentialByUid(wanted.uid());
  // A credential of another owner does not take the place of the one that was configured.
  if (credential == nullptr || wanted.match() != Plan::StoredCredential::ORGANIZATION ||
      credential->owner() == registry::v1::Credential::USER) {
    return error::CredentialMissing(absl::StrCat(need.piece->id(), " names a stored credential that is not there"));
  }
  if (!credential->value().set()) {
    return error::CredentialMissing(absl::StrCat("credential ", credential->slug(), " has no value; enter it again"));
  }
  const auto& allowed = credential->allowed_upstream_origins();
  if (std::find(allowed.begin(), allowed.end(), need.upstream_origin) == allowed.end()) {
    return error::OriginNotAllowed("this credential");
  }
  if (need.piece->encoding() == Plan::BASIC && credential->username().empty()) {
    return error::CredentialMissing(absl::StrCat("credential ", credential->slug(), " has no username; enter it"));
  }
  Value value;
  // What is sealed bounds what the configuration says.
  ASSIGN_OR_RETURN(value.secret, secrets_.Read(OrganizationRecord("credential", credential->value().vault_record()),
                                               credential->value().version(), {need.upstream_origin}));
  value.username = credential->username();
  value.uid = credential->uid();
  value.version = credential->value().version();
  return Outcome(std::move(value));
}

void StoredCredentialSource::Get(const std::shared_ptr<const Need>& need, Done done) { done(Read(*need)); }

}  // namespace sallyport::token_broker
