// SPDX-License-Identifier: Apache-2.0
// Every column of every row edited by hand: a record gives what was once stored in it, with the origins that were
// sealed with it, or nothing.
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gtest/gtest.h>

#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using testing::Connection;
using testing::Harness;
using testing::ServerSecret;

constexpr char kOurs[] = "https://api.example.com";
constexpr char kTheirs[] = "https://other.example.com";
constexpr size_t kRowsEdited = 3;

const std::map<std::string, std::vector<std::string>>& Tables() {
  static const std::map<std::string, std::vector<std::string>> tables = {
      {"vault_meta", {"name", "value"}},
      {"keyring", {"term", "state", "kek_id", "wrapped", "annotations", "created_at"}},
      {"data_key", {"owner_type", "owner_id", "key_version", "term", "destroyed", "wrapped"}},
      {"record",
       {"rid", "owner_type", "owner_id", "kind", "name", "head", "last_version", "generation", "epoch", "state",
        "reason", "backoff_until", "next_at", "claim_until", "labels", "updated_at", "app_uid", "listed_until",
        "used_at"}},
      {"record_version",
       {"rid", "version", "generation", "role", "pinned", "shown_epoch", "labels", "sealed", "created_at"}},
      {"lease",
       {"digest", "rid", "caller", "generation", "epoch", "version", "state", "answer_version", "answer_side",
        "acquired_at"}},
  };
  return tables;
}

class EditedStoreTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  using Stored = std::pair<std::string, std::vector<std::string>>;  // Payload and origins.

  void Put(const v1::RecordName& record, const std::string& payload, const std::vector<std::string>& origins) {
    v1::PutRequest request;
    *request.mutable_record() = record;
    request.set_payload(payload);
    request.mutable_origins()->Assign(origins.begin(), origins.end());
    request.set_pin(true);
    request.set_keep_generation(record.owner_type() == v1::ORG);
    Caller caller =
        record.owner_type() == v1::ORG ? testing::For("registry", "local:root") : testing::Broker(record.owner_id());
    caller.passport->roles = {"admin", "credential-admin"};
    caller.passport->purpose = Passport::Purpose::kApi;
    if (record.owner_type() == v1::USER) request.set_pin(false);
    ASSERT_THAT(h_.vault->Put(caller, request), sallyport::testing::IsOk()) << payload;
    stored_[record.SerializeAsString()].insert({payload, origins});
  }
  void Fill() {
    Put(ServerSecret("srv_1/token"), "old-key", {kOurs});
    Put(ServerSecret("srv_1/token"), "key", {kOurs});
    Put(ServerSecret("srv_2/token"), "key-of-theirs", {kTheirs});
    Put(testing::Name(v1::ORG, "default", "app_binding", "app_1/binding"), "sixteen bytes 01", {kOurs});
    Put(testing::Name(v1::ORG, "default", "app_binding", "app_2/binding"), "sixteen bytes 02", {kTheirs});
    Put(Connection("corp:ada"), "tokens-of-ada", {});
    Put(Connection("corp:eve"), "tokens-of-eve", {});
    const auto lease = h_.Acquire(Connection("corp:ada"));
    ASSERT_THAT(lease, sallyport::testing::IsOk());
    ASSERT_THAT(h_.PutLeased(Connection("corp:ada"), lease->lease().id(), "renewed-of-ada"),
                sallyport::testing::IsOk());
    stored_[Connection("corp:ada").SerializeAsString()].insert({"renewed-of-ada", {}});
    ASSERT_THAT(h_.Acquire(Connection("corp:eve"), testing::Broker("corp:eve")), sallyport::testing::IsOk());
  }

  // A new process on the edited store gives of every record what was stored in it.
  void ReadEverything(const std::string& edit) {
    h_.Restart();
    for (const auto& [name, stored] : stored_) {
      v1::GetRequest request;
      ASSERT_TRUE(request.mutable_record()->ParseFromString(name));
      for (const int64_t version : {0, 1, 2}) {
        request.set_version(version);
        const auto got = h_.vault->Get(testing::Broker(request.record().owner_id()), request);
        ++reads_;
        if (!got.ok()) continue;
        ++opened_;
        EXPECT_EQ(got->bound(), v1::BOUND) << edit;
        const Stored found = {got->payload(), {got->origins().begin(), got->origins().end()}};
        EXPECT_TRUE(stored.contains(found)) << edit << ": " << request.record().name() << " gave " << found.first
                                            << " for " << absl::StrJoin(found.second, " ");
      }
    }
  }

  // Other values for a cell: that of another row, the next number, another text.
  static std::vector<SqlValue> OthersFor(const Rows& rows, size_t row, const std::string& column) {
    const std::string now = rows[row].Text(column);
    std::vector<SqlValue> others;
    for (const Row& other : rows) {
      if (other.Text(column) != now && !other.IsNull(column)) {
        others.push_back(IsNumber(other.Text(column)) ? SqlValue(other.Int(column)) : SqlValue(other.Text(column)));
        break;
      }
    }
    if (IsNumber(now) || rows[row].IsNull(column)) {
      others.push_back(rows[row].Int(column) + 1);
    } else {
      others.push_back("x" + now);
    }
    return others;
  }
  static bool IsNumber(const std::string& text) {
    int64_t number = 0;
    return absl::SimpleAtoi(text, &number);
  }
  static SqlValue ValueOf(const Row& row, const std::string& column) {
    if (row.IsNull(column)) return nullptr;
    return IsNumber(row.Text(column)) ? SqlValue(row.Int(column)) : SqlValue(row.Text(column));
  }
  // False if the store does not take it.
  bool Update(const std::string& table, const std::string& column, const SqlValue& to, const Row& where,
              const std::string& where_column = "", const SqlValue& where_value = nullptr) {
    std::string sql = absl::StrCat("UPDATE ", table, " SET ", column, " = :to WHERE 1 = 1");
    SqlParams params = {{"to", to}};
    for (const std::string& name : Tables().at(table)) {
      const bool changed = name == where_column;
      const SqlValue value = changed ? where_value : ValueOf(where, name);
      if (std::holds_alternative<std::monostate>(value.variant())) {
        absl::StrAppend(&sql, " AND ", name, " IS NULL");
        continue;
      }
      absl::StrAppend(&sql, " AND ", name, " = :w_", name);
      params.push_back({"w_" + name, value});
    }
    int64_t affected = 0;
    const absl::Status status = h_.database->Write([&](Transaction& tx) -> absl::Status {
      auto updated = tx.Exec(sql, params);
      if (updated.ok()) affected = *updated;
      return updated.status();
    });
    EXPECT_TRUE(!status.ok() || affected == 1) << sql;
    return status.ok();
  }

  Harness h_{GetParam()};
  std::map<std::string, std::set<Stored>> stored_;
  int reads_ = 0;
  int opened_ = 0;
};

