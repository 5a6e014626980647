// SPDX-License-Identifier: Apache-2.0
#include "common/sql/config.h"

#include <gmock/gmock.h>

#include "common/files.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

class SqlConfigTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  sallyport::testing::TempDirectory directory_;
  config::v1::Database config_;
};

TEST_F(SqlConfigTest, WhatIsNotSetStaysAsItWas) {
  config_.set_sqlite("/x/store.db");
  ASSERT_OK_AND_ASSIGN(const Database::Options options, DatabaseOptionsFrom(config_, clock_));
  EXPECT_EQ(options.sqlite_path, "/x/store.db");
  EXPECT_EQ(options.postgresql, "");
  EXPECT_TRUE(options.password.empty());
  EXPECT_EQ(options.pool_size, Database::Options().pool_size);
  EXPECT_EQ(options.clock, &clock_);
}

TEST_F(SqlConfigTest, ThePasswordIsReadFromItsFile) {
  const std::string file = directory_.File("password");
  ASSERT_THAT(WriteFileAtomic(file, "hunter2\n", 0600), IsOk());
  config_.set_postgresql("host=db");
  config_.set_password_file(file);
  config_.set_pool_size(20);
  ASSERT_OK_AND_ASSIGN(const Database::Options options, DatabaseOptionsFrom(config_, clock_));
  EXPECT_EQ(options.postgresql, "host=db");
  EXPECT_EQ(options.password.Expose(), "hunter2");
  EXPECT_EQ(options.pool_size, 20);
}

TEST_F(SqlConfigTest, AMissingPasswordFileIsAnError) {
  config_.set_postgresql("host=db");
  config_.set_password_file(directory_.File("none"));
  EXPECT_THAT(DatabaseOptionsFrom(config_, clock_), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace sallyport
