// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <grpcpp/grpcpp.h>
#include <sys/types.h>

#include "common/clock.h"
#include "common/rpc/server.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"
#include "sallyport/token_broker/v1/platform.grpc.pb.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_platforms.h"
#include "tests/testing/fakes/fake_registry.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/test_certs.h"

namespace sallyport::token_broker {

// For whom the platform asks: a user with an account.
struct PlatformBenchUser {
  std::string subject;
  std::string token;
  v1::GetTokenRequest request;
};

// Counts tokens that were recorded, and keeps nothing.
class CountingAudit final : public audit::v1::Audit::Service {
 public:
  explicit CountingAudit(std::atomic<int64_t>& tokens) : tokens_(tokens) {}
  grpc::Status Append(grpc::ServerContext* /*context*/, const audit::v1::AppendRequest* request,
                      audit::v1::AppendResponse* response) override;

 private:
  std::atomic<int64_t>& tokens_;
};

// The sallyport-token-broker program with a listener for platforms, its peers as fakes in this process, and beside it a
// bare echo of the same messages on the same TLS in a process of its own (this program with --echo).
class PlatformWorld {
 public:
  // `directory`: where the program sallyport-token-broker is.
  static absl::StatusOr<std::unique_ptr<PlatformWorld>> Start(const std::string& directory, size_t users);
  ~PlatformWorld();

  const std::vector<PlatformBenchUser>& users() const { return users_; }
  // What the echo answers.
  const v1::GetTokenResponse& answer() const { return answer_; }
  const std::shared_ptr<grpc::Channel>& broker() const { return broker_; }
  const std::shared_ptr<grpc::Channel>& echo() const { return echo_; }
  pid_t broker_pid() const { return broker_pid_; }
  pid_t echo_pid() const { return echo_pid_; }

  // The broker knows of nobody any more, and has no tokens.
  absl::Status EmptyMemory();
  // The broker goes on hearing from the registry.
  void Heartbeat() { registry_->Heartbeat(); }
  // What it has asked others so far.
  int64_t questions() const { return vault_reads_.load() + platforms_->calls(); }
  // Tokens on record so far.
  int64_t recorded() const { return recorded_.load(); }

 private:
  explicit PlatformWorld(size_t users);
  absl::Status Begin(const std::string& directory);
  void WriteCertificates();
  absl::Status StartPeers();
  absl::Status FillVault();
  absl::Status StartBroker(const std::string& program);
  absl::Status StartEcho();
  absl::StatusOr<std::shared_ptr<grpc::Channel>> ChannelTo(const std::string& target) const;
  absl::StatusOr<std::unique_ptr<RpcServer>> Serve(const std::string& service, ServiceFactory factory) const;
  absl::StatusOr<v1::GetTokenResponse> AskForProbe();

  const SystemClock clock_;
  const ::sallyport::testing::TempDirectory directory_;
  ::sallyport::testing::FakeVault vault_{clock_};
  std::atomic<int64_t> vault_reads_{0};
  std::atomic<int64_t> recorded_{0};
  // Of the servers below.
  ::sallyport::testing::FakeRegistry* registry_ = nullptr;
  ::sallyport::testing::FakePlatforms* platforms_ = nullptr;
  std::unique_ptr<RpcServer> vault_server_;
  std::unique_ptr<RpcServer> registry_server_;
  std::unique_ptr<RpcServer> authn_server_;
  std::vector<PlatformBenchUser> users_;
  PlatformBenchUser probe_;  // Whom no load asks for.
  v1::GetTokenResponse answer_;
  pid_t broker_pid_ = -1;
  pid_t echo_pid_ = -1;
  std::shared_ptr<grpc::Channel> broker_;
  std::shared_ptr<grpc::Channel> echo_;
};

// A gRPC server on the broker's TLS that answers every GetToken with the message in `answer_file`, and does nothing
// else. Returns only if it cannot start. `directory`: of the certificates.
int ServePlatformEcho(const std::string& listen, const std::string& directory, const std::string& answer_file);

}  // namespace sallyport::token_broker
