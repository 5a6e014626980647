// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <grpcpp/channel.h>

#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "sallyport/web/v1/web.grpc.pb.h"
#include "services/edge/edge_options.h"
#include "services/edge/http/gateway.h"
#include "services/edge/mcp/in_flight.h"

namespace sallyport::edge {

// Pages of authn and the broker: forwarded whole to their owner (web.v1.Web). The session cookie goes to authn only;
// the broker gets a passport instead.
class PageHandler {
 public:
  static constexpr uint64_t kBodyLimit = 64 << 10;
  PageHandler(const SiteOptions& site, const std::shared_ptr<grpc::Channel>& authn,
              const std::shared_ptr<grpc::Channel>& token_broker);

  // Whether a path is a page's.
  static bool Owns(std::string_view path);
  // A person who opened the bare origin in a browser; programs are told that nothing is there.
  static bool IsHome(const RequestHead& head);
  // Who may call it from a page of theirs. kOwn for paths that are none of ours.
  static OriginRule OriginRuleOf(std::string_view path);
  void OnRequest(Exchange& exchange);

 private:
  struct Rpc;
  void CallOwner(const std::shared_ptr<Rpc>& rpc);
  void CallBroker(const std::shared_ptr<Rpc>& rpc);
  void Answer(const std::shared_ptr<Rpc>& rpc, const grpc::Status& status);

  const SiteOptions& site_;
  const std::unique_ptr<authn::v1::Authn::Stub> authn_;
  const std::unique_ptr<web::v1::Web::Stub> authn_pages_;
  const std::unique_ptr<web::v1::Web::Stub> broker_pages_;
  InFlight in_flight_;
};

}  // namespace sallyport::edge
