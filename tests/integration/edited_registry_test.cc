// SPDX-License-Identifier: Apache-2.0
// Every column of the registry's database edited by hand: no secret goes to an origin it was not entered for.
#include <algorithm>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/text/base64url.h"
#include "tests/integration/credential_path_testing.h"
#include "tests/integration/edited_messages.h"
#include "tests/integration/edited_tables.h"

namespace sallyport {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using testing::IsOk;

// Another number: times that are absent are the least there is, and have none before them.
int64_t Shifted(int64_t number, int64_t step) {
  return static_cast<int64_t>(static_cast<uint64_t>(number) + static_cast<uint64_t>(step));
}

class EditedRegistryTest : public CredentialPathTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(CredentialPathTest::SetUp());
    asked_ = {KeyOf(unedited_)};
  }

  enum class Restart { kNo, kYes };
  // Puts other rows in a table's place, looks at what comes of it, and puts the former ones back.
  void Try(const Table& edited, size_t column, const std::string& way, Restart restart = Restart::kNo) {
    const std::string what = absl::StrCat(edited.name, ".", edited.columns[column].name, " ", way);
    const Table& original =
        *std::find_if(tables_.begin(), tables_.end(), [&](const Table& table) { return table.name == edited.name; });
    if (HasFailure() || edited.Values(column) == original.Values(column)) return;
    if (!editor_->Replace({edited}).ok()) return;  // Two rows of one key.
    ++edits_;
    if (restart == Restart::kYes) {
      const auto started = path_->StartRegistry();  // It may refuse to.
      if (started.ok()) Ask(**started, what);
    } else {
      Ask(*registry_, what);
    }
    // One that starts writes to other tables as well.
    ASSERT_THAT(editor_->Replace(restart == Restart::kYes ? tables_ : std::vector<Table>{original}), IsOk()) << what;
  }
  void Ask(registry::RegistryServer& registry, const std::string& what) {
    for (const CredentialPath::Snapshot& snapshot : Streamed(registry)) {
      if (!asked_.insert(KeyOf(snapshot)).second) continue;
      EXPECT_THAT(Call(snapshot).leaks, ::testing::IsEmpty()) << what;
    }
  }
  // With a provider that was moved as well no user's token is good any more: so upstreams are also moved alone.
  enum class Which { kAll, kUpstreams };
  std::string WithEvil(const std::string& text, Which which = Which::kAll) const {
    const std::string moved = absl::StrReplaceAll(text, {{kApi, evil_}, {kOther, evil_}});
    return which == Which::kAll ? absl::StrReplaceAll(moved, {{path_->provider_origin(), evil_}}) : moved;
  }
  void Move(Message& message, const FieldDescriptor& field, int index, Which which = Which::kAll) const {
    const std::string text = TextOf(message, field, index);
    if (absl::StrContains(text, "://")) SetText(message, field, index, WithEvil(text, which));
  }
  // Null for a cell that holds no message.
  static std::unique_ptr<Message> Parse(const Table& table, size_t row, size_t column) {
    std::unique_ptr<Message> message;
    const std::string& name = table.columns[column].name;
    if (table.name == "resource" && name == "body") {
      const std::string kind = table.Text(row, table.Find("kind"));
      if (kind == "McpServer") message = std::make_unique<registry::v1::McpServer>();
      if (kind == "App") message = std::make_unique<registry::v1::App>();
      if (kind == "Credential") message = std::make_unique<registry::v1::Credential>();
    } else if (table.name == "change_log" && name == "body") {
      message = std::make_unique<registry::v1::Invalidation>();
    } else if (name == "body" || name == "event") {
      message = std::make_unique<audit::v1::Event>();
    }
    const auto bytes = Base64UrlDecode(table.Text(row, column));
    const bool parsed = message != nullptr && bytes.ok() && message->ParseFromString(*bytes);
    return parsed ? std::move(message) : nullptr;
  }
  // What the stream is made of.
  static bool IsStreamed(const Table& table) {
    return table.name == "resource" || table.name == "change_log" || table.name == "meta" || table.name == "counter";
  }
  static bool IsThiefs(const Table& table, size_t row) {
    const size_t slug = table.Find("slug");
    return slug < table.columns.size() && table.Text(row, slug) == "thief";
  }

  // Each row by itself.
  void EditCells(const Table& table, size_t column) {
    for (size_t row = 0; row < table.rows.size(); ++row) {
      const auto set = [&](const SqlValue& value, const std::string& what) {
        Table edited = table;
        edited.rows[row][column] = value;
        Try(edited, column, absl::StrCat("row ", row, " ", what));
      };
      if (table.columns[column].number) {
        const int64_t now = table.Number(row, column);
        for (const int64_t other : {Shifted(now, 1), Shifted(now, -1), int64_t{0}}) set(other, absl::StrCat(other));
      } else if (const auto message = Parse(table, row, column); message != nullptr) {
        EditFields(*message, set);
      } else {
        set(WithEvil(table.Text(row, column)), "moved");
        set(table.Text(row, column) + "x", "another text");
      }
    }
  }
  // Each field of a message by itself.
  void EditFields(const Message& original, const std::function<void(const SqlValue&, const std::string&)>& set) const {
    std::unique_ptr<Message> edited(original.New());
    const auto edit = [&](int chosen, const FieldUse& how) {
      edited->CopyFrom(original);
      int at = 0;
      std::string what = "every field";
      ForEachField(*edited, [&](Message& message, const FieldDescriptor& field, int index) {
        if (chosen >= 0 && at++ != chosen) return;
        if (chosen >= 0) what = field.full_name();
        how(message, field, index);
      });
      set(Bytes{edited->SerializeAsString()}, what);
    };
    const FieldUse move = [this](Message& message, const FieldDescriptor& field, int index) {
      Move(message, field, index);
    };
    int fields = 0;
    edited->CopyFrom(original);
    ForEachField(*edited, [&](const auto&...) { ++fields; });
    edit(-1, move);
    for (int chosen = 0; chosen < fields; ++chosen) {
      edit(chosen, move);
      for (const int64_t step : {1, -1}) {
        edit(chosen, [step](Message& message, const FieldDescriptor& field, int /*index*/) {
          const auto& reflection = *message.GetReflection();
          if (field.cpp_type() != FieldDescriptor::CPPTYPE_INT64 || field.is_repeated()) return;
          reflection.SetInt64(&message, &field, Shifted(reflection.GetInt64(message, &field), step));
        });
      }
      edit(chosen, [](Message& message, const FieldDescriptor& field, int /*index*/) {
        if (field.cpp_type() != FieldDescriptor::CPPTYPE_STRING) message.GetReflection()->ClearField(&message, &field);
      });
    }
  }
  // The victims' values in the thief's rows, the thief's in theirs, and exchanged.
  void ExchangeWithThief(const Table& table, size_t column) {
    for (size_t thief = 0; thief < table.rows.size(); ++thief) {
      for (size_t victim = 0; victim < table.rows.size() && IsThiefs(table, thief); ++victim) {
        const std::string what = absl::StrCat("rows ", thief, " and ", victim);
        for (const auto& [to_thief, to_victim] : {std::pair(true, false), {false, true}, {true, true}}) {
          Table edited = table;
          if (to_thief) edited.rows[thief][column] = table.rows[victim][column];
          if (to_victim) edited.rows[victim][column] = table.rows[thief][column];
          Try(edited, column, what);
        }
        ExchangeFields(table, column, thief, victim);
        ExchangeFields(table, column, victim, thief);
      }
    }
  }
  void ExchangeFields(const Table& table, size_t column, size_t from, size_t to) {
    const auto giver = Parse(table, from, column);
    const auto taker = Parse(table, to, column);
    if (giver == nullptr || taker == nullptr || giver->GetDescriptor() != taker->GetDescriptor()) return;
    for (int i = 0; i < giver->GetDescriptor()->field_count(); ++i) {
      const FieldDescriptor& field = *giver->GetDescriptor()->field(i);
      if (IsTime(field.message_type())) continue;
      Table edited = table;
      edited.rows[to][column] = Bytes{WithFieldOf(*giver, *taker, field)};
      Try(edited, column, absl::StrCat(field.full_name(), " of row ", from, " in row ", to));
    }
  }
  // A cell with the thief's origin wherever it has another's.
  SqlValue Moved(const Table& table, size_t row, size_t column, Which which) const {
    const auto moved = Parse(table, row, column);
    if (moved == nullptr) return WithEvil(table.Text(row, column), which);
    ForEachField(
        *moved, [&](Message& message, const FieldDescriptor& field, int index) { Move(message, field, index, which); });
    return Bytes{moved->SerializeAsString()};
  }
  // All rows at once, as a registry finds them that starts then.
  void EditTogether(const Table& table, size_t column) {
    const auto every = [&](const std::string& way, const std::function<SqlValue(size_t row)>& other) {
      Table edited = table;
      for (size_t row = 0; row < table.rows.size(); ++row) edited.rows[row][column] = other(row);
      Try(edited, column, "of every row " + way, Restart::kYes);
    };
    every("rotated", [&](size_t row) { return table.rows[(row + 1) % table.rows.size()][column]; });
    if (table.columns[column].number) {
      for (const int64_t step : {1, -1}) {
        every(absl::StrCat("by ", step), [&](size_t row) { return Shifted(table.Number(row, column), step); });
      }
      return every("to 0", [](size_t) { return 0; });
    }
    every("with another text", [&](size_t row) { return table.Text(row, column) + "x"; });
    for (const Which which : {Which::kAll, Which::kUpstreams}) {
      every(which == Which::kAll ? "moved" : "with other upstreams",
            [&](size_t row) { return Moved(table, row, column, which); });
    }
  }

  std::set<std::string> asked_;  // What the broker was asked about.
  int edits_ = 0;
};

