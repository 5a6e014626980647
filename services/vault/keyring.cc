// SPDX-License-Identifier: Apache-2.0
#include "services/vault/keyring.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/status_macros.h"
#include "services/vault/envelope.h"
#include "services/vault/errors.h"

namespace sallyport::vault {
namespace {

// What the canary holds: in stores of earlier releases, and once what they hold was adopted.
constexpr char kCanary[] = "sallyport-canary-v1";
constexpr char kAdoptedCanary[] = "sallyport-canary-v2";
constexpr absl::Duration kRetry = absl::Seconds(1);

RecordId CanaryId() { return {VaultOwner(), "canary", "canary"}; }
RecordIdentity CanaryIdentity(const std::string& deployment_id) { return {deployment_id, CanaryId(), 1, 1}; }

// A reason to stay sealed travels as the reason of this status until Unseal puts it into the state.
absl::Status Stay(absl::string_view reason, absl::string_view detail) {
  return WithReason(absl::FailedPreconditionError(detail), reason);
}

constexpr GaugeInfo kSealed = {
    .name = "sallyport_vault_sealed",
    .help = "1 while the vault can open nothing",
    .unit = "1",
    .rise = "No secret or token can be read or written: the key-encryption key is missing or not the one of this store",
    .action = "`sallyport vault status` says why; put the key back that it names",
};

constexpr GaugeInfo kTermCreated = {
    .name = "sallyport_vault_term_created_timestamp_seconds",
    .help = "When the active term of the vault's keys began, in seconds since 1970",
    .unit = "seconds",
    .rise = "A new term was begun with `sallyport vault rotate`",
    .action = "Older than your rule for keys allows: begin a new term, then rewrap",
};

prometheus::Gauge& SealedGauge() {
  static prometheus::Gauge& gauge = MetricGauge(kSealed);
  return gauge;
}

}  // namespace

Keyring::State Keyring::state() const {
  MutexLock lock(mu_);
  return state_;
}

std::set<uint32_t> Keyring::damaged_terms() const {
  MutexLock lock(mu_);
  return damaged_;
}

uint32_t Keyring::active_term() const {
  MutexLock lock(mu_);
  return active_term_;
}

void Keyring::Seal() {
  kek_.Wipe();
  MutexLock lock(mu_);
  seeds_.clear();
  active_term_ = 0;
  sealed_by_admin_ = true;
  state_.state = "SEALED";
  state_.reason = "sealed_by_admin";
  state_.detail = "sealed by an administrator; restart to unseal";
  SealedGauge().Set(1);
}

absl::Status Keyring::EnsureActive(absl::Time now) {
  {
    MutexLock lock(mu_);
    if (state_.state == "ACTIVE") {
      return absl::OkStatus();
    }
    if (sealed_by_admin_) {
      return error::Sealed(state_.reason);
    }
  }
  MutexLock attempt(unseal_mu_);
  if (state().state == "ACTIVE") {
    return absl::OkStatus();
  }
  // Also when the clock was set back since.
  if (now >= last_attempt_ && now < last_attempt_ + kRetry) {
    return error::Sealed(state().reason);
  }
  last_attempt_ = now;
  return Unseal();
}

absl::Status Keyring::Unseal() {
  {
    MutexLock lock(mu_);
    state_.state = "UNSEALING";
  }
  const absl::Status done = Reload();
  MutexLock lock(mu_);
  if (sealed_by_admin_) {
    seeds_.clear();
    return error::Sealed(state_.reason);
  }
  if (done.ok()) {
    state_.state = "ACTIVE";
    state_.reason.clear();
    state_.detail.clear();
    SealedGauge().Set(0);
    Log(LogLevel::kInfo, "vault_unsealed", {{"deployment_id", state_.deployment_id}, {"term", active_term_}});
    return absl::OkStatus();
  }
  const std::string reason = ReasonOf(done);
  state_.state = "SEALED";
  state_.reason = reason.empty() ? "store_unavailable" : reason;
  state_.detail = std::string(done.message());
  SealedGauge().Set(1);
  Log(LogLevel::kError, "vault_sealed", {{"reason", state_.reason}, {"detail", state_.detail}});
  return error::Sealed(state_.reason);
}

absl::Status Keyring::Reload() {
  ASSIGN_OR_RETURN(Snapshot snapshot, ReadSnapshot());
  if (snapshot.empty) {
    RETURN_IF_ERROR(Initialize());
    ASSIGN_OR_RETURN(snapshot, ReadSnapshot());
  }
  {
    MutexLock lock(mu_);
    state_.deployment_id = snapshot.deployment_id;
  }
  RETURN_IF_ERROR(CheckSnapshot(snapshot));
  ASSIGN_OR_RETURN(Opened opened, UnwrapSeeds(snapshot));
  RETURN_IF_ERROR(CheckCanary(snapshot, opened.seeds));
  MutexLock lock(mu_);
  if (sealed_by_admin_) {
    kek_.Wipe();
    return error::Sealed(state_.reason);
  }
  seeds_ = std::move(opened.seeds);
  damaged_ = std::move(opened.damaged);
  active_term_ = ActiveTerm(snapshot.terms);
  for (const TermRow& term : snapshot.terms) {
    if (term.term == active_term_) {
      MetricGauge(kTermCreated).Set(static_cast<double>(absl::ToUnixSeconds(term.created_at)));
    }
  }
  return absl::OkStatus();
}

absl::Status Keyring::CheckCanary(const Snapshot& snapshot, const Seeds& seeds) const {
  const auto seed = snapshot.canary_key.has_value() ? seeds.find(snapshot.canary_key->term) : seeds.end();
  if (seed == seeds.end()) {
    return Stay("wrong_kek", "the canary record is missing or under an unknown term");
  }
  const OwnerKeyIdentity identity = {snapshot.deployment_id, VaultOwner(), snapshot.canary_key->key_version,
                                     snapshot.canary_key->term};
  const absl::StatusOr<Secret> key = UnwrapOwnerKey(*seed->second, identity, snapshot.canary_key->wrapped);
  const absl::StatusOr<OpenedRecord> canary =
      key.ok() ? OpenRecord(*key, CanaryIdentity(snapshot.deployment_id), snapshot.canary.sealed) : key.status();
  if (!canary.ok() || (canary->payload.Expose() != kCanary && canary->payload.Expose() != kAdoptedCanary)) {
    return Stay("wrong_kek", "the canary record does not open");
  }
  return absl::OkStatus();
}

absl::Status Keyring::ReadCanary(Transaction& tx, Snapshot& snapshot) const {
  ASSIGN_OR_RETURN(const auto record, FindRecord(tx, CanaryId()));
  if (!record.has_value()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(auto version, FindVersion(tx, record->rid, record->head));
  if (!version.has_value()) {
    return absl::OkStatus();
  }
  snapshot.canary = *std::move(version);
  if (const auto key_version = KeyVersionOf(snapshot.canary.sealed); key_version.ok()) {
    ASSIGN_OR_RETURN(snapshot.canary_key, FindOwnerKey(tx, VaultOwner(), *key_version));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Keyring::Adopted(Transaction& tx) const {
  Snapshot snapshot;
  RETURN_IF_ERROR(ReadCanary(tx, snapshot));
  if (!snapshot.canary_key.has_value()) {
    return error::TagMismatch();
  }
  ASSIGN_OR_RETURN(const Secret key, OpenOwnerKey(*snapshot.canary_key));
  ASSIGN_OR_RETURN(const OpenedRecord canary,
                   OpenRecord(key, CanaryIdentity(state().deployment_id), snapshot.canary.sealed));
  return canary.payload.Expose() == kAdoptedCanary;
}

absl::Status Keyring::CompleteAdoption(Transaction& tx) const {
  Snapshot snapshot;
  RETURN_IF_ERROR(ReadCanary(tx, snapshot));
  ASSIGN_OR_RETURN(const OwnerKey key, KeyForWrite(tx, VaultOwner()));
  ASSIGN_OR_RETURN(snapshot.canary.sealed,
                   SealRecord(key.key, key.key_version, CanaryIdentity(state().deployment_id), kAdoptedCanary, {}));
  return SaveVersion(tx, snapshot.canary);
}

absl::StatusOr<Keyring::Snapshot> Keyring::ReadSnapshot() {
  Snapshot snapshot;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    snapshot = Snapshot();
    ASSIGN_OR_RETURN(snapshot.deployment_id, DeploymentId(tx));
    ASSIGN_OR_RETURN(snapshot.terms, ListTerms(tx));
    if (snapshot.terms.empty()) {
      ASSIGN_OR_RETURN(snapshot.empty, IsEmpty(tx));
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const auto keys, CountOwnerKeysByTerm(tx));
    for (const auto& [term, count] : keys) {
      snapshot.used.insert(term);
    }
    return ReadCanary(tx, snapshot);
  }));
  return snapshot;
}

absl::Status Keyring::CheckSnapshot(const Snapshot& snapshot) const {
  if (snapshot.terms.empty()) {
    return Stay("keyring_missing", "the store holds data or a deployment id, but no keyring; restore the keyring");
  }
  if (snapshot.deployment_id.empty()) {
    return Stay("deployment_mismatch", "the store has a keyring but no deployment id");
  }
  if (!options_.deployment_id.empty() && options_.deployment_id != snapshot.deployment_id) {
    return Stay("deployment_mismatch", "deployment_id of the configuration is not that of the store");
  }
  return ActiveTerm(snapshot.terms) != 0 ? absl::OkStatus() : Stay("keyring_missing", "the keyring has no active term");
}

absl::Status Keyring::Initialize() {
  // Only reached with a store in which nothing was ever written.
  if (const absl::Status created = kek_.CreateFirst(); !created.ok()) {
    return Stay("kek_missing", created.message());
  }
  const std::string deployment_id = options_.deployment_id.empty() ? MakeUid("dep_") : options_.deployment_id;
  const Secret seed = RandomSecret(kKeyBytes);
  const absl::StatusOr<TermRow> term = MakeTerm(1, seed, deployment_id);
  if (!term.ok()) {
    return Stay("kek_missing", term.status().message());
  }
  const Secret key = RandomSecret(kKeyBytes);
  OwnerKeyRow owner_key = {VaultOwner(), 1, 1, false, ""};
  ASSIGN_OR_RETURN(owner_key.wrapped, WrapOwnerKey(seed, {deployment_id, VaultOwner(), 1, 1}, key));
  ASSIGN_OR_RETURN(const std::string canary, SealRecord(key, 1, CanaryIdentity(deployment_id), kAdoptedCanary, {}));
  return database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const bool empty, IsEmpty(tx));
    if (!empty) {
      return absl::OkStatus();  // Another replica was faster; its keyring is the one.
    }
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    TermRow first = *term;
    first.state = "active";
    first.created_at = now;
    RecordRow record;
    record.rid = MakeUid("rec_");
    record.id = CanaryId();
    record.head = record.last_version = record.generation = 1;
    record.state = "OK";
    record.updated_at = now;
    VersionRow version;
    version.rid = record.rid;
    version.version = version.generation = 1;
    version.pinned = true;
    version.sealed = canary;
    version.created_at = now;
    RETURN_IF_ERROR(SaveDeploymentId(tx, deployment_id));
    RETURN_IF_ERROR(SaveTerm(tx, first));
    RETURN_IF_ERROR(SaveOwnerKey(tx, owner_key));
    RETURN_IF_ERROR(SaveRecord(tx, record));
    return SaveVersion(tx, version);
  });
}

