// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include <grpcpp/server_context.h>

namespace sallyport {

// The subject alternative names of a caller's certificate, each of its own kind, so that a DNS name never passes for a
// URI (RFC 5280 section 4.2.1.6). Empty if none was shown; one that was shown has been verified by the listener. The
// common name is not looked at.
struct PeerNames {
  std::vector<std::string> uris;
  std::vector<std::string> dns_names;
  bool empty() const { return uris.empty() && dns_names.empty(); }
};
PeerNames PeerNamesOf(const grpc::ServerContextBase& context);

}  // namespace sallyport
