// SPDX-License-Identifier: Apache-2.0
// What FakeVault does when connections end or change their names, and what is due.
#include <algorithm>

#include "absl/strings/match.h"

#include "common/crypto/crypto.h"
#include "common/proto_time.h"
#include "common/text/hex.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/fake_vault_rules.h"

namespace sallyport::testing {

using vault::v1::RecordName;
using namespace vault_rules;  // NOLINT(google-build-using-namespace): they are this file's, shared with its parts.

// --- Who may ---

bool FakeVault::Names(const Passport::End& end, const RecordName& name) {
  const bool connection = name.kind() == "connection";
  return (!end.subject.empty() || !end.app_uid.empty()) && (end.subject.empty() || end.subject == name.owner_id()) &&
         (end.app_uid.empty() || (connection && end.app_uid == AppOf(name))) &&
         (end.label == "*" || (connection && end.label == AccountOf(name)));
}

bool FakeVault::NamesAllOf(const Passport::End& end, const std::string& subject) {
  return !subject.empty() && end.subject == subject && end.app_uid.empty() && end.label == "*";
}

absl::StatusOr<bool> FakeVault::MaySee(const Caller& caller, const RecordName& name) const {
  if (!MayKind(caller.service, Operation::kList, name.kind(), name.owner_type())) return false;
  if (name.owner_type() != vault::v1::USER) return true;
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  if (!passport.has_value()) return false;
  if (passport->purpose == Passport::Purpose::kEnd) return Names(passport->end, name);
  return passport->purpose != Passport::Purpose::kPlatform || IsPlatforms(name);
}

absl::Status FakeVault::CheckOwe(const Caller& caller, const vault::v1::OweRevocationRequest& request) const {
  if (!request.lease().empty()) return CheckKind(caller, Operation::kLease, request.record());
  if (request.has_record()) return CheckAccess(caller, Operation::kOwe, request.record());
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  if (!passport.has_value()) return PassportRequired();
  if (passport->purpose != Passport::Purpose::kEnd) return ForSomethingElse();
  const Passport::End& end = passport->end;
  const bool named = request.owner_id().empty()
                         ? end.subject.empty() && end.app_uid == request.app_uid() && end.label == "*"
                         : NamesAllOf(end, request.owner_id());
  return named ? absl::OkStatus() : ForSomethingElse();
}

bool FakeVault::IsAppGone(const std::string& app_uid) const {
  if (app_uid.empty() || absl::StartsWith(app_uid, "sso:") || !adopted_) return false;
  RecordName binding;
  binding.set_owner_type(vault::v1::ORG);
  binding.set_owner_id("default");
  binding.set_kind("app_binding");
  binding.set_name(absl::StrCat(app_uid, "/binding"));
  const Row* row = FindRow(binding);
  return row == nullptr || row->head == 0;
}

// --- OweRevocation ---

absl::StatusOr<vault::v1::OweRevocationResponse> FakeVault::OweRevocation(
    const Caller& caller, const vault::v1::OweRevocationRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "OweRevocation"));
  const int named =
      (request.has_record() ? 1 : 0) + (request.owner_id().empty() ? 0 : 1) + (request.app_uid().empty() ? 0 : 1);
  if (named != 1) return InvalidField("record", "must be given, or else owner_id or app_uid");
  if (!request.has_record() && (!request.lease().empty() || request.has_expected_version())) {
    return InvalidField("lease", "needs a record");
  }
  if (request.has_record()) {
    RETURN_IF_ERROR(CheckName(request.record()));
    if (request.record().kind() != "connection") return InvalidField("record.kind", "must be connection");
  }
  const std::string app = request.has_record() ? AppOf(request.record()) : request.app_uid();
  const absl::Status allowed = CheckOwe(caller, request);
  if (!allowed.ok() && !IsAppGone(app)) return allowed;
  ASSIGN_OR_RETURN(const std::vector<Row*> rows, FindToOwe(caller, request));
  vault::v1::OweRevocationResponse response;
  const bool awaited = allowed.ok() && request.lease().empty();
  for (size_t i = 0; i < rows.size() && i < kOwedPart; ++i) Owe(*rows[i], awaited, *response.mutable_owed());
  response.set_more(rows.size() > kOwedPart);
  ++writes_;
  changed_.notify_all();
  return response;
}

