// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/fakes/fake_vault.h"

#include <algorithm>

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/proto_time.h"
#include "tests/testing/fakes/fake_vault_rules.h"
#include "tests/testing/fakes/passport.h"

namespace sallyport::testing {

using vault::v1::RecordName;
using namespace vault_rules;  // NOLINT(google-build-using-namespace): they are this file's, shared with its parts.

absl::Status FakeVault::Down() {
  return WithRetryAfter(WithReason(absl::UnavailableError("the vault is sealed: by a test"), "vault_sealed"),
                        absl::Seconds(1));
}

// --- Who may do what ---

bool FakeVault::MayKind(const std::string& service, Operation operation, const std::string& kind,
                        vault::v1::OwnerType owner) {
  const bool owned = operation == Operation::kGet || operation == Operation::kPut || operation == Operation::kDelete ||
                     operation == Operation::kList;
  if (service == "token_broker") {
    if (kind == "connection" && (operation == Operation::kOwe || operation == Operation::kRename)) return true;
    if (kind == "connection" || kind == "link_flow" || kind == "broker_key") {
      return owned || operation == Operation::kLease;
    }
    if (kind == "revocation") {
      return operation == Operation::kDelete || operation == Operation::kList || operation == Operation::kLease;
    }
    if (kind == "credential" && owner != vault::v1::ORG) return owned && owner == vault::v1::USER;
    return operation == Operation::kGet && kind != "signing_key" && kind != "session_key";
  }
  if (service == "authn")
    return owned && (kind == "signing_key" || kind == "session_key" || kind == "connector_secret");
  if (service != "registry") return false;
  const bool written = IsBinding(kind) || kind == "server_secret" || kind == "app_secret" ||
                       (kind == "credential" && owner == vault::v1::ORG);
  return written && operation != Operation::kGet && operation != Operation::kLease && operation != Operation::kOwe &&
         operation != Operation::kRename;
}

absl::Status FakeVault::Admit(const Caller& caller, const std::string& method) const {
  RETURN_IF_ERROR(error_);
  const auto callers = kCallers.find(method);
  if (callers == kCallers.end() || !callers->second.contains(caller.service)) {
    return Denied("this service may not call this method", "service_not_allowed");
  }
  return PassportOf(caller).status();
}

absl::StatusOr<std::optional<Passport>> FakeVault::PassportOf(const Caller& caller) const {
  if (caller.passport.empty()) return std::nullopt;
  if (refused_passports_.contains(caller.passport)) {
    return WithReason(absl::UnauthenticatedError("passport refused: it has expired"), "bad_passport");
  }
  ASSIGN_OR_RETURN(Passport passport, ReadFakePassport(caller.passport, clock_.Now()));
  return std::optional<Passport>(std::move(passport));
}

absl::Status FakeVault::CheckKind(const Caller& caller, Operation operation, const RecordName& name) const {
  RETURN_IF_ERROR(PassportOf(caller).status());
  return MayKind(caller.service, operation, name.kind(), name.owner_type()) ? absl::OkStatus() : ServiceMayNot();
}

absl::Status FakeVault::CheckAccess(const Caller& caller, Operation operation, const RecordName& name) const {
  RETURN_IF_ERROR(CheckKind(caller, operation, name));
  if (operation == Operation::kRebind) return CheckRole(caller, "credential-admin");
  if (operation == Operation::kPut && IsBinding(name.kind())) return CheckRole(caller, "admin");
  if (name.kind() == "revocation" && operation == Operation::kLease) return ServiceMayNot();
  if (name.owner_type() != vault::v1::USER) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  if (!passport.has_value()) return PassportRequired();
  return CheckUserRecord(*passport, operation, name);
}

absl::Status FakeVault::CheckUserRecord(const Passport& passport, Operation operation, const RecordName& name) {
  using Purpose = Passport::Purpose;
  const bool written = operation == Operation::kPut || operation == Operation::kDelete;
  const std::string& subject = passport.subject;
  if (name.kind() == "credential" && written && passport.HasRole("credential-admin")) return absl::OkStatus();
  switch (passport.purpose) {
    case Purpose::kEnd:
      return operation == Operation::kOwe && Names(passport.end, name) ? absl::OkStatus() : ForSomethingElse();
    case Purpose::kSignIn:
      return operation == Operation::kPut && name.kind() == "connection" && subject == name.owner_id() &&
                     name.name() == absl::StrCat("sso:", subject.substr(0, subject.find(':')))
                 ? absl::OkStatus()
                 : ForSomethingElse();
    case Purpose::kPlatform:
      if (!IsPlatforms(name) || operation == Operation::kRename) return ForSomethingElse();
      break;
    case Purpose::kCall:
      if ((name.kind() == "credential" && written) || operation == Operation::kRename) return ForSomethingElse();
      break;
    case Purpose::kLink:
      if (operation == Operation::kRename) return ForSomethingElse();
      break;
    case Purpose::kApi:
      break;
  }
  return subject == name.owner_id() ? absl::OkStatus() : ForSomethingElse();
}

absl::Status FakeVault::CheckOwner(const Caller& caller, vault::v1::OwnerType type, const std::string& id,
                                   bool admin_may) const {
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  if (type != vault::v1::USER) return absl::OkStatus();
  if (!passport.has_value()) return PassportRequired();
  const bool owners = passport->purpose != Passport::Purpose::kEnd && passport->purpose != Passport::Purpose::kSignIn;
  const bool allowed = (owners && passport->subject == id) || (admin_may && passport->HasRole("admin"));
  return allowed ? absl::OkStatus() : ForSomethingElse();
}

absl::Status FakeVault::CheckRole(const Caller& caller, absl::string_view role) const {
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  if (!passport.has_value()) return Denied("this needs a passport", "passport_required");
  return passport->HasRole(role) ? absl::OkStatus() : Denied("this needs an administrator's passport", "role_missing");
}

// --- Rows ---

const FakeVault::Row* FakeVault::FindRow(const RecordName& name) const {
  const auto found = rows_.find(KeyOf(name));
  return found == rows_.end() ? nullptr : &found->second;
}

FakeVault::Row* FakeVault::FindLive(const RecordName& name) {
  const auto found = rows_.find(KeyOf(name));
  return found == rows_.end() || found->second.head == 0 ? nullptr : &found->second;
}

FakeVault::Row& FakeVault::RowFor(const RecordName& name) {
  Row& row = rows_[KeyOf(name)];
  row.name = name;
  return row;
}

vault::v1::RecordMetadata FakeVault::Metadata(const Row& row) {
  vault::v1::RecordMetadata metadata;
  *metadata.mutable_record() = row.name;
  metadata.set_head(row.head);
  metadata.set_generation(row.generation);
  metadata.set_epoch(row.epoch);
  metadata.set_state(row.state);
  metadata.set_reason(row.reason);
  metadata.mutable_labels()->insert(row.labels.begin(), row.labels.end());
  if (row.backoff_until != absl::InfinitePast()) *metadata.mutable_backoff_until() = ToTimestamp(row.backoff_until);
  if (row.next_at != absl::InfinitePast()) *metadata.mutable_next_at() = ToTimestamp(row.next_at);
  if (row.used_at != absl::InfinitePast()) *metadata.mutable_used_at() = ToTimestamp(row.used_at);
  if (row.updated_at != absl::InfinitePast()) *metadata.mutable_updated_at() = ToTimestamp(row.updated_at);
  return metadata;
}

FakeVault::Value FakeVault::ValueOf(const vault::v1::PutRequest& request) {
  Value value;
  value.version.payload = request.payload();
  value.version.origins = {request.origins().begin(), request.origins().end()};
  value.version.labels = {request.labels().begin(), request.labels().end()};
  value.version.pinned = request.pin();
  if (request.has_next_at()) value.next_at = FromTimestamp(request.next_at());
  value.state = request.state();
  return value;
}

void FakeVault::WriteHead(Row& row, int64_t version, Value value) {
  DataKey& key = data_keys_[{row.name.owner_type(), row.name.owner_id()}];
  if (key.version == 0 || key.destroyed) key = {key.version + 1, false};
  row.head = version;
  row.last_version = std::max(row.last_version, version);
  row.state = value.state.empty() ? "OK" : value.state;
  row.reason.clear();
  row.backoff_until = absl::InfinitePast();
  row.next_at = value.next_at;
  row.listed_until = absl::InfinitePast();
  row.damaged = false;
  row.labels = value.version.labels;
  row.updated_at = clock_.Now();
  row.versions[version] = std::move(value.version);
  ++writes_;
  changed_.notify_all();
  Prune(row);
}

void FakeVault::Prune(Row& row) {
  size_t kept = 0;
  std::vector<int64_t> pruned;
  for (auto version = row.versions.rbegin(); version != row.versions.rend(); ++version) {
    if (version->second.pinned) continue;
    if (++kept > VersionsKept(row.name) && version->first != row.head) pruned.push_back(version->first);
  }
  for (const int64_t version : pruned) row.versions.erase(version);
}

void FakeVault::BeginGeneration(Row& row) {
  ++row.generation;
  row.claim_until = absl::InfinitePast();
  row.sides.clear();
}

void FakeVault::Tombstone(Row& row) {
  row.versions.clear();
  row.sides.clear();
  row.labels.clear();
  ++row.generation;
  row.head = 0;
  row.state = "DELETED";
  row.reason.clear();
  row.backoff_until = row.next_at = row.claim_until = row.listed_until = row.used_at = absl::InfinitePast();
  row.damaged = false;
  row.updated_at = clock_.Now();
}

// --- Records ---

absl::StatusOr<vault::v1::PutResponse> FakeVault::Put(const Caller& caller, const vault::v1::PutRequest& request) {
  MutexLock lock(mu_);
  ++puts_;
  RETURN_IF_ERROR(Admit(caller, "Put"));
  if (puts_fail_ > 0) {
    --puts_fail_;
    return put_failure_;
  }
  RETURN_IF_ERROR(CheckPut(request));
  const RecordName& name = request.record();
  if (!request.lease().empty()) {
    RETURN_IF_ERROR(CheckKind(caller, Operation::kLease, name));
    RETURN_IF_ERROR(CheckKind(caller, Operation::kPut, name));
    return PutLeased(caller, request);
  }
  RETURN_IF_ERROR(CheckAccess(caller, Operation::kPut, name));
  ASSIGN_OR_RETURN(const bool of_before, IsOfBeforeEnd(caller, name));
  if (of_before) {
    if (name.kind() != "connection" || request.keep_generation()) {
      return Denied("everything of this user was ended", "user_ended");
    }
    return OweUnstored(name, request);
  }
  Row* live = FindLive(name);
  const int64_t head = live == nullptr ? 0 : live->head;
  if (request.has_expected_version() && request.expected_version() != head) return VersionConflict();
  if (name.kind() == "app_binding" && head != 0) RETURN_IF_ERROR(CheckAccess(caller, Operation::kRebind, name));

  vault::v1::PutResponse response;
  if (request.only_if_changed() && live != nullptr) {
    const auto base = live->versions.find(request.has_compare_version() ? request.compare_version() : head);
    if (base != live->versions.end() && base->second.bound && base->second.payload == request.payload() &&
        std::equal(base->second.origins.begin(), base->second.origins.end(), request.origins().begin(),
                   request.origins().end())) {
      base->second.pinned = base->second.pinned || request.pin();
      live->written_with = caller.passport;
      response.set_version(base->first);
      response.set_generation(live->generation);
      response.set_unchanged(true);
      return response;
    }
  }
  if (name.kind() == "link_flow") {
    std::erase_if(rows_, [&](const auto& row) {
      return row.second.name.kind() == "link_flow" && row.second.next_at != absl::InfinitePast() &&
             row.second.next_at <= clock_.Now() - kFlowGrace;
    });
  }
  Row& row = RowFor(name);
  if (!request.keep_generation() || row.generation == 0) BeginGeneration(row);
  Value value = ValueOf(request);
  value.version.bound = adopted_ || !request.origins().empty() || !IsSent(name.kind());
  if (row.name.kind() == "connection" && (!request.keep_generation() || row.used_at == absl::InfinitePast())) {
    row.used_at = clock_.Now();
  }
  WriteHead(row, row.last_version + 1, std::move(value));
  row.written_with = caller.passport;
  response.set_version(row.head);
  response.set_generation(row.generation);
  return response;
}

absl::StatusOr<vault::v1::GetResponse> FakeVault::Get(const Caller& caller, const vault::v1::GetRequest& request) {
  MutexLock lock(mu_);
  ++gets_;
  ++hanging_;
  while (hang_) changed_.wait(mu_);
  --hanging_;
  RETURN_IF_ERROR(Admit(caller, "Get"));
  RETURN_IF_ERROR(CheckName(request.record()));
  RETURN_IF_ERROR(CheckAccess(caller, Operation::kGet, request.record()));
  Row* row = FindLive(request.record());
  if (row == nullptr) {
    return IsBinding(request.record().kind()) && !adopted_ ? WithReason(NotFound(), "adoption_pending") : NotFound();
  }
  const auto version = row->versions.find(request.version() == 0 ? row->head : request.version());
  if (version == row->versions.end()) return NotFound();
  if (row->damaged) return TagMismatch();
  vault::v1::GetResponse response;
  response.set_payload(version->second.payload);
  response.set_version(version->first);
  *response.mutable_metadata() = Metadata(*row);
  response.set_bound(vault::v1::BOUND);
  if (version->second.bound) {
    response.mutable_origins()->Assign(version->second.origins.begin(), version->second.origins.end());
  } else {
    const bool pending = !adopted_ || request.record().kind() == "connector_secret";
    response.set_bound(pending ? vault::v1::ADOPTION_PENDING : vault::v1::UNBOUND);
  }
  NoteUse(caller, *row);
  return response;
}

void FakeVault::NoteUse(const Caller& caller, Row& row) {
  const auto passport = PassportOf(caller);
  const bool used =
      row.name.kind() == "connection" && passport.ok() && passport->has_value() &&
      (*passport)->subject == row.name.owner_id() &&
      ((*passport)->purpose == Passport::Purpose::kCall || (*passport)->purpose == Passport::Purpose::kPlatform);
  if (used && row.used_at <= clock_.Now() - kUseNoted) row.used_at = clock_.Now();
}

absl::StatusOr<vault::v1::ListResponse> FakeVault::List(const Caller& caller, const vault::v1::ListRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "List"));
  RETURN_IF_ERROR(CheckOwnerName(request.owner_type(), request.owner_id()));
  RETURN_IF_ERROR(PassportOf(caller).status());
  if (request.limit() < 0) return InvalidField("limit", "must not be negative");
  if (!request.app_uid().empty() && request.kind() != "revocation") return InvalidField("app_uid", "needs revocation");
  if (request.owner_type() == vault::v1::SYSTEM && request.owner_id() != caller.service) return ServiceMayNot();
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  const bool users = request.owner_type() == vault::v1::USER && passport.has_value();
  if (users && passport->purpose == Passport::Purpose::kEnd) {
    if (passport->end.subject != request.owner_id()) return ForSomethingElse();
  } else {
    RETURN_IF_ERROR(CheckOwner(caller, request.owner_type(), request.owner_id(), true));
  }
  if (users && passport->purpose == Passport::Purpose::kPlatform && !request.kind().empty() &&
      request.kind() != "connection") {
    return ForSomethingElse();
  }
  if (!request.kind().empty() && !MayKind(caller.service, Operation::kList, request.kind(), request.owner_type()))
    return ServiceMayNot();
  vault::v1::ListResponse response;
  for (const auto& [key, row] : rows_) {
    ASSIGN_OR_RETURN(const bool visible, MaySee(caller, row.name));
    const auto app = row.labels.find("app_uid");
    if (row.head != 0 && row.name.owner_type() == request.owner_type() && row.name.owner_id() == request.owner_id() &&
        (request.kind().empty() || request.kind() == row.name.kind()) && visible &&
        row.name.name().compare(0, request.name_prefix().size(), request.name_prefix()) == 0 &&
        (request.app_uid().empty() || (app != row.labels.end() && app->second == request.app_uid())) &&
        (request.limit() == 0 || response.records_size() < request.limit())) {
      *response.add_records() = Metadata(row);
    }
  }
  return response;
}

