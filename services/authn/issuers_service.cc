// SPDX-License-Identifier: Apache-2.0
#include "services/authn/issuers_service.h"

#include "common/status_macros.h"

namespace sallyport::authn {
namespace {

constexpr absl::Duration kFresh = absl::Minutes(10);
constexpr absl::Duration kRetry = absl::Seconds(10);
constexpr char kBasic[] = "client_secret_basic";

}  // namespace

oauth::MetadataCache::Options AppIssuerOptions() {
  // Nothing is told about an issuer that is down but that it is.
  return {.timing = {kFresh, kRetry, kRetry, kFresh}, .required = false};
}

grpc::Status IssuersService::DescribeIssuer(grpc::ServerContext* context, const v1::DescribeIssuerRequest* request,
                                            v1::DescribeIssuerResponse* response) {
  return rpc_.Handle("DescribeIssuer", context, response,
                     [&](const Caller&) -> absl::StatusOr<v1::DescribeIssuerResponse> {
                       ASSIGN_OR_RETURN(const auto metadata, metadata_.Get(request->issuer(), rpc_.clock().Now()));
                       v1::DescribeIssuerResponse described;
                       const auto& methods = metadata->token_endpoint_auth_methods;
                       if (!methods.has_value()) {
                         described.add_token_endpoint_auth_methods(kBasic);
                       } else {
                         described.mutable_token_endpoint_auth_methods()->Assign(methods->begin(), methods->end());
                       }
                       return described;
                     });
}

}  // namespace sallyport::authn
