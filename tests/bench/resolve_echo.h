// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/rpc/server.h"

namespace sallyport::token_broker {

// The certificates of a service, where the bench writes them.
TlsFiles TlsIn(const std::string& directory, const std::string& service);
inline constexpr char kTrustDomain[] = "bench.example";

// A gRPC server that answers every ResolveCredentials with the message in `answer_file`, and does nothing else. Returns
// only if it cannot start. `directory`: of the certificates.
int ServeEcho(const std::string& listen, const std::string& directory, const std::string& answer_file);

}  // namespace sallyport::token_broker
