// SPDX-License-Identifier: Apache-2.0
#include "services/authn/identity_codec.h"

#include "common/text/json.h"

namespace sallyport::authn {

std::string EncodeIdentity(const Identity& identity) {
  return DumpJson({{"subject", identity.subject},
                   {"connector", identity.connector},
                   {"issuer", identity.issuer},
                   {"email", identity.email},
                   {"email_verified", identity.email_verified},
                   {"name", identity.name},
                   {"groups", identity.groups},
                   {"groups_overage", identity.groups_overage}});
}

absl::StatusOr<Identity> DecodeIdentity(absl::string_view text) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text);
  if (!json.ok() || !JsonString(*json, "subject").has_value()) {
    return absl::DataLossError("a stored identity does not parse");
  }
  Identity identity;
  identity.subject = JsonString(*json, "subject").value_or("");
  identity.connector = JsonString(*json, "connector").value_or("");
  identity.issuer = JsonString(*json, "issuer").value_or("");
  identity.email = JsonString(*json, "email").value_or("");
  identity.email_verified = JsonBool(*json, "email_verified").value_or(false);
  identity.name = JsonString(*json, "name").value_or("");
  identity.groups = JsonStrings(*json, "groups").value_or(std::vector<std::string>());
  identity.groups_overage = JsonBool(*json, "groups_overage").value_or(false);
  return identity;
}

}  // namespace sallyport::authn
