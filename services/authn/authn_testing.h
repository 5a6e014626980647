// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <stdlib.h>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/files.h"
#include "common/jose/jwt.h"
#include "common/mutex.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/authn/authn_store.h"
#include "services/authn/connection_endings.h"
#include "services/authn/jwks_cache.h"
#include "services/authn/sign_in_tokens.h"
#include "services/authn/vault_client.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/lowered.h"
#include "tests/testing/postgres.h"
#include "tests/testing/status_matchers.h"

// Test doubles of authn's seams: vault, network, database file.
namespace sallyport::authn {

// The fake vault as authn calls it.
class FakeVaultClient final : public VaultClient, public ::sallyport::testing::FakeVault {
 public:
  using Base = ::sallyport::testing::FakeVault;
  FakeVaultClient() : Base(Standing()) {}

  absl::StatusOr<VaultClient::Value> Get(const vault::v1::RecordName& record) override {
    vault::v1::GetRequest request;
    *request.mutable_record() = record;
    ASSIGN_OR_RETURN(const vault::v1::GetResponse response, Base::Get({"authn", ""}, request));
    return VaultClient::Value{Secret::Copy(response.payload()), response.version()};
  }
  absl::StatusOr<vault::v1::PutResponse> Put(const vault::v1::PutRequest& request,
                                             const std::string& passport) override {
    return Base::Put({"authn", passport}, request);
  }
  absl::Status Delete(const vault::v1::RecordName& record, const std::string& passport) override {
    vault::v1::DeleteRequest request;
    *request.mutable_record() = record;
    return Base::Delete({"authn", passport}, request).status();
  }

 private:
  // Nothing authn stores depends on the time.
  static const Clock& Standing() {
    static const FakeClock clock;
    return clock;
  }
};

// What was handed to the broker, by connector and passport.
class MemorySignInTokens final : public SignInTokens {
 public:
  absl::Status Store(const token_broker::v1::StoreTokensRequest& tokens, const std::string& passport) override {
    MutexLock lock(mu_);
    if (error_.ok()) {
      stored_.emplace_back(tokens, passport);
    }
    return error_;
  }
  // What every call answers from now on; OK to work again.
  void Fail(absl::Status error) {
    MutexLock lock(mu_);
    error_ = std::move(error);
  }
  std::vector<std::pair<token_broker::v1::StoreTokensRequest, std::string>> stored() {
    MutexLock lock(mu_);
    return stored_;
  }

 private:
  Mutex mu_;
  absl::Status error_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<token_broker::v1::StoreTokensRequest, std::string>> stored_ ABSL_GUARDED_BY(mu_);
};

// A broker that ends what it is asked to, in as many pages as a test says.
class FakeConnectionEndings final : public ConnectionEndings {
 public:
  struct Asked {
    token_broker::v1::EndConnectionsRequest request;
    std::string passport;
    absl::Duration timeout;
  };
  absl::StatusOr<token_broker::v1::EndConnectionsResponse> End(const token_broker::v1::EndConnectionsRequest& request,
                                                               const std::string& passport,
                                                               absl::Duration timeout) override {
    MutexLock lock(mu_);
    asked_.push_back({request, passport, timeout});
    return answer_(request);
  }
  // What every call answers from now on; an empty page that is the last until then.
  using Answer = std::function<absl::StatusOr<token_broker::v1::EndConnectionsResponse>(
      const token_broker::v1::EndConnectionsRequest&)>;
  void Answers(Answer answer) {
    MutexLock lock(mu_);
    answer_ = std::move(answer);
  }
  std::vector<Asked> asked() const {
    MutexLock lock(mu_);
    return asked_;
  }

 private:
  mutable Mutex mu_;
  Answer answer_ ABSL_GUARDED_BY(mu_) = [](const auto& /*request*/) {
    return token_broker::v1::EndConnectionsResponse();
  };
  std::vector<Asked> asked_ ABSL_GUARDED_BY(mu_);
};

// Documents by URL; what is not there is UNAVAILABLE.
class FakeFetcher final : public DocumentFetcher {
 public:
  absl::StatusOr<std::string> Fetch(const std::string& url, size_t max_bytes) override {
    MutexLock lock(mu_);
    ++fetches_[url];
    auto it = documents_.find(url);
    if (it == documents_.end()) {
      return absl::UnavailableError("down");
    }
    if (it->second.size() > max_bytes) {
      return absl::ResourceExhaustedError("too long");
    }
    return it->second;
  }
  void Serve(const std::string& url, const std::string& document) {
    MutexLock lock(mu_);
    documents_[url] = document;
  }
  void TakeDown(const std::string& url) {
    MutexLock lock(mu_);
    documents_.erase(url);
  }
  int fetches(const std::string& url) {
    MutexLock lock(mu_);
    return fetches_[url];
  }

