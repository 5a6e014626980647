// SPDX-License-Identifier: Apache-2.0
// What tests do to FakeVault and see of it, and its gRPC service.
#include <algorithm>
#include <chrono>

#include "common/caller/caller.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/fake_vault_rules.h"

namespace sallyport::testing {

using vault::v1::RecordName;
using namespace vault_rules;  // NOLINT(google-build-using-namespace): they are this file's, shared with its parts.

// --- What tests do to it ---

void FakeVault::Fail(absl::Status error) {
  MutexLock lock(mu_);
  error_ = std::move(error);
}
void FakeVault::SetDown(bool down) { Fail(down ? Down() : absl::OkStatus()); }
void FakeVault::FailPuts(int count, absl::Status failure) {
  MutexLock lock(mu_);
  puts_fail_ = count;
  put_failure_ = std::move(failure);
}
void FakeVault::SetHanging(bool hang) {
  MutexLock lock(mu_);
  hang_ = hang;
  changed_.notify_all();
}
void FakeVault::LapseLeases() {
  MutexLock lock(mu_);
  for (auto& [key, row] : rows_) {
    if (row.claim_until != absl::InfinitePast()) row.claim_until = clock_.Now();
  }
}
void FakeVault::ForgetLeases() {
  MutexLock lock(mu_);
  leases_.clear();
  for (auto& [key, row] : rows_) row.claim_until = absl::InfinitePast();
}
void FakeVault::RefusePassport(const std::string& passport) {
  MutexLock lock(mu_);
  refused_passports_.insert(passport);
}
void FakeVault::RotateDataKeys() {
  MutexLock lock(mu_);
  for (auto& [owner, key] : data_keys_) ++key.version;
}
void FakeVault::MakeOld() {
  MutexLock lock(mu_);
  adopted_ = false;
  std::erase_if(rows_, [](const auto& row) { return IsBinding(row.second.name.kind()); });
  for (auto& [key, row] : rows_) {
    for (auto& [number, version] : row.versions) version.bound = !IsSent(row.name.kind());
  }
}
void FakeVault::Damage(const RecordName& name) {
  MutexLock lock(mu_);
  if (Row* row = FindLive(name); row != nullptr) row->damaged = true;
}
void FakeVault::Unbind(const RecordName& name) {
  MutexLock lock(mu_);
  for (auto& [number, version] : rows_[KeyOf(name)].versions) version.bound = false;
}
void FakeVault::SetAdopted(bool adopted) {
  MutexLock lock(mu_);
  adopted_ = adopted;
}

// --- What tests see of it ---

FakeVault::Record FakeVault::Find(const RecordName& name) const {
  MutexLock lock(mu_);
  const Row* row = FindRow(name);
  return row == nullptr ? Record() : Record(*row);
}
std::vector<RecordName> FakeVault::Live() const {
  MutexLock lock(mu_);
  std::vector<RecordName> names;
  for (const auto& [key, row] : rows_) {
    if (row.head != 0) names.push_back(row.name);
  }
  return names;
}
vault::v1::RecordMetadata FakeVault::MetadataOf(const RecordName& name) const {
  MutexLock lock(mu_);
  const Row* row = FindRow(name);
  return row == nullptr ? vault::v1::RecordMetadata() : Metadata(*row);
}
std::vector<vault::v1::RecordMetadata> FakeVault::Revocations() const {
  MutexLock lock(mu_);
  std::vector<vault::v1::RecordMetadata> owed;
  for (const auto& [key, row] : rows_) {
    if (row.name.kind() == "revocation" && row.head != 0) owed.push_back(Metadata(row));
  }
  return owed;
}
std::string FakeVault::Head(const RecordName& name) const {
  MutexLock lock(mu_);
  const Row* row = FindRow(name);
  return row == nullptr || row->head == 0 ? "" : row->versions.at(row->head).payload;
}
std::vector<std::string> FakeVault::Sides(const RecordName& name) const {
  MutexLock lock(mu_);
  std::vector<std::string> payloads;
  if (const Row* row = FindRow(name); row != nullptr) {
    for (const Side& side : row->sides) payloads.push_back(side.payload);
  }
  return payloads;
}
std::string FakeVault::Holder(const RecordName& name) const {
  MutexLock lock(mu_);
  const Row* row = FindRow(name);
  if (row == nullptr || row->claim_until <= clock_.Now()) return "";
  return absl::StrCat("lease-", name.owner_id(), "-", name.name(), "-", row->epoch);
}
size_t FakeVault::CountRecords(const std::string& kind) const {
  MutexLock lock(mu_);
  return static_cast<size_t>(std::count_if(rows_.begin(), rows_.end(), [&](const auto& entry) {
    return entry.second.name.kind() == kind && entry.second.head != 0;
  }));
}
bool FakeVault::adopted() const {
  MutexLock lock(mu_);
  return adopted_;
}
int FakeVault::gets() const {
  MutexLock lock(mu_);
  return gets_;
}
int FakeVault::puts() const {
  MutexLock lock(mu_);
  return puts_;
}
int FakeVault::writes() const {
  MutexLock lock(mu_);
  return writes_;
}
bool FakeVault::AwaitWrites(int count) const {
  const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  MutexLock lock(mu_);
  while (writes_ < count) {
    if (changed_.wait_until(mu_, until) == std::cv_status::timeout) return false;
  }
  return true;
}
int FakeVault::hanging() const {
  MutexLock lock(mu_);
  return hanging_;
}
std::string FakeVault::Fingerprint() const {
  MutexLock lock(mu_);
  std::string out;
  for (const auto& [key, row] : rows_) {
    absl::StrAppend(&out, row.generation, ",", row.epoch, ",", row.head, ",", row.state, ",", row.reason, ",",
                    row.claim_until > clock_.Now(), row.claim_until == absl::InfinitePast(), ",",
                    row.head == 0 ? "" : row.versions.at(row.head).payload);
    for (const Side& side : row.sides) absl::StrAppend(&out, ";", side.version, side.payload, side.shown_epoch);
  }
  for (const auto& [id, lease] : leases_) absl::StrAppend(&out, "|", id, static_cast<int>(lease.state));
  return out;
}

// --- Over gRPC ---

std::string FakeVaultService::AttachedPassport(const grpc::ServerContext& context) {
  const auto found = context.client_metadata().find(kPassportMetadata);
  return found == context.client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
}
grpc::Status FakeVaultService::ToGrpc(const absl::Status& status) { return ToGrpcStatus(status); }

}  // namespace sallyport::testing