absl::StatusOr<vault::v1::DeleteResponse> FakeVault::Delete(const Caller& caller,
                                                            const vault::v1::DeleteRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "Delete"));
  const RecordName& name = request.record();
  RETURN_IF_ERROR(CheckName(name));
  if (IsPartial(request) && (request.has_expected_version() || !request.lease().empty())) {
    return InvalidField("through_version", "cannot be combined with expected_version or lease");
  }
  const bool leased = !request.lease().empty();
  RETURN_IF_ERROR(leased ? CheckKind(caller, Operation::kLease, name) : CheckAccess(caller, Operation::kDelete, name));
  if (IsPartial(request)) RETURN_IF_ERROR(CheckAccess(caller, Operation::kPin, name));
  if (leased) {
    ASSIGN_OR_RETURN(const auto held, FindHeld(caller, name, request.lease()));
    RETURN_IF_ERROR(CheckCurrent(*held.first, *held.second));
  }
  const auto found = rows_.find(KeyOf(name));
  vault::v1::DeleteResponse response;
  if (IsPartial(request) && found != rows_.end() && found->second.head != 0) {
    Row& row = found->second;
    const size_t erased = std::erase_if(row.versions, [&](const auto& version) {
      if (request.has_through_version() && version.first > request.through_version()) return false;
      return std::all_of(request.labels().begin(), request.labels().end(), [&](const auto& label) {
        const auto has = version.second.labels.find(label.first);
        return has != version.second.labels.end() && has->second == label.second;
      });
    });
    if (erased > 0 && row.versions.empty()) {
      Tombstone(row);
    } else if (erased > 0) {
      row.head = row.versions.rbegin()->first;
      row.labels = row.versions.rbegin()->second.labels;
      row.updated_at = clock_.Now();
    }
    response.set_generation(row.generation);
    return response;
  }
  const int64_t head = found == rows_.end() ? 0 : found->second.head;
  if (request.has_expected_version() && request.expected_version() != head) return VersionConflict();
  if (found == rows_.end()) return NotFound();
  response.set_generation(found->second.generation);
  if (head == 0) return response;
  if (name.kind() == "link_flow" || name.kind() == "revocation") {
    std::erase_if(leases_, [&](const auto& lease) { return lease.second.record == found->first; });
    rows_.erase(found);
    return response;
  }
  Tombstone(found->second);
  response.set_generation(found->second.generation);
  return response;
}

