// SPDX-License-Identifier: Apache-2.0
#include "services/vault/keyring.h"

#include <unistd.h>

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/files.h"
#include "services/vault/rewrap.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Harness;
using Code = absl::StatusCode;

// Engine for engine: what decides between SEALED and new keys is what the store says.
class KeyringTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  // One secret in the store, the process gone.
  void Populate() {
    ASSERT_THAT(harness_.Put(testing::Broker(), testing::Connection(), "refresh-token"), IsOk());
    deployment_id_ = harness_.keyring->state().deployment_id;
  }
  // Starts again and expects to stay sealed for this reason, with the store as it was.
  void ExpectSealed(const std::string& reason, const std::string& deployment_id = "") {
    const auto before = Fingerprint();
    harness_.Restart(deployment_id);
    EXPECT_THAT(harness_.keyring->EnsureActive(harness_.clock.Now()), StatusIs(Code::kUnavailable, reason));
    EXPECT_EQ(harness_.keyring->state().state, "SEALED");
    EXPECT_EQ(harness_.keyring->state().reason, reason);
    const auto got = harness_.Get(testing::Broker(), testing::Connection());
    EXPECT_EQ(ReasonOf(got.status()), "vault_sealed");
    EXPECT_EQ(Fingerprint(), before) << "a sealed vault must not write keys";
  }
  std::vector<int64_t> Fingerprint() {
    std::vector<int64_t> counts;
    for (const char* table : {"vault_meta", "keyring", "data_key", "record", "record_version"}) {
      counts.push_back(harness_.Query(absl::StrCat("SELECT COUNT(*) AS n FROM ", table))[0].Int("n"));
    }
    return counts;
  }
  std::string KekPath(const std::string& name = "") { return harness_.directory.File("kek/" + name); }

  Harness harness_{GetParam()};
  std::string deployment_id_;
};

