// SPDX-License-Identifier: Apache-2.0
#include "services/edge/snapshot_file.h"

#include <filesystem>
#include <fstream>

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

class SnapshotFileTest : public ::testing::Test {
 protected:
  static std::shared_ptr<const RegistrySnapshot> WithServers(int count) {
    auto snapshot = std::make_shared<RegistrySnapshot>();
    snapshot->store_id = "store-1";
    snapshot->revision = count;
    for (int i = 0; i < count; ++i) {
      auto server = std::make_shared<registry::v1::McpServer>();
      server->set_uid("srv_" + std::to_string(i));
      server->set_slug("s" + std::to_string(i));
      server->set_description(std::string(1000, 'x'));
      snapshot->servers_by_uid[server->uid()] = server;
      snapshot->servers_by_slug[server->slug()] = server;
    }
    return snapshot;
  }
  // What an edge that restarts without a registry serves.
  absl::StatusOr<std::shared_ptr<const RegistrySnapshot>> Restart() {
    ControlStream control(grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials()), clock_);
    const SnapshotFile file(path_);
    const absl::Status loaded = file.Load(control);
    if (!loaded.ok()) return loaded;
    return control.snapshot();
  }

  FakeClock clock_;
  sallyport::testing::TempDirectory directory_;
  const std::string path_ = directory_.path() + "/snapshot";
};

TEST_F(SnapshotFileTest, WithoutAFileThereIsNothing) { EXPECT_THAT(Restart(), StatusIs(Code::kNotFound)); }

TEST_F(SnapshotFileTest, ThousandsOfServersSurviveARestart) {
  { SnapshotFile(path_).Save(WithServers(5000)); }  // Written when it ends at the latest.
  ASSERT_GT(std::filesystem::file_size(path_), 4U << 20) << "more than one message of gRPC holds";
  ASSERT_OK_AND_ASSIGN(const auto snapshot, Restart());
  EXPECT_EQ(snapshot->servers_by_uid.size(), 5000U);
  EXPECT_EQ(snapshot->revision, 5000);
  ASSERT_NE(snapshot->ServerBySlug("s4999"), nullptr);
}

TEST_F(SnapshotFileTest, OfSeveralTheLastIsKept) {
  {
    SnapshotFile file(path_);
    for (int count = 1; count <= 20; ++count) file.Save(WithServers(count));
  }
  ASSERT_OK_AND_ASSIGN(const auto snapshot, Restart());
  EXPECT_EQ(snapshot->revision, 20);
}

TEST_F(SnapshotFileTest, ADamagedFileIsRefused) {
  { SnapshotFile(path_).Save(WithServers(3)); }
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 10);
  EXPECT_THAT(Restart(), StatusIs(Code::kInvalidArgument));
  std::ofstream(path_, std::ios::trunc);
  EXPECT_THAT(Restart(), StatusIs(Code::kInvalidArgument));
}

}  // namespace
}  // namespace sallyport::edge
