// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/peer_names.h"

#include <grpc/grpc_security_constants.h>

namespace sallyport {
namespace {

std::vector<std::string> ValuesOf(const grpc::AuthContext& auth, const char* property) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : auth.FindPropertyValues(property)) {
    values.emplace_back(value.data(), value.size());
  }
  return values;
}

}  // namespace

PeerNames PeerNamesOf(const grpc::ServerContextBase& context) {
  const auto auth = context.auth_context();
  if (auth == nullptr) {
    return {};
  }
  // Not x509_subject_alternative_name, where names of all kinds stand side by side.
  return {ValuesOf(*auth, GRPC_PEER_URI_PROPERTY_NAME), ValuesOf(*auth, GRPC_PEER_DNS_PROPERTY_NAME)};
}

}  // namespace sallyport