absl::StatusOr<std::vector<FakeVault::Row*>> FakeVault::FindToOwe(const Caller& caller,
                                                                  const vault::v1::OweRevocationRequest& request) {
  std::vector<Row*> rows;
  if (!request.has_record()) {
    for (auto& [key, row] : rows_) {
      const bool wanted =
          request.owner_id().empty() ? AppOf(row.name) == request.app_uid() : row.name.owner_id() == request.owner_id();
      if (row.name.kind() == "connection" && row.head != 0 && wanted) rows.push_back(&row);
    }
    return rows;
  }
  std::optional<std::pair<Row*, Lease*>> held;
  if (!request.lease().empty()) {
    ASSIGN_OR_RETURN(held, FindHeld(caller, request.record(), request.lease()));
  }
  Row* row = FindLive(request.record());
  if (request.has_expected_version() && request.expected_version() != (row == nullptr ? 0 : row->head)) {
    return VersionConflict();
  }
  if (row == nullptr) return rows;
  if (held.has_value()) RETURN_IF_ERROR(CheckCurrent(*held->first, *held->second));
  rows.push_back(row);
  return rows;
}

RecordName FakeVault::RevocationOf(const RecordName& connection, int64_t generation, int64_t number) {
  RecordName revocation;
  revocation.set_owner_type(vault::v1::SYSTEM);
  revocation.set_owner_id("token_broker");
  revocation.set_kind("revocation");
  revocation.set_name(absl::StrCat(HexEncode(Sha256(connection.owner_id())), ":", connection.name(), ":", generation));
  if (number != 0) absl::StrAppend(revocation.mutable_name(), ":", number);
  return revocation;
}

const FakeVault::Row& FakeVault::MakeRevocation(const RecordName& name, const RecordName& connection, Version token,
                                                const std::string& since) {
  Row& owed = RowFor(name);
  owed.generation = 1;
  Value value;
  value.version = std::move(token);
  value.version.pinned = false;
  value.version.labels.erase("revoke_since");
  value.version.labels["app_uid"] = AppOf(connection);
  value.version.labels["subject"] = connection.owner_id();
  value.version.labels["connection"] = connection.name();
  value.version.labels["since"] = since;
  value.next_at = clock_.Now();
  value.state = "OWED";
  WriteHead(owed, 1, std::move(value));
  return owed;
}

void FakeVault::Owe(Row& row, bool awaited, OwedList& owed) {
  struct Token {
    Version version;
    int64_t number = 0;
  };
  std::vector<Token> tokens;
  const bool damaged = row.damaged;
  if (!damaged && !row.versions[row.head].payload.empty()) tokens.push_back({row.versions[row.head], 0});
  for (auto side = row.sides.rbegin(); side != row.sides.rend(); ++side) {
    Token token = {{}, side->version};
    token.version.payload = side->payload;
    token.version.labels = side->labels;
    if (!side->payload.empty()) tokens.push_back(std::move(token));
  }
  const int64_t generation = row.generation;
  const auto since = row.labels.find("revoke_since");
  const std::string owed_since = row.state == "REVOKE_PENDING" && since != row.labels.end()
                                     ? since->second
                                     : absl::FormatTime(absl::RFC3339_full, clock_.Now(), absl::UTCTimeZone());
  Tombstone(row);
  const auto add = [&] {
    auto* out = owed.Add();
    *out->mutable_connection() = row.name;
    out->set_generation(row.generation);
    return out;
  };
  for (Token& token : tokens) {
    const RecordName name = RevocationOf(row.name, generation, token.number);
    *add()->mutable_revocation() = Metadata(MakeRevocation(name, row.name, std::move(token.version), owed_since));
    if (awaited) RowFor(name).listed_until = clock_.Now() + kAwaited;
  }
  if (damaged || tokens.empty()) add()->set_damaged(damaged);
}

