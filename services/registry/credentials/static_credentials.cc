// SPDX-License-Identifier: Apache-2.0
// Values that somebody entered.
#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "services/registry/credentials/types.h"

namespace sallyport::registry {

using Literal = v1::OutboundHeader::Literal;
using StoredCredential = v1::OutboundHeader::StoredCredential;

void Validate(const v1::AppAuth::ApiKey& key, const Rule& rule, const Checks& checks) {
  if (key.location() == v1::QUERY) {
    if (key.name().empty() || key.name().size() > 100)
      checks.findings.Refuse(rule.field + ".name", "is required, at most 100 bytes");
    if (!key.prefix().empty()) checks.findings.Refuse(rule.field + ".prefix", "goes with location HEADER only");
    return;
  }
  ValidateOutboundName(key.name(), rule.field + ".name", checks.findings);
  ValidatePrefix(key.prefix(), key.name(), rule.field + ".prefix", checks.findings);
}
void Lower(const v1::AppAuth::ApiKey& key, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::ORG, plan);
  const bool in_query = key.location() == v1::QUERY;
  piece.set_location(in_query ? Plan::QUERY : Plan::HEADER);
  piece.set_name(key.name());
  piece.set_prefix(in_query ? "" : key.prefix());
  Refer(key.value(), piece.mutable_stored_secret());
}

void Validate(const v1::AppAuth::Bearer& /*bearer*/, const Rule& /*rule*/, const Checks& /*checks*/) {}
void Lower(const v1::AppAuth::Bearer& bearer, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::ORG, plan);
  piece.set_prefix("Bearer ");
  Refer(bearer.token(), piece.mutable_stored_secret());
}

void Validate(const v1::AppAuth::Basic& basic, const Rule& rule, const Checks& checks) {
  const std::string field = rule.field + ".username";
  if (basic.username().empty()) checks.findings.Refuse(field, "is required");
  if (basic.username().find(':') != std::string::npos || !IsTrimmedFieldValue(basic.username())) {
    checks.findings.Refuse(field, "must not hold ':' or control characters (RFC 7617 section 2)");
  }
}
void Lower(const v1::AppAuth::Basic& basic, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::ORG, plan);
  piece.set_encoding(Plan::BASIC);
  piece.set_username(basic.username());
  Refer(basic.password(), piece.mutable_stored_secret());
}

void Validate(const Literal& literal, const Rule& rule, const Checks& checks) {
  if (literal.content_case() == Literal::CONTENT_NOT_SET) {
    checks.findings.Refuse(rule.field, "needs value or secretValue");
  } else if (literal.has_value() && !IsTrimmedFieldValue(literal.value())) {
    checks.findings.Refuse(rule.field + ".value", "holds bytes a header value cannot");
  }
}
void Lower(const Literal& literal, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::ORG, plan);
  if (literal.has_secret_value()) return Refer(literal.secret_value(), piece.mutable_stored_secret());
  piece.set_literal(literal.value());
}

namespace {

bool IsEachUsers(const v1::Credential& credential) { return credential.owner() == v1::Credential::USER; }

// No owner stands in for the other.
void CheckOwner(const StoredCredential& stored, const v1::Credential& credential, const Rule& rule,
                const Checks& checks) {
  const bool own = IsEachUsers(credential);
  if (stored.match() == StoredCredential::PER_USER && !own) {
    checks.findings.Refuse(rule.field + ".match", "this credential is the organization's: choose ORGANIZATION");
  } else if (stored.match() == StoredCredential::ORGANIZATION && own) {
    checks.findings.Refuse(rule.field + ".match", "this credential is each user's own: choose PER_USER");
  } else if (own) {
    NeedsCallerWithSession(rule, checks);
  }
}

}  // namespace

void Validate(const StoredCredential& stored, const Rule& rule, const Checks& checks) {
  const std::string& slug = stored.credential();
  if (slug.empty()) return checks.findings.Refuse(rule.field + ".credential", "is required: the slug of a credential");
  const v1::Credential* credential = checks.context.credential(slug);
  if (credential == nullptr) {
    return checks.findings.Refuse(rule.field + ".credential",
                                  "no such credential: create it first or apply it in the same file");
  }
  CheckOwner(stored, *credential, rule, checks);
  if (stored.form() == StoredCredential::BASIC) {
    const bool named = IsEachUsers(*credential) || !credential->username().empty();
    if (credential->kind() != v1::Credential::PASSWORD || !named) {
      checks.findings.Refuse(rule.field + ".form", "BASIC needs a credential of kind PASSWORD with a username");
    }
    if (!rule.prefix.empty()) {
      checks.findings.Refuse(rule.field + ".form", "BASIC has the prefix \"Basic \" of its own: leave prefix out");
    }
  }
  const std::string origin = checks.urls.UpstreamOrigin();
  const auto& allowed = credential->allowed_upstream_origins();
  if (!origin.empty() && std::find(allowed.begin(), allowed.end(), origin) == allowed.end()) {
    checks.findings.Refuse(checks.urls.upstream_field(),
                           absl::StrCat("credential ", slug, " may not be sent to ", origin,
                                        ": a credential-admin can add it to the credential's allowedUpstreamOrigins"));
  }
}
void Lower(const StoredCredential& stored, const Rule& rule, Plan& plan) {
  const bool per_user = stored.match() == StoredCredential::PER_USER;
  Plan::Piece& piece = AddPiece(rule, per_user ? Plan::USER : Plan::ORG, plan);
  piece.set_encoding(stored.form() == StoredCredential::BASIC ? Plan::BASIC : Plan::PLAIN);
  piece.mutable_stored_credential()->set_uid(stored.credential_uid());
  piece.mutable_stored_credential()->set_match(per_user ? Plan::StoredCredential::PER_USER
                                                        : Plan::StoredCredential::ORGANIZATION);
}

}  // namespace sallyport::registry
