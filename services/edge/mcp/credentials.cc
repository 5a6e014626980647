// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/credentials.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include <openssl/crypto.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "sallyport/audit/v1/audit.pb.h"
#include "services/edge/http/header_rules.h"

namespace sallyport::edge {
namespace {

using token_broker::v1::ResolveCredentialsResponse;

// Organization credentials are asked for again after 5 minutes, and kept 15 minutes if the broker cannot be asked.
constexpr absl::Duration kLife = absl::Minutes(5);
constexpr absl::Duration kOutageLife = absl::Minutes(15);

void NoteUse(const ResolveCredentialsResponse::Piece& piece, CredentialSet& set) {
  audit::v1::Event fragment;
  audit::v1::CredentialUse& use = *fragment.add_credentials();
  use.set_piece(piece.piece());
  use.set_uid(piece.uid());
  use.set_generation(piece.generation());
  use.set_version(piece.version());
  fragment.AppendToString(&set.audit_fields);
}

}  // namespace

CredentialSet::~CredentialSet() {
  OPENSSL_cleanse(header_lines.data(), header_lines.size());
  OPENSSL_cleanse(query_value.data(), query_value.size());
}

absl::StatusOr<std::shared_ptr<const CredentialSet>> RenderCredentials(const ResolveCredentialsResponse& response,
                                                                       absl::Time now, SecretTarget* secret_target) {
  auto set = std::make_shared<CredentialSet>();
  set->fetched_at = now;
  set->valid_until = now + kLife;
  set->renew_at = now + kLife * 0.8;
  absl::Time hard_end = absl::InfiniteFuture();
  std::string_view url;
  std::string_view certificate;
  for (const auto& piece : response.pieces()) {
    if (piece.location() == ResolveCredentialsResponse::QUERY) {
      set->query_value = piece.value();
    } else if (piece.location() == ResolveCredentialsResponse::URL) {
      url = piece.value();
    } else if (piece.location() == ResolveCredentialsResponse::CLIENT_CERTIFICATE) {
      certificate = piece.value();
    } else if (!AppendField(piece.name(), "", piece.value(), set->header_lines)) {
      return WithReason(absl::InternalError(absl::StrCat(piece.piece(), " cannot be a header value")),
                        "credential_unencodable");
    }
    if (piece.has_expires_at()) hard_end = std::min(hard_end, FromTimestamp(piece.expires_at()));
    if (piece.has_renew_at()) set->renew_at = std::min(set->renew_at, FromTimestamp(piece.renew_at()));
    if (!piece.connection().empty()) set->connections.push_back({piece.connection(), piece.generation()});
    // A broker of an earlier release knows connections only.
    if (piece.renewable() || !piece.connection().empty()) {
      set->renewables.push_back({piece.piece(), piece.generation(), piece.version()});
    }
    if (!piece.connection().empty() && (piece.piece() == "app_auth" || set->version == 0)) {
      set->generation = piece.generation();
      set->version = piece.version();
    }
    if (piece.scope() != token_broker::v1::ORG) set->organization_only = false;
    NoteUse(piece, *set);
  }
  if (secret_target != nullptr) {
    ASSIGN_OR_RETURN(set->target, secret_target->Make(url, certificate));
  } else if (!url.empty() || !certificate.empty()) {
    return absl::InternalError("an address or a certificate that this server does not have");
  }
  set->valid_until = std::min(set->valid_until, hard_end);
  set->outage_until = std::min(now + kOutageLife, hard_end);
  // A credential about to expire still serves the call it was fetched for.
  set->renew_at = std::max(set->renew_at, now + absl::Milliseconds(500));
  return std::shared_ptr<const CredentialSet>(std::move(set));
}

}  // namespace sallyport::edge