absl::StatusOr<bool> FakeVault::IsOfBeforeEnd(const Caller& caller, const RecordName& name) const {
  ASSIGN_OR_RETURN(const auto passport, PassportOf(caller));
  const auto ended = ended_.find(name.owner_id());
  return name.owner_type() == vault::v1::USER && passport.has_value() && passport->subject == name.owner_id() &&
         ended != ended_.end() && passport->issued_at <= ended->second &&
         passport->issued_at != absl::InfinitePast();  // Fake passports do not say when they were made.
}

vault::v1::PutResponse FakeVault::OweUnstored(const RecordName& connection, const vault::v1::PutRequest& request) {
  vault::v1::PutResponse response;
  auto& owed = *response.mutable_owed();
  *owed.mutable_connection() = connection;
  if (request.payload().empty()) {
    const Row* found = FindRow(connection);
    owed.set_generation(found == nullptr ? 0 : found->generation);
    response.set_generation(owed.generation());
    return response;
  }
  Row& row = RowFor(connection);
  const bool live = row.head != 0;
  if (!live) ++row.generation;
  Version token;
  token.payload = request.payload();
  token.labels = {request.labels().begin(), request.labels().end()};
  const RecordName name = RevocationOf(connection, live ? row.generation - 1 : row.generation, ++row.last_version);
  *owed.mutable_revocation() = Metadata(MakeRevocation(
      name, connection, std::move(token), absl::FormatTime(absl::RFC3339_full, clock_.Now(), absl::UTCTimeZone())));
  if (!live) Tombstone(row);
  owed.set_generation(row.generation);
  response.set_generation(row.generation);
  return response;
}

vault::v1::PutResponse FakeVault::OweLate(Row& row, Lease& lease, const vault::v1::PutRequest& request) {
  vault::v1::PutResponse response;
  response.set_generation(row.generation);
  auto& owed = *response.mutable_owed();
  *owed.mutable_connection() = row.name;
  owed.set_generation(row.generation);
  if (request.payload().empty()) return response;
  int64_t number = lease.version;
  if (lease.state == LeaseState::kAnswered) {
    const Row* repeated = FindRow(RevocationOf(row.name, lease.generation, lease.answer_version));
    if (repeated != nullptr && repeated->head != 0 &&
        repeated->versions.at(repeated->head).payload == request.payload()) {
      *owed.mutable_revocation() = Metadata(*repeated);
      return response;
    }
    number = ++row.last_version;
  }
  Version token;
  token.payload = request.payload();
  token.labels = {request.labels().begin(), request.labels().end()};
  *owed.mutable_revocation() =
      Metadata(MakeRevocation(RevocationOf(row.name, lease.generation, number), row.name, std::move(token),
                              absl::FormatTime(absl::RFC3339_full, clock_.Now(), absl::UTCTimeZone())));
  lease.state = LeaseState::kAnswered;
  lease.answer_version = number;
  lease.answer_side = true;
  lease.answer = request.payload();
  return response;
}

// --- Rename ---