absl::StatusOr<vault::v1::PinResponse> FakeVault::Pin(const Caller& caller, const vault::v1::PinRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "Pin"));
  RETURN_IF_ERROR(CheckName(request.record()));
  RETURN_IF_ERROR(CheckAccess(caller, Operation::kPin, request.record()));
  Row* row = FindLive(request.record());
  if (row == nullptr || !row->versions.contains(request.version())) return NotFound();
  bool& pinned = row->versions[request.version()].pinned;
  if (pinned != request.pinned()) {
    pinned = request.pinned();
    Prune(*row);
  }
  return vault::v1::PinResponse();
}

absl::StatusOr<vault::v1::RebindResponse> FakeVault::Rebind(const Caller& caller,
                                                            const vault::v1::RebindRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "Rebind"));
  RETURN_IF_ERROR(CheckName(request.record()));
  RETURN_IF_ERROR(CheckOrigins(request.origins()));
  RETURN_IF_ERROR(CheckAccess(caller, Operation::kRebind, request.record()));
  Row* row = FindLive(request.record());
  if (row == nullptr || !row->versions.contains(request.version())) return NotFound();
  Value value;
  value.version.payload = row->versions[request.version()].payload;
  value.version.origins = {request.origins().begin(), request.origins().end()};
  value.version.labels = {request.labels().begin(), request.labels().end()};
  value.version.pinned = true;
  value.next_at = row->next_at;
  value.state = row->state;
  WriteHead(*row, row->last_version + 1, std::move(value));
  row->written_with = caller.passport;
  vault::v1::RebindResponse response;
  response.set_version(row->head);
  return response;
}