absl::StatusOr<TermRow> Keyring::MakeTerm(uint32_t term, const Secret& seed, const std::string& deployment_id) {
  SeedPlaintext plaintext;
  plaintext.deployment_id = deployment_id;
  plaintext.term = term;
  plaintext.seed = seed.Clone();
  TermRow row;
  row.term = term;
  ASSIGN_OR_RETURN(row.wrapped, kek_.Wrap(EncodeSeed(plaintext), absl::StrCat("term-", term)));
  return row;
}

absl::StatusOr<Secret> Keyring::UnwrapSeed(const TermRow& term, const std::string& deployment_id) {
  const absl::StatusOr<Secret> plaintext = kek_.Unwrap(term.wrapped, absl::StrCat("term-", term.term));
  if (absl::IsDataLoss(plaintext.status())) {
    return Stay("wrong_kek", absl::StrCat("the key does not open term ", term.term));
  }
  if (absl::IsNotFound(plaintext.status()) && kek_.Status().ok()) {
    return Stay("wrong_kek", plaintext.status().message());  // There are keys, but not this one.
  }
  if (!plaintext.ok()) {
    return Stay("kek_missing", plaintext.status().message());
  }
  absl::StatusOr<SeedPlaintext> seed = DecodeSeed(*plaintext);
  if (!seed.ok() || seed->term != term.term) {
    return Stay("wrong_kek", absl::StrCat("what is stored as term ", term.term, " is not that term's seed"));
  }
  if (seed->deployment_id != deployment_id) {
    return Stay("deployment_mismatch", absl::StrCat("the seed of term ", term.term, " is another deployment's"));
  }
  return std::move(seed->seed);
}