absl::StatusOr<vault::v1::RenameResponse> FakeVault::Rename(const Caller& caller,
                                                            const vault::v1::RenameRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "Rename"));
  RETURN_IF_ERROR(CheckName(request.record()));
  RecordName renamed = request.record();
  renamed.set_name(request.new_name());
  if (renamed.kind() != "connection" || absl::StartsWith(request.record().name(), "sso:") || renamed.name().empty() ||
      AppOf(renamed) != AppOf(request.record())) {
    return InvalidField("new_name", "must be a name of the same app");
  }
  RETURN_IF_ERROR(CheckAccess(caller, Operation::kRename, request.record()));
  Row* from = FindLive(request.record());
  if (from == nullptr) return NotFound();
  if (request.has_expected_version() && request.expected_version() != from->head) return VersionConflict();
  if (FindLive(renamed) != nullptr) return absl::AlreadyExistsError("there is a record of that name");
  if (from->claim_until != absl::InfinitePast() && from->claim_until + kLate > clock_.Now()) {
    return Aborted("a lease of the record is held; try again", "leased");
  }
  Row& to = RowFor(renamed);
  const Row before = to;
  to = *from;
  to.name = renamed;
  to.generation = std::max(from->generation, before.generation) + 1;
  to.epoch = std::max(from->epoch, before.epoch);
  const int64_t shift = before.last_version;
  to.last_version += shift;
  to.head += shift;
  to.versions.clear();
  for (const auto& [number, version] : from->versions) to.versions[number + shift] = version;
  for (Side& side : to.sides) {
    side.version += shift;
    side.shown_epoch = 0;
  }
  to.claim_until = absl::InfinitePast();
  to.labels = {request.labels().begin(), request.labels().end()};
  to.versions[to.head].labels = to.labels;
  to.updated_at = clock_.Now();
  Tombstone(*from);
  vault::v1::RenameResponse response;
  response.set_version(to.head);
  response.set_generation(to.generation);
  return response;
}

// --- What is due ---

absl::StatusOr<vault::v1::ListDueResponse> FakeVault::ListDue(const Caller& caller,
                                                              const vault::v1::ListDueRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "ListDue"));
  if (request.limit() < 0 || request.limit() > 200) return InvalidField("limit", "must be 0 to 200");
  if (request.kinds().empty() || request.kinds_size() > 20) return InvalidField("kinds", "must name 1 to 20 kinds");
  if (request.without_apps_size() > 1000) return InvalidField("without_apps", "are more than 1000");
  const absl::Duration claim = absl::Seconds(request.claim().seconds()) + absl::Nanoseconds(request.claim().nanos());
  if (claim < absl::ZeroDuration() || claim > kMaxClaim) return InvalidField("claim", "must be at most 5 min");
  for (const std::string& kind : request.kinds()) {
    if (!MayKind(caller.service, Operation::kList, kind, vault::v1::OWNER_TYPE_UNSPECIFIED)) return ServiceMayNot();
  }
  const absl::Time now = clock_.Now();
  const auto left_out = [&](const Row& row) {
    const auto label = row.labels.find("app_uid");
    const std::string app = row.name.kind() == "connection" ? AppOf(row.name)
                            : label == row.labels.end()     ? ""
                                                            : label->second;
    return std::count(request.without_apps().begin(), request.without_apps().end(), app) > 0;
  };
  std::vector<Row*> due;
  vault::v1::ListDueResponse response;
  absl::Time oldest = absl::InfiniteFuture();
  for (auto& [key, row] : rows_) {
    const bool wanted = std::count(request.kinds().begin(), request.kinds().end(), row.name.kind()) > 0;
    if (!wanted || row.head == 0 || row.next_at == absl::InfinitePast() || row.next_at > now) continue;
    response.set_due(std::min(kMaxDueCounted, response.due() + 1));
    oldest = std::min(oldest, row.next_at);
    if (row.listed_until <= now && !left_out(row)) due.push_back(&row);
  }
  if (response.due() > 0) *response.mutable_oldest_due() = ToTimestamp(oldest);
  std::stable_sort(due.begin(), due.end(), [](const Row* a, const Row* b) { return a->next_at < b->next_at; });
  due.resize(std::min(due.size(), static_cast<size_t>(request.limit() == 0 ? 50 : request.limit())));
  for (Row* row : due) {
    *response.add_records() = Metadata(*row);
    if (claim > absl::ZeroDuration()) row->listed_until = now + claim;
  }
  return response;
}

}  // namespace sallyport::testing
