// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include <grpcpp/grpcpp.h>

#include "services/token_broker/testing/fake_vault_client.h"
#include "tests/testing/fakes/fake_audit.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_platforms.h"
#include "tests/testing/fakes/fake_registry.h"

namespace sallyport::token_broker::testing {

inline constexpr char kPublicUrl[] = "https://gw.example.com";

// Everything the broker calls, behind one port on loopback.
class FakePeers {
 public:
  explicit FakePeers(const Clock& clock)
      : vault(clock), authn(clock, kPublicUrl), platforms(authn, clock), vault_service_(vault, "token_broker") {
    vault.SetAdopted(false);  // Few tests are about where secrets may go, and have bindings.
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&vault_service_);
    builder.RegisterService(&registry);
    builder.RegisterService(&audit);
    builder.RegisterService(&authn);
    builder.RegisterService(&platforms);
    server_ = builder.BuildAndStart();
    target_ = absl::StrCat("127.0.0.1:", port);
  }
  ~FakePeers() { server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200)); }

  std::shared_ptr<grpc::Channel> Channel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments);
  }

  FakeVaultClient vault;
  ::sallyport::testing::FakeRegistry registry;
  ::sallyport::testing::FakeAudit audit;
  ::sallyport::testing::FakeAuthn authn;
  ::sallyport::testing::FakePlatforms platforms;

 private:
  ::sallyport::testing::FakeVaultService vault_service_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace sallyport::token_broker::testing
