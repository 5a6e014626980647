// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "services/registry/credentials/types.h"
#include "services/registry/header_names.h"

namespace sallyport::registry {

Plan::Piece& AddPiece(const Rule& rule, Plan::Scope scope, Plan& plan) {
  Plan::Piece& piece = *plan.add_pieces();
  piece.set_id(rule.id);
  piece.set_location(Plan::HEADER);
  piece.set_name(rule.name);
  piece.set_prefix(rule.prefix);
  piece.set_encoding(Plan::PLAIN);
  piece.set_scope(scope);
  piece.set_renderer(Plan::BROKER);
  piece.set_callers(Plan::ANY);
  return piece;
}

void Refer(const common::v1::Secret& secret, Plan::StoredSecret* reference) {
  if (!secret.set()) return;
  reference->set_record(secret.vault_record());
  reference->set_version(secret.version());
}

Plan::TokenKind KindOf(v1::CallerToken token) { return token == v1::ID ? Plan::ID : Plan::ACCESS; }

bool HasVerifiedCaller(const v1::AgentAuth& agent) {
  return agent.has_interactive() || (agent.has_passthrough() && agent.passthrough().has_jwt_validation());
}

void ValidateOutboundName(const std::string& name, const std::string& field, Findings& findings) {
  if (name.empty()) return findings.Refuse(field, "is required");
  if (!IsHeaderName(name)) {
    return findings.Refuse(field, "must be a header name (RFC 9110 section 5.6.2) of at most 128 bytes, without '*'");
  }
  if (IsReservedOutboundName(name)) {
    findings.Refuse(field, "may not be set: it belongs to HTTP framing, to MCP or to the gateway");
  }
}

void ValidatePrefix(const std::string& prefix, const std::string& name, const std::string& field, Findings& findings) {
  if (!prefix.empty() && !IsTrimmedFieldValue(absl::StrCat(prefix, "x"))) {
    findings.Refuse(field, "holds bytes a header value cannot");
  }
  if (NormalizeFieldName(name) == "authorization" && IsConnectionScheme(prefix)) {
    findings.Refuse(field,
                    "authenticates a connection, and callers share connections to the upstream: use a scheme that "
                    "goes with each request, such as Bearer or Basic");
  }
}

}  // namespace sallyport::registry
