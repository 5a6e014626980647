// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/secret_reader.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

std::string KeyOf(const vault::v1::RecordName& record) {
  return absl::StrCat(record.name(), "\n", record.kind(), "\n", static_cast<int>(record.owner_type()), "\n",
                      record.owner_id());
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Secret>> SecretReader::Read(const vault::v1::RecordName& record, int64_t version) {
  const absl::Time now = clock_.Now();
  const auto key = std::make_pair(KeyOf(record), version);
  {
    MutexLock lock(mu_);
    if (const auto found = entries_.find(key); found != entries_.end() && found->second.until > now) {
      return found->second.secret;
    }
  }
  vault::v1::GetRequest request;
  *request.mutable_record() = record;
  request.set_version(version);
  absl::StatusOr<vault::v1::GetResponse> response = vault_.Get(request, "");
  if (absl::IsNotFound(response.status())) {
    return error::CredentialMissing("a configured credential has no stored value; enter it again");
  }
  if (!response.ok()) {
    return response.status();
  }
  auto secret = std::make_shared<const Secret>(std::move(*response->mutable_payload()));
  if (version != 0) {
    MutexLock lock(mu_);
    if (entries_.size() >= kMaxEntries) {
      entries_.clear();  // Rare: thousands of distinct secrets. They come back with the next reads.
    }
    entries_[key] = {secret, now + absl::Minutes(5)};
  }
  return secret;
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