absl::StatusOr<Keyring::Opened> Keyring::UnwrapSeeds(const Snapshot& snapshot) {
  Opened opened;
  for (const TermRow& term : snapshot.terms) {
    if (term.state == "destroyed") {
      continue;
    }
    absl::StatusOr<Secret> seed = UnwrapSeed(term, snapshot.deployment_id);
    if (!seed.ok() && term.state != "active" && snapshot.used.count(term.term) == 0) {
      Log(LogLevel::kWarning, "vault_term_damaged", {{"term", term.term}, {"detail", seed.status()}});
      opened.damaged.insert(term.term);
      continue;
    }
    RETURN_IF_ERROR(seed.status());
    opened.seeds[term.term] = std::make_shared<const Secret>(*std::move(seed));
  }
  return opened;
}

absl::StatusOr<std::shared_ptr<const Secret>> Keyring::Seed(uint32_t term) const {
  MutexLock lock(mu_);
  if (seeds_.empty()) {
    return error::Sealed(state_.reason);
  }
  const auto it = seeds_.find(term);
  if (it == seeds_.end()) {
    return WithReason(absl::DataLossError("a data key is under a term that is not in the keyring"), "unknown_term");
  }
  return it->second;
}

bool Keyring::IsUnknownTerm(const absl::Status& status) {
  return absl::IsDataLoss(status) && ReasonOf(status) == "unknown_term";
}

