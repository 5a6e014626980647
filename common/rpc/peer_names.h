// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
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
// UNAUTHENTICATED if the TLS session was resumed (RFC 5077, RFC 8446 section 2.2) and its certificate has ended by
// `now`: nobody has verified it since the session began, which may have been hours ago. A listener that is told of
// other authorities resumes none of its former sessions.
absl::StatusOr<PeerNames> PeerNamesOf(const grpc::ServerContextBase& context, absl::Time now);

}  // namespace sallyport