TEST_P(EditedStoreTest, ARecordGivesWhatWasStoredInItOrNothing) {
  Fill();
  ReadEverything("unedited");
  const int opened = opened_;
  EXPECT_GE(opened, 12);
  int edits = 0;
  for (const auto& [table, columns] : Tables()) {
    const Rows rows = h_.Query(absl::StrCat("SELECT ", absl::StrJoin(columns, ", "), " FROM ", table));
    ASSERT_FALSE(rows.empty()) << table;
    for (const std::string& column : columns) {
      // Some of them, from the first to near the last: the rows of a table are alike.
      for (size_t row = 0; row < rows.size(); row += 1 + rows.size() / kRowsEdited) {
        for (const SqlValue& other : OthersFor(rows, row, column)) {
          if (!Update(table, column, other, rows[row])) continue;  // Two rows of one key.
          ++edits;
          ReadEverything(absl::StrCat(table, ".", column, " of row ", row, " edited"));
          ASSERT_TRUE(Update(table, column, ValueOf(rows[row], column), rows[row], column, other));
          if (HasFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(edits, 100);
  EXPECT_LT(opened_, reads_);
  opened_ = 0;
  ReadEverything("restored");
  EXPECT_EQ(opened_, opened);
}

INSTANTIATE_TEST_SUITE_P(Engines, EditedStoreTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& test) { return test.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql"; });

// The list of columns above is that of the store.
TEST(EditedStoreColumnsTest, AreAllThereAre) {
  Harness harness;
  std::map<std::string, std::vector<std::string>> found;
  for (const auto& [table, columns] : Tables()) {
    for (const Row& row :
         harness.Query(absl::StrCat("SELECT name FROM pragma_table_info('", table, "') ORDER BY cid"))) {
      found[table].push_back(row.Text("name"));
    }
  }
  EXPECT_EQ(found, Tables());
}

}  // namespace
}  // namespace sallyport::vault
