// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/rpc/server.h"

namespace sallyport::token_broker {

// What is measured has the first processor of this machine, and all else the second. On a machine with one they share
// it.
enum class Side { kMeasured, kLoad };
// This thread, and the threads and programs that it starts.
void PinThread(Side side);

// The certificates of a service, where the bench writes them.
TlsFiles TlsIn(const std::string& directory, const std::string& service);
inline constexpr char kTrustDomain[] = "bench.example";

// A gRPC server that answers every ResolveCredentials with the message in `answer_file`, and does nothing else. Returns
// only if it cannot start. `directory`: of the certificates.
int ServeEcho(const std::string& listen, const std::string& directory, const std::string& answer_file);

}  // namespace sallyport::token_broker