absl::StatusOr<vault::v1::AdoptResponse> FakeVault::Adopt(const Caller& caller,
                                                          const vault::v1::AdoptRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "Adopt"));
  if (request.entries_size() > kMaxAdopted) return InvalidField("entries", "are more than 200");
  for (const auto& entry : request.entries()) {
    RETURN_IF_ERROR(CheckName(entry.record()));
    RETURN_IF_ERROR(CheckOrigins(entry.origins()));
    RETURN_IF_ERROR(CheckKind(caller, Operation::kRebind, entry.record()));
    if (entry.version() == 0 && !IsBinding(entry.record().kind())) {
      return InvalidField("entries.version", "must name a version of what is no binding");
    }
  }
  if (adopted_) {
    return WithReason(absl::FailedPreconditionError("everything that an earlier release stored has been adopted"),
                      "adopted");
  }
  vault::v1::AdoptResponse response;
  for (const auto& entry : request.entries()) {
    ASSIGN_OR_RETURN(const int64_t version, AdoptOne(entry));
    response.add_versions(version);
  }
  adopted_ = request.complete();
  return response;
}

absl::StatusOr<int64_t> FakeVault::AdoptOne(const vault::v1::AdoptRequest::Entry& entry) {
  Row* row = FindLive(entry.record());
  if (IsBinding(entry.record().kind()) && entry.version() == 0) {
    if (row != nullptr) return row->head;
    Row& made = RowFor(entry.record());
    BeginGeneration(made);
    Value value;
    value.version.payload = RandomBytes(16);
    value.version.origins = {entry.origins().begin(), entry.origins().end()};
    value.version.pinned = true;
    WriteHead(made, made.last_version + 1, std::move(value));
    return made.head;
  }
  if (row == nullptr || !row->versions.contains(entry.version())) return 0;
  Version& version = row->versions[entry.version()];
  if (!version.bound) {
    version.bound = true;
    version.origins = {entry.origins().begin(), entry.origins().end()};
  }
  return entry.version();
}