TEST_P(EditedRegistryTest, ASecretGoesOnlyWhereItWasEnteredFor) {
  const Outcome before = Call(unedited_);
  EXPECT_THAT(before.leaks, ::testing::IsEmpty());
  EXPECT_THAT(before.given, ::testing::SizeIs(10)) << "every server but the thief's";
  const std::string seen = path_->provider_saw();
  for (const char* secret : {"canary-client-secret.", "canary-announced-secret.", "canary-refresh."}) {
    EXPECT_THAT(seen, ::testing::HasSubstr(secret));
  }
  for (const Table& table : tables_) {
    ASSERT_FALSE(table.rows.empty()) << table.name << ": nothing to edit";
    for (size_t column = 0; column < table.columns.size() && !HasFailure(); ++column) {
      const int edits = edits_;
      if (IsStreamed(table)) {
        EditCells(table, column);
        ExchangeWithThief(table, column);
      }
      EditTogether(table, column);
      EXPECT_GT(edits_, edits) << table.name << "." << table.columns[column].name << " was not edited";
    }
  }
  EXPECT_GT(asked_.size(), 150U) << "edits that the broker was told of";
  called_.clear();
  EXPECT_EQ(Call(unedited_).given, before.given) << "and afterwards as before";
}

// The thief does receive what was entered for the thief's origin too: nothing but the seal holds the others back.
TEST_P(EditedRegistryTest, ASecretGoesToEveryOriginItWasEnteredFor) {
  const auto bearer = std::find_if(unedited_.mcp_servers().begin(), unedited_.mcp_servers().end(),
                                   [](const auto& server) { return server.slug() == "bearer"; });
  registry::v1::McpServer server = *bearer;
  common::v1::Secret& token = *server.mutable_app_auth()->mutable_bearer()->mutable_token();
  vault::v1::PutRequest put;
  *put.mutable_record() = token_broker::OrganizationRecord("server_secret", token.vault_record());
  put.set_payload("canary-bearer.");
  put.add_origins(kApi);
  put.add_origins(evil_);
  vault::v1::PutResponse stored;
  const auto context = MakeClientContext(absl::Minutes(1), path_->SignAdmin());
  const auto vault = vault::v1::Vault::NewStub(path_->vault_for_registry());
  ASSERT_THAT(FromGrpcStatus(vault->Put(context.get(), put, &stored)), IsOk());

  token.set_version(stored.version());
  server.set_upstream_url(evil_ + "/mcp");
  ASSERT_THAT(database_->Write([&](Transaction& tx) {
    return tx
        .Exec("UPDATE resource SET body = :body WHERE uid = :uid",
              {{"body", Bytes{server.SerializeAsString()}}, {"uid", server.uid()}})
        .status();
  }),
              IsOk());
  const std::vector<CredentialPath::Snapshot> streamed = Streamed(*registry_);
  ASSERT_THAT(streamed, ::testing::SizeIs(2)) << "to a new watcher, and to one that resumes";
  for (const CredentialPath::Snapshot& snapshot : streamed) {
    EXPECT_THAT(Call(snapshot).leaks, ::testing::ElementsAre(evil_ + " gets Bearer canary-bearer. of bearer"));
  }
}