absl::StatusOr<Secret> Keyring::OpenOwnerKey(const OwnerKeyRow& row) const {
  ASSIGN_OR_RETURN(const std::shared_ptr<const Secret> seed, Seed(row.term));
  return UnwrapOwnerKey(*seed, {state().deployment_id, row.owner, row.key_version, row.term}, row.wrapped);
}

absl::StatusOr<OwnerKey> Keyring::KeyForRead(Transaction& tx, const Owner& owner, uint32_t key_version) const {
  ASSIGN_OR_RETURN(const auto row, FindOwnerKey(tx, owner, key_version));
  if (!row.has_value() || row->destroyed) {
    return error::RecordNotFound();
  }
  ASSIGN_OR_RETURN(Secret key, OpenOwnerKey(*row));
  return OwnerKey{row->key_version, std::move(key)};
}

absl::StatusOr<OwnerKey> Keyring::NewestKey(Transaction& tx, const Owner& owner) const {
  ASSIGN_OR_RETURN(const auto row, FindNewestOwnerKey(tx, owner));
  if (!row.has_value() || row->destroyed) {
    return error::RecordNotFound();
  }
  ASSIGN_OR_RETURN(Secret key, OpenOwnerKey(*row));
  return OwnerKey{row->key_version, std::move(key)};
}

absl::StatusOr<OwnerKey> Keyring::MakeOwnerKey(Transaction& tx, const Owner& owner, uint32_t key_version) const {
  uint32_t term = 0;
  {
    MutexLock lock(mu_);
    term = active_term_;
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const Secret> seed, Seed(term));
  OwnerKey made = {key_version, RandomSecret(kKeyBytes)};
  OwnerKeyRow row = {owner, key_version, term, false, ""};
  ASSIGN_OR_RETURN(row.wrapped, WrapOwnerKey(*seed, {state().deployment_id, owner, key_version, term}, made.key));
  RETURN_IF_ERROR(SaveOwnerKey(tx, row));
  return made;
}