INSTANTIATE_TEST_SUITE_P(Engines, KeyringTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(KeyringTest, EmptyStoreGetsKeysAndBecomesActive) {
  EXPECT_EQ(harness_.keyring->state().state, "SEALED");
  ASSERT_THAT(harness_.keyring->EnsureActive(harness_.clock.Now()), IsOk());
  EXPECT_EQ(harness_.keyring->state().state, "ACTIVE");
  EXPECT_EQ(harness_.keyring->state().deployment_id.substr(0, 4), "dep_");
}

TEST_P(KeyringTest, SecretsSurviveARestart) {
  Populate();
  harness_.Restart();
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
  EXPECT_EQ(harness_.keyring->state().deployment_id, deployment_id_);
}

TEST_P(KeyringTest, ConfiguredDeploymentIdIsTaken) {
  harness_.Restart("dep_mine");
  ASSERT_THAT(harness_.keyring->EnsureActive(harness_.clock.Now()), IsOk());
  EXPECT_EQ(harness_.keyring->state().deployment_id, "dep_mine");
}

TEST_P(KeyringTest, WrongKekStaysSealed) {
  Populate();
  std::filesystem::remove_all(KekPath());
  DirectoryKek other(KekPath());
  ASSERT_THAT(other.CreateFirst(), IsOk());
  ExpectSealed("wrong_kek");
}

TEST_P(KeyringTest, MissingKekDirectoryStaysSealedAndIsNotMade) {
  Populate();
  std::filesystem::remove_all(KekPath());
  ExpectSealed("kek_missing");
  EXPECT_FALSE(std::filesystem::exists(KekPath()));
}

TEST_P(KeyringTest, EmptyKekDirectoryStaysSealedAndEmpty) {
  Populate();
  std::filesystem::remove_all(KekPath());
  std::filesystem::create_directory(KekPath());
  ExpectSealed("kek_missing");
  EXPECT_TRUE(std::filesystem::is_empty(KekPath()));
}

TEST_P(KeyringTest, EmptiedKeyringTableStaysSealed) {
  Populate();
  harness_.Sql("DELETE FROM keyring");
  ExpectSealed("keyring_missing");
}

TEST_P(KeyringTest, EmptiedKeyringStaysSealedEvenIfOnlyTheDeploymentIdIsLeft) {
  Populate();
  for (const char* table : {"keyring", "data_key", "record", "record_version"}) {
    harness_.Sql(absl::StrCat("DELETE FROM ", table));
  }
  ExpectSealed("keyring_missing");
}

TEST_P(KeyringTest, EmptiedKeyringStaysSealedEvenIfOnlyASecretIsLeft) {
  Populate();
  for (const char* table : {"keyring", "data_key", "record", "vault_meta"}) {
    harness_.Sql(absl::StrCat("DELETE FROM ", table));
  }
  ExpectSealed("keyring_missing");
}

TEST_P(KeyringTest, KeyringWithoutAnActiveTermStaysSealed) {
  Populate();
  harness_.Sql("UPDATE keyring SET state = 'decrypt_only'");
  ExpectSealed("keyring_missing");
}

TEST_P(KeyringTest, AnotherDeploymentIdInTheConfigurationStaysSealed) {
  Populate();
  ExpectSealed("deployment_mismatch", "dep_other");
}

TEST_P(KeyringTest, AnotherDeploymentIdInTheStoreStaysSealed) {
  Populate();
  harness_.Sql("UPDATE vault_meta SET value = 'dep_other'");
  ExpectSealed("deployment_mismatch");
}

TEST_P(KeyringTest, SwappedSeedsStaySealed) {
  Populate();
  ASSERT_THAT(harness_.admin->RotateTerm(testing::Service("edge")), IsOk());
  const Rows rows = harness_.Query("SELECT term, wrapped FROM keyring ORDER BY term");
  ASSERT_EQ(rows.size(), 2u);
  harness_.Sql("UPDATE keyring SET wrapped = :w WHERE term = 1", {{"w", rows[1].Text("wrapped")}});
  harness_.Sql("UPDATE keyring SET wrapped = :w WHERE term = 2", {{"w", rows[0].Text("wrapped")}});
  ExpectSealed("wrong_kek");
}

TEST_P(KeyringTest, DamagedCanaryStaysSealed) {
  Populate();
  harness_.Sql("UPDATE record_version SET sealed = :w WHERE rid = (SELECT rid FROM record WHERE kind = 'canary')",
               {{"w", Bytes{std::string(132, 'x')}}});
  ExpectSealed("wrong_kek");
}

TEST_P(KeyringTest, MissingCanaryStaysSealed) {
  Populate();
  harness_.Sql("DELETE FROM record WHERE kind = 'canary'");
  ExpectSealed("wrong_kek");
}

TEST_P(KeyringTest, UnsealsByItselfWhenTheKeyComesBack) {
  Populate();
  std::filesystem::rename(KekPath(), harness_.directory.File("away"));
  ExpectSealed("kek_missing");
  std::filesystem::rename(harness_.directory.File("away"), KekPath());

  EXPECT_THAT(harness_.keyring->EnsureActive(harness_.clock.Now()), StatusIs(Code::kUnavailable));
  harness_.clock.Advance(absl::Seconds(1));
  EXPECT_THAT(harness_.keyring->EnsureActive(harness_.clock.Now()), IsOk());
}

TEST_P(KeyringTest, SealedByAdminStaysSealedUntilRestart) {
  Populate();
  ASSERT_THAT(harness_.admin->Seal(testing::Service("edge")), IsOk());
  harness_.clock.Advance(absl::Hours(1));

  const auto got = harness_.Get(testing::Broker(), testing::Connection());
  EXPECT_THAT(got, StatusIs(Code::kUnavailable));
  EXPECT_EQ(ReasonOf(got.status()), "vault_sealed");
  EXPECT_EQ(harness_.admin->GetStatus()->reason(), "sealed_by_admin");
  harness_.Restart();
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
}

TEST_P(KeyringTest, ADamagedTermThatNothingIsUnderSealsNothing) {
  Populate();
  ASSERT_THAT(harness_.admin->RotateTerm(testing::Service("edge")), IsOk());
  ASSERT_EQ(harness_.admin->Rewrap(testing::Service("edge"))->remaining(), 0);
  harness_.Sql("UPDATE keyring SET wrapped = :w WHERE term = 1", {{"w", Bytes{std::string(100, 'x')}}});
  harness_.Restart();
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
  const auto status = harness_.admin->GetStatus();
  ASSERT_EQ(status->terms_size(), 2);
  EXPECT_EQ(status->terms(0).state(), "damaged");
  EXPECT_EQ(status->terms(0).data_keys(), 0);
  EXPECT_EQ(status->terms(1).data_keys(), 2);
  EXPECT_EQ(status->state(), "ACTIVE");
}

TEST_P(KeyringTest, ADamagedTermInUseSeals) {
  Populate();
  ASSERT_THAT(harness_.admin->RotateTerm(testing::Service("edge")), IsOk());
  harness_.Sql("UPDATE keyring SET wrapped = :w WHERE term = 1", {{"w", Bytes{std::string(100, 'x')}}});
  ExpectSealed("wrong_kek");
}

TEST_P(KeyringTest, SealingWipesTheProvidersKeysToo) {
  Populate();
  const std::string id = harness_.admin->GetStatus()->kek_id();
  std::filesystem::remove_all(KekPath());  // From now on only what is in memory could unwrap.
  const Rows rows = harness_.Query("SELECT wrapped FROM keyring");
  KeyEncryptionKey::Wrapped wrapped;
  wrapped.key_id = id;
  wrapped.ciphertext = rows[0].BytesAt("wrapped");
  ASSERT_THAT(harness_.kek->Unwrap(wrapped, "t"), IsOk());
  ASSERT_THAT(harness_.admin->Seal(testing::Service("edge")), IsOk());
  EXPECT_THAT(harness_.kek->Unwrap(wrapped, "t"), StatusIs(Code::kNotFound));
}

TEST_P(KeyringTest, LoadedSeedsGoOnServingWithoutTheProvider) {
  Populate();
  std::filesystem::remove_all(KekPath());
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
  EXPECT_THAT(harness_.Put(testing::Broker("corp:bob"), testing::Connection("corp:bob"), "t"), IsOk());
  EXPECT_FALSE(harness_.admin->RotateTerm(testing::Service("edge")).ok());
}

TEST_P(KeyringTest, RotatedTermLeavesOldDataReadableAndRewrapMovesIt) {
  Populate();
  ASSERT_EQ(harness_.admin->RotateTerm(testing::Service("edge"))->term(), 2);
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
  EXPECT_EQ(harness_.admin->GetStatus()->rewrap_remaining(), 2);  // ada's and the vault's own

  const auto rewrapped = harness_.admin->Rewrap(testing::Service("edge"));
  ASSERT_THAT(rewrapped, IsOk());
  EXPECT_EQ(rewrapped->rewrapped(), 2);
  EXPECT_EQ(rewrapped->records(), 2);
  EXPECT_EQ(rewrapped->remaining(), 0);
  harness_.Restart();
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
}

TEST_P(KeyringTest, NewKekIsTakenByRewrapAndTheOldMayGo) {
  Populate();
  const std::string old_id = harness_.admin->GetStatus()->kek_id();
  WriteFileAtomic(KekPath("kek-2"), std::string(32, 'n'), 0400).IgnoreError();
  ::unlink(KekPath("current").c_str());
  ASSERT_EQ(::symlink("kek-2", KekPath("current").c_str()), 0);
  ASSERT_EQ(harness_.admin->Rewrap(testing::Service("edge"))->rewrapped(), 1);

  EXPECT_NE(harness_.admin->GetStatus()->kek_id(), old_id);
  std::filesystem::remove(KekPath("kek-1"));
  harness_.Restart();
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
}

TEST_P(KeyringTest, AnotherReplicasTermIsLearntWhenMet) {
  Populate();
  DirectoryKek kek(KekPath());
  Keyring other(*harness_.database, kek, {});
  ASSERT_THAT(other.EnsureActive(harness_.clock.Now()), IsOk());
  ASSERT_THAT(other.RotateTerm([](Transaction&, uint32_t) { return absl::OkStatus(); }), IsOk());
  ASSERT_THAT(RewrapJob(*harness_.database, other).Run(100), IsOk());
  EXPECT_EQ(harness_.Payload(testing::Broker(), testing::Connection()), "refresh-token");
}

}  // namespace
}  // namespace sallyport::vault
