// SPDX-License-Identifier: Apache-2.0
// Records listed by what their names begin with; on both engines.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::ElementsAre;
using testing::Harness;
using testing::Service;

class VaultListTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  static v1::RecordName Flow(const std::string& name) {
    return testing::Name(v1::SYSTEM, "token_broker", "link_flow", name);
  }
  std::vector<std::string> Flows(const std::string& prefix, int limit = 0) {
    v1::ListRequest list;
    list.set_owner_type(v1::SYSTEM);
    list.set_owner_id("token_broker");
    list.set_kind("link_flow");
    list.set_name_prefix(prefix);
    list.set_limit(limit);
    const auto listed = harness_->vault->List(Service("token_broker"), list);
    EXPECT_THAT(listed, IsOk());
    std::vector<std::string> names;
    for (int i = 0; listed.ok() && i < listed->records_size(); ++i) {
      names.push_back(listed->records(i).record().name());
    }
    return names;
  }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, VaultListTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(VaultListTest, LinksUnderWayOfOneUserAndAppAndOfNobodyElse) {
  const std::string ours(32, 'a');
  const std::string theirs = std::string(31, 'a') + "b";
  for (const std::string& name : {ours + ":1", ours + ":2", theirs + ":1", ours + "a", std::string("of an old one")}) {
    ASSERT_THAT(harness_->Put(Service("token_broker"), Flow(name), "flow"), IsOk());
  }
  EXPECT_THAT(Flows(ours + ":"), ElementsAre(ours + ":1", ours + ":2"));
  EXPECT_THAT(Flows(ours + ":", 1), ElementsAre(ours + ":1"));
  EXPECT_THAT(Flows(ours + ":2"), ElementsAre(ours + ":2"));
  EXPECT_THAT(Flows(theirs), ElementsAre(theirs + ":1"));
  EXPECT_THAT(Flows("of"), ElementsAre("of an old one")) << "by any other prefix too";
  EXPECT_EQ(Flows("").size(), 5U);
}

TEST_P(VaultListTest, ThereIsAnIndexOfWhoseLinkItIs) {
  if (GetParam() != SqlDialect::kSqlite) GTEST_SKIP() << "PostgreSQL decides by its statistics";
  std::string plan;
  for (const Row& row : harness_->Query("EXPLAIN QUERY PLAN SELECT * FROM record WHERE kind = 'link_flow' AND "
                                        "substr(name, 1, 32) = :whose ORDER BY name",
                                        {{"whose", std::string(32, 'a')}})) {
    absl::StrAppend(&plan, row.Text("detail"), "\n");
  }
  EXPECT_THAT(plan, ::testing::HasSubstr("record_flow"));
}

}  // namespace
}  // namespace sallyport::vault
