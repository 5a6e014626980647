// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/secret_reader.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

std::string KeyOf(const vault::v1::RecordName& record) {
  return absl::StrCat(record.name(), "\n", record.kind(), "\n", static_cast<int>(record.owner_type()), "\n",
                      record.owner_id());
}

vault::v1::RecordName BindingRecord(const std::string& kind, const std::string& uid) {
  return OrganizationRecord(kind, absl::StrCat(uid, "/binding"));
}

bool Contains(const std::vector<std::string>& origins, absl::string_view origin) {
  return std::any_of(origins.begin(), origins.end(), [&](const std::string& one) { return one == origin; });
}

}  // namespace

bool SecretReader::Binding::Allows(absl::string_view origin) const { return pending || Contains(origins, origin); }

absl::StatusOr<std::shared_ptr<const SecretReader::Stored>> SecretReader::Get(const vault::v1::RecordName& record,
                                                                              int64_t version) {
  const absl::Time now = clock_.Now();
  const auto key = std::make_pair(KeyOf(record), version);
  {
    MutexLock lock(mu_);
    if (const auto found = entries_.find(key); found != entries_.end() && found->second.until > now) {
      return found->second.stored;
    }
  }
  vault::v1::GetRequest request;
  *request.mutable_record() = record;
  request.set_version(version);
  ASSIGN_OR_RETURN(vault::v1::GetResponse response, vault_.Get(request, ""));
  auto stored = std::make_shared<Stored>();
  stored->payload = Secret(std::move(*response.mutable_payload()));
  stored->origins.assign(response.origins().begin(), response.origins().end());
  stored->bound = response.bound();
  // One that is waiting to be adopted is asked for again, to notice when it has been.
  if (version != 0 && stored->bound == vault::v1::BOUND) {
    MutexLock lock(mu_);
    if (entries_.size() >= kMaxEntries) {
      entries_.clear();  // Rare: thousands of distinct secrets. They come back with the next reads.
    }
    entries_[key] = {stored, now + absl::Minutes(5)};
  }
  return std::shared_ptr<const Stored>(std::move(stored));
}

absl::StatusOr<std::shared_ptr<const Secret>> SecretReader::Read(const vault::v1::RecordName& record, int64_t version,
                                                                 const std::vector<std::string>& origins) {
  absl::StatusOr<std::shared_ptr<const Stored>> stored = Get(record, version);
  if (absl::IsNotFound(stored.status())) {
    return error::CredentialMissing("a configured credential has no stored value; enter it again");
  }
  RETURN_IF_ERROR(stored.status());
  const bool allowed = (*stored)->bound == vault::v1::ADOPTION_PENDING ||
                       ((*stored)->bound == vault::v1::BOUND &&
                        std::any_of(origins.begin(), origins.end(),
                                    [&](const std::string& origin) { return Contains((*stored)->origins, origin); }));
  if (!allowed) {
    return error::OriginNotAllowed("a configured credential");
  }
  return std::shared_ptr<const Secret>(*stored, &(*stored)->payload);
}

std::shared_ptr<const SecretReader::Binding> SecretReader::KnownBinding(const std::string& kind, const std::string& uid,
                                                                        int64_t version) {
  const auto key = std::make_pair(KeyOf(BindingRecord(kind, uid)), version);
  MutexLock lock(mu_);
  const auto found = bindings_.find(key);
  return found == bindings_.end() ? nullptr : found->second;
}

absl::StatusOr<std::shared_ptr<const SecretReader::Binding>> SecretReader::ReadBinding(const std::string& kind,
                                                                                       const std::string& uid,
                                                                                       int64_t version) {
  if (std::shared_ptr<const Binding> known = KnownBinding(kind, uid, version); known != nullptr) {
    return known;
  }
  const vault::v1::RecordName record = BindingRecord(kind, uid);
  const auto key = std::make_pair(KeyOf(record), version);
  const absl::StatusOr<std::shared_ptr<const Stored>> stored = Get(record, version);
  auto binding = std::make_shared<Binding>();
  if (absl::IsNotFound(stored.status())) {
    if (ReasonOf(stored.status()) == "adoption_pending") {
      binding->pending = true;
      return std::shared_ptr<const Binding>(std::move(binding));
    }
    return error::CredentialMissing("nothing says where tokens may be sent; an administrator can save it again");
  }
  RETURN_IF_ERROR(stored.status());
  binding->name = std::string((*stored)->payload.Expose());
  binding->origins = (*stored)->origins;
  if (version != 0) {
    MutexLock lock(mu_);
    if (bindings_.size() >= kMaxEntries) {
      bindings_.clear();
    }
    bindings_[key] = binding;
  }
  return std::shared_ptr<const Binding>(std::move(binding));
}

void SecretReader::Invalidate(const std::string& name) {
  const std::string prefix = name + "\n";
  MutexLock lock(mu_);
  for (auto it = entries_.lower_bound({prefix, 0});
       it != entries_.end() && absl::StartsWith(it->first.first, prefix);) {
    it = entries_.erase(it);
  }
}

}  // namespace sallyport::token_broker
