// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include <grpcpp/grpcpp.h>

#include "common/rpc/server.h"

// What RpcServer and MakeChannel make of TlsFiles. Replaced files are taken up within seconds.
namespace sallyport {

// INVALID_ARGUMENT naming the first field that is missing or whose file cannot be read.
absl::Status CheckTlsFiles(const TlsFiles& tls);
absl::Status CheckOutsideTlsFiles(const TlsFiles& tls);

// Mutual TLS: a client certificate of tls.ca_bundle is required.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const TlsFiles& tls);
// A certificate that does not verify ends the handshake; none at all does not.
std::shared_ptr<grpc::ServerCredentials> MakeOutsideCredentials(const TlsFiles& tls);
// Mutual TLS with a server that must be spiffe://<trust domain>/<service>.
std::shared_ptr<grpc::ChannelCredentials> MakeChannelCredentials(const TlsFiles& tls, const std::string& service);

}  // namespace sallyport