// An administrator saves what the registry shows, without a look at the address: nothing is sealed for it.
TEST_P(EditedRegistryTest, SavingAnEditedServerSealsNoSignInsForIt) {
  registry::v1::McpServer server = *std::find_if(unedited_.mcp_servers().begin(), unedited_.mcp_servers().end(),
                                                 [](const auto& one) { return one.slug() == "forward"; });
  server.set_upstream_url(evil_ + "/mcp");
  server.clear_binding();
  ASSERT_THAT(database_->Write([&](Transaction& tx) {
    return tx
        .Exec("UPDATE resource SET body = :body WHERE uid = :uid",
              {{"body", Bytes{server.SerializeAsString()}}, {"uid", server.uid()}})
        .status();
  }),
              IsOk());
  registry::v1::UpdateMcpServerRequest update;
  *update.mutable_mcp_server() = server;
  update.mutable_mcp_server()->set_description("Another description");
  registry::v1::WriteMcpServerResponse response;
  const auto context = MakeClientContext(absl::Minutes(1), path_->SignAdmin({"admin"}));
  const auto stub = registry::v1::Registry::NewStub(registry_->InProcessChannel("edge"));
  ASSERT_THAT(FromGrpcStatus(stub->UpdateMcpServer(context.get(), update, &response)), IsOk());
  for (const CredentialPath::Snapshot& snapshot : Streamed(*registry_)) {
    EXPECT_THAT(Call(snapshot).leaks, ::testing::IsEmpty());
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, EditedRegistryTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& test) { return test.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql"; });

}  // namespace
}  // namespace sallyport
