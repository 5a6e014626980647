// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/oauth/issuer_metadata.h"
#include "common/rpc/handler.h"
#include "sallyport/authn/v1/issuers.grpc.pb.h"

namespace sallyport::authn {

// Metadata of issuers that apps name, for the registry's warnings: short-lived, unlike that of connectors.
oauth::MetadataCache::Options AppIssuerOptions();

// gRPC to a MetadataCache; one per listener.
class IssuersService final : public v1::Issuers::Service {
 public:
  // `metadata` and what `options` points to outlive this.
  IssuersService(oauth::MetadataCache& metadata, RpcHandler::Options options)
      : metadata_(metadata), rpc_(std::move(options)) {}

  grpc::Status DescribeIssuer(grpc::ServerContext* context, const v1::DescribeIssuerRequest* request,
                              v1::DescribeIssuerResponse* response) override;

 private:
  oauth::MetadataCache& metadata_;
  RpcHandler rpc_;
};

}  // namespace sallyport::authn
