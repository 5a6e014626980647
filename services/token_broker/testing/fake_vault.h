// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/clock.h"
#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/text/base64url.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker::testing {

// The vault's contract in memory: versions, generations, epochs, leases, late answers. Reads the clock it is given.
// Thread-safe. A passport is "passport-of:<subject>" or "passport-of:<subject>#<anything>", or a JWT whose `sub` is
// taken unverified.
class FakeVault final : public VaultClient {
 public:
  explicit FakeVault(const Clock& clock) : clock_(clock) {}

  absl::StatusOr<vault::v1::GetResponse> Get(const vault::v1::GetRequest& request,
                                             const std::string& passport) override {
    MutexLock lock(mu_);
    ++gets_;
    ++hanging_;
    while (hang_) changed_.wait(mu_);
    --hanging_;
    if (down_) return Down();
    if (absl::Status status = CheckOwner(request.record(), passport); !status.ok()) return status;
    const auto found = records_.find(KeyOf(request.record()));
    if (found == records_.end()) {
      const absl::Status none = absl::NotFoundError("no such record or version");
      const bool binding = absl::EndsWith(request.record().kind(), "_binding");
      return binding && !adopted_ ? WithReason(none, "adoption_pending") : none;
    }
    const Record& record = found->second;
    const int64_t version = request.version() == 0 ? record.head : request.version();
    const auto payload = record.versions.find(version);
    if (version == 0 || payload == record.versions.end()) return absl::NotFoundError("no such record or version");
    vault::v1::GetResponse response;
    response.set_payload(payload->second);
    if (const auto origins = record.origins.find(version); origins != record.origins.end()) {
      response.mutable_origins()->Assign(origins->second.begin(), origins->second.end());
    }
    response.set_bound(record.unbound ? adopted_ ? vault::v1::UNBOUND : vault::v1::ADOPTION_PENDING : vault::v1::BOUND);
    response.set_version(version);
    *response.mutable_metadata() = Metadata(record);
    return response;
  }

  absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                             const std::string& passport) override {
    MutexLock lock(mu_);
    if (down_ || puts_fail_ > 0) {
      puts_fail_ = std::max(0, puts_fail_ - 1);
      return down_ ? Down() : put_failure_;
    }
    if (!request.lease().empty()) return PutLeased(request);
    if (absl::Status status = CheckOwner(request.record(), passport); !status.ok()) return status;
    Record& record = records_[KeyOf(request.record())];
    record.name = request.record();
    if (request.has_expected_version() && request.expected_version() != record.head) {
      return WithReason(absl::AbortedError("not the head"), "version_conflict");
    }
    if (!request.keep_generation()) {
      ++record.generation;
      record.claim_until = absl::InfinitePast();
      record.sides.clear();
    }
    vault::v1::PutResponse response;
    response.set_version(++record.last_version);
    response.set_generation(record.generation);
    WriteHead(record, response.version(), request);
    return response;
  }

  absl::StatusOr<vault::v1::DeleteResponse> Delete(const vault::v1::DeleteRequest& request,
                                                   const std::string& passport) override {
    MutexLock lock(mu_);
    if (down_) return Down();
    if (!request.lease().empty()) {
      const auto lease = leases_.find(request.lease());
      if (lease == leases_.end()) return WithReason(absl::AbortedError("no such lease"), "lease_unknown");
      const Record& held = records_[lease->second.record];
      if (lease->second.generation != held.generation) {
        return WithReason(absl::AbortedError("linked anew"), "wrong_generation");
      }
      if (lease->second.epoch != held.epoch || lease->second.state == LeaseState::kAnswered) {
        return WithReason(absl::AbortedError("no longer the holder"), "lease_lost");
      }
    } else if (absl::Status status = CheckOwner(request.record(), passport); !status.ok()) {
      return status;
    }
    const auto found = records_.find(KeyOf(request.record()));
    if (found == records_.end() || found->second.head == 0) return absl::NotFoundError("no such record or version");
    Record& record = found->second;
    if (request.has_expected_version() && request.expected_version() != record.head) {
      return WithReason(absl::AbortedError("not the head"), "version_conflict");
    }
    record.versions.clear();
    record.sides.clear();
    record.labels.clear();
    record.head = 0;
    ++record.generation;
    record.state = "DELETED";
    record.claim_until = record.next_at = record.backoff_until = absl::InfinitePast();
    vault::v1::DeleteResponse response;
    response.set_generation(record.generation);
    return response;
  }

  absl::StatusOr<vault::v1::ListResponse> List(const vault::v1::ListRequest& request,
                                               const std::string& passport) override {
    MutexLock lock(mu_);
    vault::v1::RecordName any;
    any.set_owner_type(request.owner_type());
    any.set_owner_id(request.owner_id());
    if (absl::Status status = CheckOwner(any, passport); !status.ok()) return status;
    vault::v1::ListResponse response;
    for (const auto& [key, record] : records_) {
      if (record.name.owner_type() == request.owner_type() && record.name.owner_id() == request.owner_id() &&
          (request.kind().empty() || request.kind() == record.name.kind()) && record.head != 0) {
        *response.add_records() = Metadata(record);
      }
    }
    return response;
  }

  absl::StatusOr<vault::v1::AcquireLeaseResponse> AcquireLease(const vault::v1::AcquireLeaseRequest& request,
                                                               const std::string& passport) override {
    MutexLock lock(mu_);
    if (down_) return Down();
    if (!request.maintenance()) {
      if (absl::Status status = CheckOwner(request.record(), passport); !status.ok()) return status;
    }
    const auto found = records_.find(KeyOf(request.record()));
    if (found == records_.end() || found->second.head == 0) return absl::NotFoundError("no such record or version");
    Record& record = found->second;
    const absl::Time now = clock_.Now();
    if (request.maintenance() && (record.next_at == absl::InfinitePast() || record.next_at > now)) {
      return WithReason(absl::PermissionDeniedError("the record is not due"), "not_due");
    }
    vault::v1::AcquireLeaseResponse response;
    if (record.claim_until > now) {
      response.mutable_held()->mutable_retry_after()->set_nanos(200'000'000);
      *response.mutable_held()->mutable_metadata() = Metadata(record);
      return response;
    }
    auto& out = *response.mutable_lease();
    out.set_took_over(record.claim_until != absl::InfinitePast());
    const std::string id = absl::StrCat("lease-", record.name.owner_id(), "-", record.name.name(), "-", ++record.epoch);
    leases_[id] = {KeyOf(request.record()), record.generation, record.epoch, ++record.last_version};
    record.claim_until = now + absl::Seconds(request.ttl().seconds());
    for (auto side = record.sides.rbegin(); side != record.sides.rend(); ++side) {
      side->shown_epoch = record.epoch;
      auto* shown = out.add_side();
      shown->set_version(side->version);
      shown->set_payload(side->payload);
    }
    out.set_id(id);
    out.set_epoch(record.epoch);
    out.set_generation(record.generation);
    out.set_head(record.head);
    out.set_payload(record.versions[record.head]);
    *out.mutable_metadata() = Metadata(record);
    *out.mutable_remaining() = request.ttl();
    ++leases_given_;
    return response;
  }

  absl::Status Release(const vault::v1::ReleaseRequest& request) override {
    MutexLock lock(mu_);
    if (down_) return Down();
    const auto found = leases_.find(request.lease());
    if (found == leases_.end() || found->second.state != LeaseState::kOpen) return absl::OkStatus();
    found->second.state = LeaseState::kEnded;
    Record& record = records_[found->second.record];
    if (record.generation == found->second.generation && record.epoch == found->second.epoch) {
      record.claim_until = absl::InfinitePast();
    }
    return absl::OkStatus();
  }

  absl::Status PutStatus(const vault::v1::PutStatusRequest& request) override {
    MutexLock lock(mu_);
    if (down_) return Down();
    const auto found = leases_.find(request.lease());
    if (found == leases_.end()) return WithReason(absl::AbortedError("no such lease"), "lease_unknown");
    Lease& lease = found->second;
    Record& record = records_[lease.record];
    if (lease.generation != record.generation) return WithReason(absl::AbortedError("linked anew"), "wrong_generation");
    if (lease.epoch != record.epoch || lease.state == LeaseState::kAnswered) {
      return WithReason(absl::AbortedError("no longer the holder"), "lease_lost");
    }
    if (NeedsUser(request.state())) {
      for (const Side& side : record.sides) {
        if (side.shown_epoch != record.epoch) return WithReason(absl::AbortedError("a late answer"), "side_exists");
      }
    }
    if (!request.state().empty()) record.state = request.state();
    record.reason = request.reason();
    record.backoff_until = request.has_backoff_until() ? FromTimestamp(request.backoff_until()) : absl::InfinitePast();
    record.next_at = request.has_next_at() ? FromTimestamp(request.next_at()) : absl::InfinitePast();
    record.claim_until = absl::InfinitePast();
    lease.state = LeaseState::kEnded;
    return absl::OkStatus();
  }

  absl::StatusOr<vault::v1::ListDueResponse> ListDue(const vault::v1::ListDueRequest& request) override {
    MutexLock lock(mu_);
    vault::v1::ListDueResponse response;
    for (const auto& [key, record] : records_) {
      const bool wanted = std::count(request.kinds().begin(), request.kinds().end(), record.name.kind()) > 0;
      if (wanted && record.head != 0 && record.next_at != absl::InfinitePast() && record.next_at <= clock_.Now()) {
        *response.add_records() = Metadata(record);
      }
    }
    return response;
  }

  absl::StatusOr<vault::v1::GetCacheRootsResponse> GetCacheRoots(const vault::v1::GetCacheRootsRequest& request,
                                                                 const std::string& passport) override {
    MutexLock lock(mu_);
    if (down_) return Down();
    vault::v1::RecordName any;
    any.set_owner_type(request.owner_type());
    any.set_owner_id(request.owner_id());
    if (absl::Status status = CheckOwner(any, passport); !status.ok()) return status;
    vault::v1::GetCacheRootsResponse response;
    auto& root = *response.add_roots();
    root.set_root(Sha256(absl::StrCat(request.owner_type(), request.owner_id(), data_key_)));
    root.set_key_version(data_key_);
    return response;
  }

  // --- What tests do to it ---

  // Every lease is over, whatever its holder thinks.
  void LapseLeases() {
    MutexLock lock(mu_);
    for (auto& [key, record] : records_) {
      if (record.claim_until != absl::InfinitePast()) record.claim_until = clock_.Now();
    }
  }
  // Id of the lease that holds the record; empty if none.
  std::string Holder(const vault::v1::RecordName& name) {
    MutexLock lock(mu_);
    const Record& record = records_[KeyOf(name)];
    return record.claim_until > clock_.Now()
               ? absl::StrCat("lease-", name.owner_id(), "-", name.name(), "-", record.epoch)
               : "";
  }
  // Everybody's data key is replaced.
  void RotateDataKeys() {
    MutexLock lock(mu_);
    ++data_key_;
  }
  // What this record holds is of an earlier release, which sealed no origins.
  void Unbind(const vault::v1::RecordName& name) {
    MutexLock lock(mu_);
    records_[KeyOf(name)].unbound = true;
  }
  void SetAdopted(bool adopted) {
    MutexLock lock(mu_);
    adopted_ = adopted;
  }
  void SetDown(bool down) {
    MutexLock lock(mu_);
    down_ = down;
  }
  // Reads are not answered until it ends.
  void SetHanging(bool hang) {
    MutexLock lock(mu_);
    hang_ = hang;
    changed_.notify_all();
  }
  int hanging() {
    MutexLock lock(mu_);
    return hanging_;
  }
  void FailPuts(int count, absl::Status failure = Down()) {
    MutexLock lock(mu_);
    puts_fail_ = count;
    put_failure_ = std::move(failure);
  }
  // As one that has expired.
  void RefusePassport(const std::string& passport) {
    MutexLock lock(mu_);
    refused_passports_.insert(passport);
  }
  // As a store does that was put back to an earlier day.
  void ForgetLeases() {
    MutexLock lock(mu_);
    leases_.clear();
    for (auto& [key, record] : records_) record.claim_until = absl::InfinitePast();
  }
  vault::v1::RecordMetadata MetadataOf(const vault::v1::RecordName& name) {
    MutexLock lock(mu_);
    return Metadata(records_[KeyOf(name)]);
  }
  std::vector<std::string> Sides(const vault::v1::RecordName& name) {
    MutexLock lock(mu_);
    std::vector<std::string> payloads;
    for (const Side& side : records_[KeyOf(name)].sides) payloads.push_back(side.payload);
    return payloads;
  }
  std::string Head(const vault::v1::RecordName& name) {
    MutexLock lock(mu_);
    Record& record = records_[KeyOf(name)];
    return record.head == 0 ? "" : record.versions[record.head];
  }
  size_t CountRecords(const std::string& kind) {
    MutexLock lock(mu_);
    return static_cast<size_t>(std::count_if(records_.begin(), records_.end(), [&](const auto& entry) {
      return entry.second.name.kind() == kind && entry.second.head != 0;
    }));
  }
  int leases_given() {
    MutexLock lock(mu_);
    return leases_given_;
  }
  int gets() {
    MutexLock lock(mu_);
    return gets_;
  }
  std::string Fingerprint() {
    MutexLock lock(mu_);
    std::string out;
    for (const auto& [key, record] : records_) {
      absl::StrAppend(&out, record.generation, ",", record.epoch, ",", record.head, ",", record.state, ",",
                      record.reason, ",", record.claim_until > clock_.Now(), record.claim_until == absl::InfinitePast(),
                      ",", record.head == 0 ? "" : record.versions.at(record.head));
      for (const Side& side : record.sides) absl::StrAppend(&out, ";", side.version, side.payload, side.shown_epoch);
    }
    for (const auto& [id, lease] : leases_) absl::StrAppend(&out, "|", id, static_cast<int>(lease.state));
    return out;
  }

 private:
  struct Side {
    int64_t version;
    std::string payload;
    int64_t shown_epoch = 0;
  };
  struct Record {
    vault::v1::RecordName name;
    std::map<int64_t, std::string> versions;
    std::map<int64_t, std::vector<std::string>> origins;
    bool unbound = false;
    std::vector<Side> sides;  // Oldest first.
    int64_t head = 0;
    int64_t last_version = 0;
    int64_t generation = 0;
    int64_t epoch = 0;
    std::string state;
    std::string reason;
    absl::Time backoff_until = absl::InfinitePast();
    absl::Time next_at = absl::InfinitePast();
    absl::Time claim_until = absl::InfinitePast();
    std::map<std::string, std::string> labels;
  };
  enum class LeaseState { kOpen, kEnded, kAnswered };
  struct Lease {
    std::string record;
    int64_t generation = 0;
    int64_t epoch = 0;
    int64_t version = 0;
    LeaseState state = LeaseState::kOpen;
    int64_t answer_version = 0;
    bool answer_side = false;
    std::string answer;
  };

  static bool NeedsUser(const std::string& state) { return state == "NEEDS_REAUTH" || state == "NEEDS_INTERACTION"; }
  static std::string KeyOf(const vault::v1::RecordName& name) { return name.SerializeAsString(); }
  static absl::Status Down() { return absl::UnavailableError("the vault is down"); }

  static std::string SubjectOf(const std::string& passport) {
    if (absl::StartsWith(passport, "passport-of:")) return passport.substr(12, passport.find('#') - 12);
    const std::vector<std::string> parts = absl::StrSplit(passport, '.');
    if (parts.size() != 3) return "";
    const std::string claims = Base64UrlDecode(parts[1]).value_or("");
    const size_t begin = claims.find("\"sub\":\"");
    return begin == std::string::npos ? "" : claims.substr(begin + 7, claims.find('"', begin + 7) - begin - 7);
  }
  absl::Status CheckOwner(const vault::v1::RecordName& name, const std::string& passport)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (refused_passports_.count(passport) > 0) return absl::UnauthenticatedError("the passport has expired");
    const bool mine = name.owner_type() != vault::v1::USER || SubjectOf(passport) == name.owner_id();
    return mine ? absl::OkStatus() : absl::PermissionDeniedError("the passport is another user's");
  }

  static vault::v1::RecordMetadata Metadata(const Record& record) {
    vault::v1::RecordMetadata metadata;
    *metadata.mutable_record() = record.name;
    metadata.set_head(record.head);
    metadata.set_generation(record.generation);
    metadata.set_epoch(record.epoch);
    metadata.set_state(record.state);
    metadata.set_reason(record.reason);
    metadata.mutable_labels()->insert(record.labels.begin(), record.labels.end());
    if (record.backoff_until != absl::InfinitePast())
      *metadata.mutable_backoff_until() = ToTimestamp(record.backoff_until);
    if (record.next_at != absl::InfinitePast()) *metadata.mutable_next_at() = ToTimestamp(record.next_at);
    return metadata;
  }

  static void WriteHead(Record& record, int64_t version, const vault::v1::PutRequest& request) {
    record.versions[version] = request.payload();
    record.origins[version] = {request.origins().begin(), request.origins().end()};
    record.head = version;
    record.last_version = std::max(record.last_version, version);
    record.state = request.state().empty() ? "OK" : request.state();
    record.reason.clear();
    record.backoff_until = absl::InfinitePast();
    record.next_at = request.has_next_at() ? FromTimestamp(request.next_at()) : absl::InfinitePast();
    record.labels = {request.labels().begin(), request.labels().end()};
  }

  absl::StatusOr<vault::v1::PutResponse> PutLeased(const vault::v1::PutRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto found = leases_.find(request.lease());
    if (found == leases_.end()) return WithReason(absl::AbortedError("no such lease"), "lease_unknown");
    Lease& lease = found->second;
    Record& record = records_[lease.record];
    if (lease.generation != record.generation) return WithReason(absl::AbortedError("linked anew"), "wrong_generation");
    vault::v1::PutResponse response;
    response.set_generation(record.generation);
    const bool answered = lease.state == LeaseState::kAnswered;
    if (answered && lease.answer == request.payload()) {
      response.set_version(lease.answer_version);
      response.set_side(lease.answer_side);
      return response;
    }
    const bool current = !answered && record.epoch == lease.epoch;
    const bool heals = !answered && !current && NeedsUser(record.state);
    const bool as_head = current || heals;
    const int64_t version =
        !answered && (!as_head || lease.version > record.head) ? lease.version : ++record.last_version;
    if (as_head) {
      if (current) {
        record.claim_until = absl::InfinitePast();
        record.sides.erase(std::remove_if(record.sides.begin(), record.sides.end(),
                                          [&](const Side& side) { return side.shown_epoch == lease.epoch; }),
                           record.sides.end());
      }
      WriteHead(record, version, request);
    } else {
      record.sides.push_back({version, request.payload()});
    }
    lease.state = LeaseState::kAnswered;
    lease.answer_version = version;
    lease.answer_side = !as_head;
    lease.answer = request.payload();
    response.set_version(version);
    response.set_side(!as_head);
    return response;
  }

  const Clock& clock_;
  Mutex mu_;
  std::map<std::string, Record> records_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Lease> leases_ ABSL_GUARDED_BY(mu_);
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  bool adopted_ ABSL_GUARDED_BY(mu_) = false;
  int data_key_ ABSL_GUARDED_BY(mu_) = 1;
  bool hang_ ABSL_GUARDED_BY(mu_) = false;
  int hanging_ ABSL_GUARDED_BY(mu_) = 0;
  std::condition_variable_any changed_;
  int puts_fail_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status put_failure_ ABSL_GUARDED_BY(mu_);
  std::set<std::string> refused_passports_ ABSL_GUARDED_BY(mu_);
  int leases_given_ ABSL_GUARDED_BY(mu_) = 0;
  int gets_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::token_broker::testing
