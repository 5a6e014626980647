// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/registry/findings.h"
#include "services/registry/urls.h"
#include "services/registry/validation.h"

// The types of app authentication and the sources of outbound headers. Each has one pair of functions here: what of it
// can be saved, and which pieces of a plan it becomes.
namespace sallyport::registry {

using Plan = v1::CredentialPlan;

// Where a credential is configured, and what it is to write.
struct Rule {
  const v1::McpServer& server;
  std::string field;   // Of the type, for findings: "appAuth.bearer", "outboundHeaders[0].literal".
  std::string id;      // Of its pieces.
  std::string name;    // Header; a type of app authentication may say another.
  std::string prefix;  // The same.
};
struct Checks {
  const ResourceUrls& urls;
  const ValidationContext& context;
  Findings& findings;
};

// caller_credentials.cc: what is entered or linked in a browser needs a caller who can be the one who is signed in
// there.
void NeedsCallerWithSession(const Rule& rule, const Checks& checks);

// static_credentials.cc
void Validate(const v1::AppAuth::ApiKey& key, const Rule& rule, const Checks& checks);
void Lower(const v1::AppAuth::ApiKey& key, const Rule& rule, Plan& plan);
void Validate(const v1::AppAuth::Bearer& bearer, const Rule& rule, const Checks& checks);
void Lower(const v1::AppAuth::Bearer& bearer, const Rule& rule, Plan& plan);
void Validate(const v1::AppAuth::Basic& basic, const Rule& rule, const Checks& checks);
void Lower(const v1::AppAuth::Basic& basic, const Rule& rule, Plan& plan);
void Validate(const v1::OutboundHeader::Literal& literal, const Rule& rule, const Checks& checks);
void Lower(const v1::OutboundHeader::Literal& literal, const Rule& rule, Plan& plan);
void Validate(const v1::OutboundHeader::StoredCredential& stored, const Rule& rule, const Checks& checks);
void Lower(const v1::OutboundHeader::StoredCredential& stored, const Rule& rule, Plan& plan);

// caller_credentials.cc
void Validate(const v1::AppAuth::OAuthAuthorization& oauth, const Rule& rule, const Checks& checks);
void Lower(const v1::AppAuth::OAuthAuthorization& oauth, const Rule& rule, Plan& plan);
void Validate(const v1::AppAuth::Passthrough& passthrough, const Rule& rule, const Checks& checks);
void Lower(const v1::AppAuth::Passthrough& passthrough, const Rule& rule, Plan& plan);
void Validate(const v1::OutboundHeader::ForwardCallerToken& forward, const Rule& rule, const Checks& checks);
void Lower(const v1::OutboundHeader::ForwardCallerToken& forward, const Rule& rule, Plan& plan);
void Validate(const v1::OutboundHeader::CallerIdentity& identity, const Rule& rule, const Checks& checks);
void Lower(const v1::OutboundHeader::CallerIdentity& identity, const Rule& rule, Plan& plan);

// token_credentials.cc
void Validate(const v1::AppAuth::ClientCredentials& credentials, const Rule& rule, const Checks& checks);
void Lower(const v1::AppAuth::ClientCredentials& credentials, const Rule& rule, Plan& plan);
void Validate(const v1::OutboundHeader::OAuth2ServiceToken& token, const Rule& rule, const Checks& checks);
void Lower(const v1::OutboundHeader::OAuth2ServiceToken& token, const Rule& rule, Plan& plan);
void Validate(const v1::OutboundHeader::OnBehalfOf& exchange, const Rule& rule, const Checks& checks);
void Lower(const v1::OutboundHeader::OnBehalfOf& exchange, const Rule& rule, Plan& plan);

// upstream_pieces.cc: where requests go and what the connection shows, where that is a secret.
void LowerUpstream(const v1::McpServer& server, Plan& plan);

// --- what they share (pieces.cc) ---

// A piece with the rule's id, name and prefix: a header, plain, rendered by the broker, for all callers.
Plan::Piece& AddPiece(const Rule& rule, Plan::Scope scope, Plan& plan);
// The reference to a stored value, without a version if there is none.
void Refer(const common::v1::Secret& secret, Plan::StoredSecret* reference);
Plan::TokenKind KindOf(v1::CallerToken token);
// Somebody vouches for who calls: an unverified claim must never choose a credential.
bool HasVerifiedCaller(const v1::AgentAuth& agent);
// A header that an administrator may set.
void ValidateOutboundName(const std::string& name, const std::string& field, Findings& findings);
void ValidatePrefix(const std::string& prefix, const std::string& name, const std::string& field, Findings& findings);

}  // namespace sallyport::registry