absl::StatusOr<OwnerKey> Keyring::KeyForWrite(Transaction& tx, const Owner& owner) const {
  ASSIGN_OR_RETURN(const auto row, FindNewestOwnerKey(tx, owner));
  if (!row.has_value()) {
    return MakeOwnerKey(tx, owner, 1);
  }
  if (row->destroyed) {
    RETURN_IF_ERROR(EraseOwnerKey(tx, *row));  // The next one tells which numbers are used up.
    return MakeOwnerKey(tx, owner, row->key_version + 1);
  }
  // A term before the active one. A later one is another replica's news, which opening the key will tell.
  if (row->term < active_term()) {
    return MakeOwnerKey(tx, owner, row->key_version + 1);
  }
  ASSIGN_OR_RETURN(Secret key, OpenOwnerKey(*row));
  return OwnerKey{row->key_version, std::move(key)};
}

absl::StatusOr<uint32_t> Keyring::RotateTerm(const std::function<absl::Status(Transaction&, uint32_t)>& record) {
  ASSIGN_OR_RETURN(const Snapshot before, ReadSnapshot());
  RETURN_IF_ERROR(CheckSnapshot(before));
  const uint32_t next = before.terms.back().term + 1;
  // Wrapped before the transaction: the provider may be slow, and the transaction stops every writer.
  ASSIGN_OR_RETURN(TermRow made, MakeTerm(next, RandomSecret(kKeyBytes), before.deployment_id));
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(std::vector<TermRow> terms, ListTerms(tx));
    if (terms.empty() || terms.back().term + 1 != next) {
      return WithReason(absl::AbortedError("another term has just begun; try again"), "version_conflict");
    }
    for (TermRow& term : terms) {
      if (term.state == "active") {
        term.state = "decrypt_only";
        RETURN_IF_ERROR(SaveTerm(tx, term));
      }
    }
    made.state = "active";
    ASSIGN_OR_RETURN(made.created_at, tx.Now());
    RETURN_IF_ERROR(SaveTerm(tx, made));
    return record(tx, next);
  }));
  RETURN_IF_ERROR(Reload());
  return next;
}

absl::StatusOr<int64_t> Keyring::RewrapTerms() {
  const absl::StatusOr<std::string> current = kek_.Status();
  if (!current.ok()) {
    return error::Sealed("kek_missing");
  }
  ASSIGN_OR_RETURN(const Snapshot snapshot, ReadSnapshot());
  int64_t count = 0;
  for (const TermRow& term : snapshot.terms) {
    if (term.state == "destroyed" || term.wrapped.key_id == *current) {
      continue;
    }
    ASSIGN_OR_RETURN(const Secret seed, UnwrapSeed(term, snapshot.deployment_id));
    ASSIGN_OR_RETURN(const TermRow again, MakeTerm(term.term, seed, snapshot.deployment_id));
    RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const std::vector<TermRow> now, ListTerms(tx));
      for (TermRow row : now) {
        if (row.term == term.term && row.wrapped.ciphertext == term.wrapped.ciphertext) {
          row.wrapped = again.wrapped;
          RETURN_IF_ERROR(SaveTerm(tx, row));
        }
      }
      return absl::OkStatus();
    }));
    ++count;
  }
  MutexLock lock(mu_);
  if (sealed_by_admin_) {
    kek_.Wipe();  // Sealed while the provider's keys were read again.
  }
  return count;
}

absl::Status Keyring::DestroyTerm(uint32_t term, const std::function<absl::Status(Transaction&)>& record) {
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<TermRow> terms, ListTerms(tx));
    const auto found =
        std::find_if(terms.begin(), terms.end(), [term](const TermRow& row) { return row.term == term; });
    if (found == terms.end()) {
      return absl::NotFoundError(absl::StrCat("there is no term ", term));
    }
    if (found->state == "destroyed") {
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(auto keys, CountOwnerKeysByTerm(tx));
    if (found->state == "active" || keys[term] > 0) {
      return error::TermInUse(found->state == "active"
                                  ? "it is the active one: rotate first"
                                  : absl::StrCat(keys[term], " data keys are under it: rewrap first"));
    }
    TermRow row = *found;
    row.state = "destroyed";
    row.wrapped.ciphertext.clear();
    row.wrapped.annotations.clear();
    RETURN_IF_ERROR(SaveTerm(tx, row));
    return record(tx);
  }));
  return Reload();
}

}  // namespace sallyport::vault
