// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>

#include <google/protobuf/message.h>

#include "sallyport/common/v1/secret.pb.h"

namespace sallyport::registry {

// One write-only value of a resource.
struct SecretField {
  // Names the vault record (after "<uid>/"); stable against reordering: outbound headers go by their name.
  // "app_auth.api_key.value", "outbound_headers.x-team.literal.secret_value", "secret_upstream_url"
  std::string path;
  // As the user wrote it: "outboundHeaders[0].literal.secretValue".
  std::string json_path;
  enum class Presence {
    kOptional,
    kRequired,   // A resource without a value here is incomplete.
    kGenerated,  // A private key: one is made where there is none.
    kUnused,     // Of another way to authenticate than the one that was chosen.
  };
  Presence presence = Presence::kOptional;
  // A private key in PEM.
  bool private_key = false;
  // A certificate chain with its private key, in PEM.
  bool client_certificate = false;
  // Of a type that may be exchanged for another: then it is kept for a while, so that switching back works. Others are
  // erased with what they belong to.
  bool of_type = true;
  common::v1::Secret* secret = nullptr;
};

// Visits every Secret that belongs to the message: a Secret field of a message that is there is visited (and created)
// even if it was not given, so that the stored value can be carried over; members of a oneof only if chosen.
void ForEachSecret(google::protobuf::Message& message, const std::function<void(const SecretField&)>& visit);

// Leaves only what an API may show: of secrets set, version, updated_at; of bindings nothing.
void HideSecretInternals(google::protobuf::Message& message);

}  // namespace sallyport::registry