absl::StatusOr<vault::v1::DeleteOwnerResponse> FakeVault::DeleteOwner(const Caller& caller,
                                                                      const vault::v1::DeleteOwnerRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "DeleteOwner"));
  RETURN_IF_ERROR(CheckOwnerName(request.owner_type(), request.owner_id()));
  if (request.owner_type() != vault::v1::USER) return ServiceMayNot();
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  if (passport.has_value() && passport->purpose == Passport::Purpose::kEnd) {
    if (!NamesAllOf(passport->end, request.owner_id())) return ForSomethingElse();
  } else {
    RETURN_IF_ERROR(CheckOwner(caller, request.owner_type(), request.owner_id(), true));
    if (passport.has_value() && passport->purpose == Passport::Purpose::kPlatform) return ForSomethingElse();
  }
  std::vector<Row*> rows;
  for (auto& [key, row] : rows_) {
    if (row.name.owner_type() == vault::v1::USER && row.name.owner_id() == request.owner_id()) rows.push_back(&row);
  }
  vault::v1::DeleteOwnerResponse response;
  for (Row* row : rows) {
    if (row->name.kind() == "connection" && row->head != 0) {
      Owe(*row, /*awaited=*/true, *response.mutable_owed());
    } else {
      Tombstone(*row);
    }
  }
  if (const auto key = data_keys_.find({vault::v1::USER, request.owner_id()}); key != data_keys_.end()) {
    key->second.destroyed = true;
  }
  if (passport.has_value() && passport->purpose == Passport::Purpose::kEnd) {
    absl::Time& ended = ended_.try_emplace(request.owner_id(), passport->issued_at).first->second;
    ended = std::max(ended, passport->issued_at);
  }
  return response;
}

absl::StatusOr<vault::v1::GetCacheRootsResponse> FakeVault::GetCacheRoots(
    const Caller& caller, const vault::v1::GetCacheRootsRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "GetCacheRoots"));
  RETURN_IF_ERROR(CheckOwnerName(request.owner_type(), request.owner_id()));
  if (request.owner_type() == vault::v1::SYSTEM) return ServiceMayNot();
  RETURN_IF_ERROR(CheckOwner(caller, request.owner_type(), request.owner_id(), false));
  DataKey& key = data_keys_[{request.owner_type(), request.owner_id()}];
  if (key.version == 0 || key.destroyed) {
    if (request.owner_type() == vault::v1::USER) return NotFound();
    key = {key.version + 1, false};
  }
  vault::v1::GetCacheRootsResponse response;
  const int64_t today = absl::ToUnixSeconds(clock_.Now()) / 86400;
  for (const int64_t day : {today, today - 1}) {
    auto& root = *response.add_roots();
    root.set_day(day);
    root.set_root(Sha256(absl::StrCat(request.owner_type(), " ", request.owner_id(), " ", key.version, " ", day)));
    root.set_key_version(key.version);
  }
  return response;
}

}  // namespace sallyport::testing
