// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/server_context.h>

#include "common/rpc/peer_names.h"
#include "sallyport/token_broker/v1/platform.pb.h"

namespace sallyport::token_broker {

// What a caller shows of itself, and for whom it asks. Views into the RPC: lives as long as that.
struct Showing {
  PeerNames names;          // Of its certificate.
  absl::string_view token;  // Of its service account; empty: none.
  const v1::PlatformUser* user = nullptr;
  std::string address;  // As CountedHost.
  // Digests: of names and token, and of everything.
  std::string identity;
  std::string key;
};
// INVALID_ARGUMENT without a user; UNAUTHENTICATED reason platform_unknown without certificate and token, or with a
// certificate that has ended.
absl::StatusOr<Showing> ShowingOf(const grpc::ServerContextBase& context, const v1::PlatformUser& user, absl::Time now);

// As whose guesses those of a gRPC peer ("ipv4:192.0.2.1:4321", "ipv6:[::1]:4321", "ipv6:%5B::1%5D:4321") count: the
// host without its port; who has one IPv6 address has its /64.
std::string CountedHost(absl::string_view peer);

}  // namespace sallyport::token_broker
