// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "services/vault/directory_kek.h"
#include "services/vault/vault.h"
#include "services/vault/vault_admin.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/postgres.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::vault::testing {

// A directory of its own, removed afterwards.
class TempDirectory {
 public:
  TempDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "vault_test_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline constexpr char kUser[] = "corp:ada";

inline v1::RecordName Name(v1::OwnerType type, const std::string& owner, const std::string& kind,
                           const std::string& name) {
  v1::RecordName out;
  out.set_owner_type(type);
  out.set_owner_id(owner);
  out.set_kind(kind);
  out.set_name(name);
  return out;
}
inline v1::RecordName Connection(const std::string& user = kUser, const std::string& name = "app_1") {
  return Name(v1::USER, user, "connection", name);
}
inline v1::RecordName ServerSecret(const std::string& name = "srv_1/app_auth.bearer.token") {
  return Name(v1::ORG, "default", "server_secret", name);
}

inline Caller Service(const std::string& service) { return {service, std::nullopt}; }
inline Caller For(const std::string& service, const std::string& subject) {
  Passport passport;
  passport.subject = subject;
  passport.issued_at = absl::FromUnixSeconds(2);
  return {service, passport};
}
inline Caller Broker(const std::string& subject = kUser) { return For("token_broker", subject); }
inline Caller Broker(const std::string& subject, Passport::Purpose purpose) {
  Caller caller = Broker(subject);
  caller.passport->purpose = purpose;
  return caller;
}
inline Caller Administrator(const std::string& service, const std::vector<std::string>& roles) {
  Caller caller = For(service, "local:root");
  caller.passport->purpose = Passport::Purpose::kApi;
  caller.passport->roles = roles;
  return caller;
}
// The broker, with an administrator's word of a second before what others say.
inline Caller Ending(const Passport::End& end) {
  Caller caller = Broker("local:root", Passport::Purpose::kEnd);
  caller.passport->end = end;
  caller.passport->issued_at = absl::FromUnixSeconds(1);
  return caller;
}
inline Caller Registry() { return Service("registry"); }

// The domain without gRPC, on either engine. Keys and SQLite file lie in a temporary directory.
struct Harness {
  explicit Harness(SqlDialect dialect = SqlDialect::kSqlite) {
    Database::Options options;
    options.clock = &clock;
    if (dialect == SqlDialect::kSqlite) {
      options.sqlite_path = directory.File("vault.db");
    } else {
      options.postgresql = *sallyport::testing::TestPostgres::CreateDatabase();
    }
    database = *Database::Open(std::move(options));
    const absl::Status migrated = database->Migrate(VaultMigrations());
    if (!migrated.ok()) {
      std::abort();
    }
    outbox = std::make_unique<AuditOutbox>(*database, clock, AuditOutbox::Options{.source = "vault"});
    trail = std::make_unique<AuditTrail>(*outbox);
    Restart();
  }

  // What a new process would build, over the same store and keys.
  void Restart(const std::string& deployment_id = "") {
    admin.reset();
    vault.reset();
    keyring.reset();
    kek = std::make_unique<DirectoryKek>(directory.File("kek"));
    keyring = std::make_unique<Keyring>(*database, *kek, Keyring::Options{deployment_id});
    vault = std::make_unique<Vault>(Vault::Dependencies{*database, *keyring, *trail, clock, nullptr});
    admin = std::make_unique<VaultAdmin>(*database, *keyring, *trail, clock);
  }

  absl::StatusOr<v1::PutResponse> Put(const Caller& caller, const v1::RecordName& record, const std::string& payload) {
    v1::PutRequest request;
    *request.mutable_record() = record;
    request.set_payload(payload);
    return vault->Put(caller, request);
  }
  absl::StatusOr<v1::PutResponse> PutLeased(const v1::RecordName& record, const std::string& lease,
                                            const std::string& payload,
                                            const Caller& caller = Service("token_broker")) {
    v1::PutRequest request;
    *request.mutable_record() = record;
    request.set_payload(payload);
    request.set_lease(lease);
    return vault->Put(caller, request);
  }
  absl::StatusOr<v1::GetResponse> Get(const Caller& caller, const v1::RecordName& record, int64_t version = 0) {
    v1::GetRequest request;
    *request.mutable_record() = record;
    request.set_version(version);
    return vault->Get(caller, request);
  }
  // The payload, or the error's text.
  std::string Payload(const Caller& caller, const v1::RecordName& record, int64_t version = 0) {
    const auto got = Get(caller, record, version);
    return got.ok() ? got->payload() : std::string(got.status().ToString());
  }
  absl::StatusOr<v1::DeleteResponse> Delete(const Caller& caller, const v1::RecordName& record) {
    v1::DeleteRequest request;
    *request.mutable_record() = record;
    return vault->Delete(caller, request);
  }
  absl::StatusOr<v1::AcquireLeaseResponse> Acquire(const v1::RecordName& record, const Caller& caller = Broker()) {
    v1::AcquireLeaseRequest request;
    *request.mutable_record() = record;
    return vault->AcquireLease(caller, request);
  }
  absl::StatusOr<v1::PutStatusResponse> PutStatus(const v1::RecordName& record, const std::string& lease,
                                                  const std::string& state) {
    v1::PutStatusRequest request;
    *request.mutable_record() = record;
    request.set_lease(lease);
    request.set_state(state);
    return vault->PutStatus(Service("token_broker"), request);
  }
  absl::Status Release(const v1::RecordName& record, const std::string& lease) {
    v1::ReleaseRequest request;
    *request.mutable_record() = record;
    request.set_lease(lease);
    return vault->Release(Service("token_broker"), request).status();
  }
  // As time does, on both engines.
  void LapseLeases() { Sql("UPDATE record SET claim_until = 1 WHERE claim_until > 1"); }
  void Sql(const std::string& statement, const SqlParams& params = {}) {
    EXPECT_THAT(database->Write([&](Transaction& tx) { return tx.Exec(statement, params).status(); }),
                sallyport::testing::IsOk());
  }
  Rows Query(const std::string& statement, const SqlParams& params = {}) {
    Rows rows;
    EXPECT_THAT(database->Read([&](Transaction& tx) -> absl::Status {
      auto got = tx.Query(statement, params);
      if (got.ok()) {
        rows = *std::move(got);
      }
      return got.status();
    }),
                sallyport::testing::IsOk());
    return rows;
  }

  TempDirectory directory;
  FakeClock clock;
  std::unique_ptr<Database> database;
  std::unique_ptr<KeyEncryptionKey> kek;
  std::unique_ptr<AuditOutbox> outbox;
  std::unique_ptr<AuditTrail> trail;
  std::unique_ptr<Keyring> keyring;
  std::unique_ptr<Vault> vault;
  std::unique_ptr<VaultAdmin> admin;
};

}  // namespace sallyport::vault::testing
