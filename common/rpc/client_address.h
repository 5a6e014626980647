// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <grpcpp/server_context.h>

namespace sallyport {

// Metadata key by which the edge says for which client it makes an RPC that needs no passport. As good as the word of
// the caller: to be believed in methods that only the edge may call.
inline constexpr char kClientAddressMetadata[] = "sallyport-client-address";

// Empty if the caller does not say.
inline std::string ClientAddressOf(const grpc::ServerContextBase& context) {
  const auto found = context.client_metadata().find(kClientAddressMetadata);
  return found == context.client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
}

}  // namespace sallyport
