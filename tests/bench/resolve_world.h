// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <grpcpp/grpcpp.h>
#include <sys/types.h>

#include "common/clock.h"
#include "common/redis/client.h"
#include "common/rpc/server.h"
#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"
#include "services/token_broker/token_cache.h"
#include "tests/testing/fakes/fake_audit.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_registry.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/redis.h"
#include "tests/testing/test_certs.h"

namespace sallyport::token_broker {

// A caller with an account whose token lies in Redis and nowhere else: whoever gets it got it from there.
struct BenchUser {
  std::string subject;
  std::string passport;
  std::string token;
  std::string redis_key;
  std::string sealed;
};

// The sallyport-token-broker program with a real Redis and mTLS, its peers as fakes in this process, and beside it a
// bare echo of the same messages in a process of its own (this program with --echo).
class ResolveWorld {
 public:
  // `directory`: where the program sallyport-token-broker is.
  static absl::StatusOr<std::unique_ptr<ResolveWorld>> Start(const std::string& directory, size_t users);
  ~ResolveWorld();

  const std::vector<BenchUser>& users() const { return users_; }
  // What the edge asks for each of them.
  const v1::ResolveCredentialsRequest& request() const { return request_; }
  // What the echo answers.
  const v1::ResolveCredentialsResponse& answer() const { return answer_; }
  const std::shared_ptr<grpc::Channel>& broker() const { return broker_; }
  const std::shared_ptr<grpc::Channel>& echo() const { return echo_; }
  pid_t broker_pid() const { return broker_pid_; }
  pid_t echo_pid() const { return echo_pid_; }
  std::string redis_socket() const { return redis_->address().substr(5); }

  // Every user gets a passport that the broker has not seen.
  void RenewPassports();
  // The broker has nothing in memory any more of what it found in Redis.
  absl::Status EmptyMemory();
  // The broker goes on hearing from the registry.
  void Heartbeat() { registry_->Heartbeat(); }

  // Keys that were asked for in Redis so far.
  struct RedisReads {
    int64_t hits = 0;
    int64_t misses = 0;
  };
  absl::StatusOr<RedisReads> Reads() const;
  // Reads of the vault so far.
  int64_t vault_reads() const { return vault_reads_.load(); }

 private:
  explicit ResolveWorld(size_t users);
  absl::Status Begin(const std::string& directory);
  void WriteCertificates();
  absl::Status StartPeers();
  absl::Status StoreBinding();
  absl::Status FillRedis();
  absl::Status StartBroker(const std::string& program);
  absl::Status StartEcho();
  absl::StatusOr<std::shared_ptr<grpc::Channel>> ChannelTo(const std::string& target) const;
  absl::StatusOr<std::unique_ptr<RpcServer>> Serve(const std::string& service, ServiceFactory factory) const;
  absl::StatusOr<vault::v1::GetCacheRootsResponse> RootsOf(vault::v1::OwnerType type, const std::string& id,
                                                           const std::string& passport);
  // As the replica does that renewed the token.
  absl::Status Share(RedisClient& redis, const CacheNames& names, BenchUser& user);
  std::string Sign(const std::string& subject) const;
  absl::StatusOr<v1::ResolveCredentialsResponse> AskForProbe() const;

  const SystemClock clock_;
  const ::sallyport::testing::TempDirectory directory_;
  std::unique_ptr<::sallyport::testing::TestRedis> redis_;
  ::sallyport::testing::FakeVault vault_{clock_};
  std::atomic<int64_t> vault_reads_{0};
  // Of the servers below.
  ::sallyport::testing::FakeRegistry* registry_ = nullptr;
  ::sallyport::testing::FakeAuthn* authn_ = nullptr;
  std::unique_ptr<RpcServer> vault_server_;
  std::unique_ptr<RpcServer> registry_server_;
  std::unique_ptr<RpcServer> authn_server_;
  std::vector<BenchUser> users_;
  BenchUser probe_;  // Whom no load asks for.
  v1::ResolveCredentialsRequest request_;
  v1::ResolveCredentialsResponse answer_;
  pid_t broker_pid_ = -1;
  pid_t echo_pid_ = -1;
  std::shared_ptr<grpc::Channel> broker_;
  std::shared_ptr<grpc::Channel> echo_;
};

}  // namespace sallyport::token_broker