 private:
  Mutex mu_;
  std::map<std::string, std::string> documents_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int> fetches_ ABSL_GUARDED_BY(mu_);
};

// A directory that goes away with the test.
class TempDirectory {
 public:
  TempDirectory() {
    std::string pattern = "/tmp/sallyport-authn-XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TempDirectory() {
    const std::string command = absl::StrCat("rm -rf '", path_, "'");
    if (system(command.c_str()) != 0) {
      path_.clear();
    }
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::unique_ptr<Database> OpenTestDatabase(const TempDirectory& directory, const Clock& clock) {
  config::v1::Database config;
  config.set_sqlite(directory.path() + "/authn.db");
  auto database = OpenAuthnDatabase(config, clock);
  if (!database.ok()) {
    abort();
  }
  return *std::move(database);
}

// What keeps its data in the database is tested on each engine. Where PostgreSQL is not installed the test fails.
class EnginesTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      config::v1::Database config;
      ASSERT_OK_AND_ASSIGN(const std::string connection, testing::TestPostgres::CreateDatabase());
      config.set_postgresql(connection);
      ASSERT_OK_AND_ASSIGN(database_, OpenAuthnDatabase(config, clock_));
    } else {
      database_ = OpenTestDatabase(directory_, clock_);
    }
  }

  TempDirectory directory_;
  FakeClock clock_;
  std::unique_ptr<Database> database_;
};
#define INSTANTIATE_ENGINES(Test)                                                     \
  INSTANTIATE_TEST_SUITE_P(                                                           \
      Engines, Test, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql), \
      [](const auto& test) { return test.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql"; })

// An issuer with one ES256 key.
class TestIssuer {
 public:
  explicit TestIssuer(std::string issuer) : issuer_(std::move(issuer)), key_(*PrivateKey::GenerateP256()) {}

  const std::string& issuer() const { return issuer_; }
  const PrivateKey& key() const { return key_; }
  std::string Jwks() const { return JwkSet({key_.public_key()}).ToJson(); }
  std::string Discovery() const {
    return DumpJson({{"issuer", issuer_},
                     {"authorization_endpoint", issuer_ + "/authorize"},
                     {"token_endpoint", issuer_ + "/token"},
                     {"jwks_uri", issuer_ + "/jwks"}});
  }
  // An access token that is good for an hour; `change` overrides claims (null removes one).
  nlohmann::json Claims(absl::Time now, const nlohmann::json& change = nlohmann::json::object()) const {
    nlohmann::json claims = {{"iss", issuer_},
                             {"aud", "api://mcp"},
                             {"sub", "ann"},
                             {"iat", absl::ToUnixSeconds(now)},
                             {"exp", absl::ToUnixSeconds(now) + 3600}};
    for (const auto& [name, value] : change.items()) {
      if (value.is_null()) {
        claims.erase(name);
      } else {
        claims[name] = value;
      }
    }
    return claims;
  }
  std::string Token(absl::Time now, const nlohmann::json& change = nlohmann::json::object(),
                    absl::string_view typ = "at+jwt") const {
    return *SignJwt(Claims(now, change), typ, key_);
  }

 private:
  std::string issuer_;
  PrivateKey key_;
};

// A snapshot of the control stream with these servers and apps, as ControlStream::Seed takes it.
inline std::string SnapshotOf(const std::vector<registry::v1::McpServer>& servers,
                              const std::vector<registry::v1::App>& apps = {}) {
  registry::v1::WatchEvent event;
  event.set_store_id("store");
  event.set_revision(1);
  for (const auto& server : servers) {
    *event.mutable_snapshot()->add_mcp_servers() = sallyport::testing::Lowered(server);
  }
  for (const auto& app : apps) {
    *event.mutable_snapshot()->add_apps() = app;
  }
  return event.SerializeAsString();
}

}  // namespace sallyport::authn
