// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/stored_credential.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/status_macros.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

// An upstream may have been wrong.
constexpr absl::Duration kRefusalKept = absl::Minutes(5);

}  // namespace

std::string StoredCredentialSource::CacheKey(const Need& need) const {
  const Plan::StoredCredential& wanted = need.piece->stored_credential();
  return wanted.match() == Plan::StoredCredential::PER_USER ? KeyOf({wanted.uid(), need.passport->subject})
                                                            : KeyOf({wanted.uid()});
}

absl::StatusOr<Outcome> StoredCredentialSource::Read(const Need& need) {
  const Plan::StoredCredential& wanted = need.piece->stored_credential();
  const registry::v1::Credential* credential = need.snapshot->CredentialByUid(wanted.uid());
  const bool own = wanted.match() == Plan::StoredCredential::PER_USER;
  // A credential of another owner does not take the place of the one that was configured.
  if (credential == nullptr || (!own && wanted.match() != Plan::StoredCredential::ORGANIZATION) ||
      (credential->owner() == registry::v1::Credential::USER) != own) {
    return error::CredentialMissing(absl::StrCat(need.piece->id(), " names a stored credential that is not there"));
  }
  const auto& allowed = credential->allowed_upstream_origins();
  if (std::find(allowed.begin(), allowed.end(), need.upstream_origin) == allowed.end()) {
    return error::OriginNotAllowed("this credential");
  }
  return own ? ReadOwn(need, *credential) : ReadOrganizations(need, *credential);
}

bool StoredCredentialSource::IsRefused(const Need& need, const UserCredentials::Stored& stored) {
  const absl::Time now = clock_.Now();
  const std::string key = CacheKey(need);
  MutexLock lock(mu_);
  if (need.refused_generation == stored.generation && need.refused_version == stored.version) {
    if (refused_.size() >= kMaxRefused) refused_.clear();  // Each costs one more refusal.
    refused_[key] = {stored.generation, stored.version, now + kRefusalKept};
    return true;
  }
  const auto found = refused_.find(key);
  return found != refused_.end() && found->second.generation == stored.generation &&
         found->second.version == stored.version && now < found->second.until;
}

absl::StatusOr<Outcome> StoredCredentialSource::ReadOwn(const Need& need, const registry::v1::Credential& credential) {
  ASSIGN_OR_RETURN(std::optional<UserCredentials::Stored> stored, own_.Read(credential.uid(), *need.passport));
  const Connectable wanted = {.credential = &credential};
  if (!stored.has_value()) {
    return Outcome(LinkOf(wanted, v1::LinkRequired::NOT_LINKED));
  }
  // What is sealed bounds what the configuration says: its user decides again, seeing where it would go.
  if (IsRefused(need, *stored) || !stored->Allows(need.upstream_origin) ||
      (need.piece->encoding() == Plan::BASIC && stored->username.empty())) {
    return Outcome(LinkOf(wanted, v1::LinkRequired::NEEDS_REAUTH));
  }
  Value value;
  value.secret = std::make_shared<const Secret>(std::move(stored->value));
  value.username = std::move(stored->username);
  value.uid = credential.uid();
  value.generation = stored->generation;
  value.version = stored->version;
  value.connection = credential.uid();
  return Outcome(std::move(value));
}

absl::StatusOr<Outcome> StoredCredentialSource::ReadOrganizations(const Need& need,
                                                                  const registry::v1::Credential& credential) {
  if (!credential.value().set()) {
    return error::CredentialMissing(absl::StrCat("credential ", credential.slug(), " has no value; enter it again"));
  }
  if (need.piece->encoding() == Plan::BASIC && credential.username().empty()) {
    return error::CredentialMissing(absl::StrCat("credential ", credential.slug(), " has no username; enter it"));
  }
  Value value;
  // What is sealed bounds what the configuration says.
  ASSIGN_OR_RETURN(value.secret, secrets_.Read(OrganizationRecord("credential", credential.value().vault_record()),
                                               credential.value().version(), {need.upstream_origin}));
  value.username = credential.username();
  value.uid = credential.uid();
  value.version = credential.value().version();
  return Outcome(std::move(value));
}

void StoredCredentialSource::Get(const std::shared_ptr<const Need>& need, Done done) { done(Read(*need)); }

}  // namespace sallyport::token_broker
