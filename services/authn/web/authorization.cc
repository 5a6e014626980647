// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/authorization.h"

#include "common/status_macros.h"
#include "common/text/json.h"
#include "services/authn/web/urls.h"

namespace sallyport::authn::web {

std::string Authorization::own_client_name() const {
  return client_name == RedirectHost(redirect_uri) ? "" : client_name;
}

std::string EncodeAuthorization(const Authorization& authorization) {
  return DumpJson({{"client_id", authorization.client_id},
                   {"client_name", authorization.client_name},
                   {"redirect_uri", authorization.redirect_uri},
                   {"state", authorization.state},
                   {"code_challenge", authorization.code_challenge},
                   {"resource", authorization.resource},
                   {"server_uid", authorization.server_uid},
                   {"named_none", authorization.named_none ? 1 : 0},
                   {"prompt", authorization.prompt},
                   {"begun_at", absl::ToUnixMicros(authorization.begun_at)},
                   {"linking_subject", authorization.linking_subject},
                   {"approved", authorization.approved ? 1 : 0}});
}

absl::StatusOr<Authorization> DecodeAuthorization(absl::string_view text) {
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(text));
  const auto text_of = [&](const char* name) { return JsonString(json, name).value_or(""); };
  Authorization authorization;
  authorization.client_id = text_of("client_id");
  authorization.client_name = text_of("client_name");
  authorization.redirect_uri = text_of("redirect_uri");
  authorization.state = text_of("state");
  authorization.code_challenge = text_of("code_challenge");
  authorization.resource = text_of("resource");
  authorization.server_uid = text_of("server_uid");
  authorization.named_none = JsonInt(json, "named_none").value_or(0) == 1;
  authorization.prompt = text_of("prompt");
  authorization.begun_at = absl::FromUnixMicros(JsonInt(json, "begun_at").value_or(0));
  authorization.linking_subject = text_of("linking_subject");
  authorization.approved = JsonInt(json, "approved").value_or(0) == 1;
  return authorization;
}

}  // namespace sallyport::authn::web
