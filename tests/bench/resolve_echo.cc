// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/resolve_echo.h"

#include <fstream>
#include <iostream>
#include <memory>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"

namespace sallyport::token_broker {
namespace {

// Every answer is the same message: what a gRPC server costs that has nothing to do.
class EchoService final : public v1::TokenBroker::WithCallbackMethod_ResolveCredentials<v1::TokenBroker::Service> {
 public:
  explicit EchoService(v1::ResolveCredentialsResponse answer) : answer_(std::move(answer)) {}

  grpc::ServerUnaryReactor* ResolveCredentials(grpc::CallbackServerContext* context,
                                               const v1::ResolveCredentialsRequest* /*request*/,
                                               v1::ResolveCredentialsResponse* response) override {
    *response = answer_;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const v1::ResolveCredentialsResponse answer_;
};

}  // namespace

TlsFiles TlsIn(const std::string& directory, const std::string& service) {
  return {absl::StrCat(directory, "/", service, ".pem"), absl::StrCat(directory, "/", service, ".key"),
          absl::StrCat(directory, "/ca.pem"), kTrustDomain};
}

int ServeEcho(const std::string& listen, const std::string& directory, const std::string& answer_file) {
  std::ifstream in(answer_file, std::ios::binary);
  v1::ResolveCredentialsResponse answer;
  RpcServer::Options options;
  options.listen = listen;
  options.tls = TlsIn(directory, "token_broker");
  if (!answer.ParseFromIstream(&in)) {
    std::cerr << "resolve: cannot read " << answer_file << "\n";
    return 1;
  }
  const auto server = RpcServer::Start(options, [&](const std::shared_ptr<const PeerIdentity>& /*peer*/) {
    std::vector<std::unique_ptr<grpc::Service>> services;
    services.push_back(std::make_unique<EchoService>(answer));
    return services;
  });
  if (!server.ok()) {
    std::cerr << "resolve: " << server.status() << "\n";
    return 1;
  }
  while (true) pause();  // Until a signal ends the process.
}

}  // namespace sallyport::token_broker
