// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <google/protobuf/descriptor.h>
#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>

#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "services/edge/edge_options.h"
#include "services/edge/http/gateway.h"
#include "services/edge/mcp/in_flight.h"

namespace sallyport::edge {

// The HTTP API: POST /api/<package>.<Service>/<Method> with proto-JSON, transcoded generically from descriptors. Only
// methods whose access option is ANYONE, USER, AUDITOR, ADMIN or CREDENTIAL_ADMIN exist here; who may call them is
// decided by their service, from the passport authn gives for the bearer token or the session cookie.
class ApiHandler {
 public:
  static constexpr uint64_t kBodyLimit = 1 << 20;

  struct Channels {
    std::shared_ptr<grpc::Channel> authn;
    std::shared_ptr<grpc::Channel> token_broker;
    std::shared_ptr<grpc::Channel> vault;
    std::shared_ptr<grpc::Channel> registry;
  };
  // FAILED_PRECONDITION if a method of these services lacks the access option.
  static absl::StatusOr<std::unique_ptr<ApiHandler>> Create(const SiteOptions& site, const Channels& channels);

  void OnRequest(Exchange& exchange);

 private:
  struct Method {
    const google::protobuf::MethodDescriptor* descriptor = nullptr;
    grpc::GenericStub* stub = nullptr;
    bool anyone = false;
  };
  struct Rpc;

  ApiHandler(const SiteOptions& site, const Channels& channels);
  absl::Status AddService(const std::string& full_name, const std::shared_ptr<grpc::Channel>& channel);
  absl::Status CheckCookieRequest(const RequestHead& head) const;
  void Invoke(const std::shared_ptr<Rpc>& rpc);
  static void Fail(const ExchangeRef& ref, const absl::Status& status);

  const SiteOptions& site_;
  const std::unique_ptr<authn::v1::Authn::Stub> authn_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::map<std::string, Method, std::less<>> methods_;  // "package.Service/Method"
  InFlight in_flight_;
};

}  // namespace sallyport::edge
