// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/connection.h"

#include <algorithm>

#include "absl/strings/str_join.h"

#include "common/oauth/protocol_scopes.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/jwt_expiry.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

v1::TokenSet Updated(const v1::TokenSet& old, const TokenAnswer& answer, absl::Time now) {
  v1::TokenSet tokens = old;
  tokens.clear_access_version();
  tokens.set_access_token(std::string(answer.access_token.Expose()));
  if (!answer.refresh_token.empty()) {
    tokens.set_refresh_token(std::string(answer.refresh_token.Expose()));
  }
  if (!answer.id_token.empty()) {
    tokens.set_id_token(std::string(answer.id_token.Expose()));
  }
  tokens.set_token_type("Bearer");
  if (answer.scopes.has_value()) {
    tokens.clear_scopes();
    for (const std::string& scope : *answer.scopes) {
      tokens.add_scopes(scope);
    }
  }
  *tokens.mutable_obtained_at() = ToTimestamp(now);
  tokens.clear_expires_at();
  if (answer.expires_in.has_value()) {
    *tokens.mutable_expires_at() = ToTimestamp(now + *answer.expires_in);
  } else if (const absl::Time end = JwtExpiry(answer.access_token.Expose());
             end - now >= absl::Seconds(1) && end - now <= kMaxTokenLifetime) {
    *tokens.mutable_expires_at() = ToTimestamp(end);
  }
  if (tokens.ByteSizeLong() > kMaxTokenSetBytes) {
    tokens.clear_id_token();
  }
  return tokens;
}

}  // namespace

ConnectionView::State StateOf(const vault::v1::RecordMetadata& metadata) {
  if (metadata.head() == 0 || metadata.state() == "REVOKE_PENDING" || metadata.state() == "REVOKED" ||
      metadata.state() == "DELETED") {
    return ConnectionView::State::kAbsent;
  }
  if (metadata.state() == "NEEDS_REAUTH" || metadata.state() == "NEEDS_INTERACTION") {
    return ConnectionView::State::kNeedsUser;
  }
  return ConnectionView::State::kLinked;
}

absl::StatusOr<std::shared_ptr<ConnectionView>> ViewOf(const vault::v1::RecordMetadata& metadata, int64_t version,
                                                       const std::string& payload) {
  auto view = std::make_shared<ConnectionView>();
  view->state = StateOf(metadata);
  view->generation = metadata.generation();
  view->version = version;
  if (view->state == ConnectionView::State::kAbsent) {
    return view;
  }
  v1::TokenSet tokens;
  if (!tokens.ParseFromString(payload)) {
    return error::DamagedConnection();
  }
  if (tokens.access_version() != 0) {
    view->version = tokens.access_version();  // Who was refused it then is refused it still.
  }
  view->access_token = Secret(std::move(*tokens.mutable_access_token()));
  view->id_token = Secret(std::move(*tokens.mutable_id_token()));
  view->provenance = ProvenanceOf(tokens, metadata.labels());
  view->provenance_sealed = tokens.has_provenance();
  view->consent = std::move(*tokens.mutable_consent());
  view->account_name = std::move(*tokens.mutable_account()->mutable_name());
  view->can_refresh = !tokens.refresh_token().empty();
  view->scopes.assign(tokens.scopes().begin(), tokens.scopes().end());
  if (tokens.has_expires_at()) {
    view->times.expires_at = FromTimestamp(tokens.expires_at());
  }
  if (tokens.has_obtained_at()) {
    view->times.obtained_at = FromTimestamp(tokens.obtained_at());
  }
  if (metadata.has_backoff_until()) {
    view->backoff_until = FromTimestamp(metadata.backoff_until());
    view->trouble = metadata.reason();
  }
  return view;
}

absl::StatusOr<std::shared_ptr<ConnectionView>> ViewOf(const vault::v1::GetResponse& record) {
  return ViewOf(record.metadata(), record.version(), record.payload());
}

std::map<std::string, std::string> LabelsOf(const v1::TokenSet& tokens, const std::string& connection) {
  std::map<std::string, std::string> labels;
  // Labels are bounded by the vault; a list of scopes beyond reason is kept in the payload only.
  if (std::string scopes = absl::StrJoin(tokens.scopes(), " "); scopes.size() <= 2048) {
    labels["scope"] = std::move(scopes);
  }
  if (tokens.has_expires_at()) {
    labels["expires_at"] =
        absl::FormatTime(absl::RFC3339_full, FromTimestamp(tokens.expires_at()), absl::UTCTimeZone());
  }
  if (tokens.has_linked_at()) {
    labels["linked_at"] = absl::FormatTime(absl::RFC3339_full, FromTimestamp(tokens.linked_at()), absl::UTCTimeZone());
  }
  labels["app_uid"] = AppUidOf(connection);
  return labels;
}

v1::TokenSet Renewed(const v1::TokenSet& old, const TokenAnswer& answer, absl::Time now) {
  v1::TokenSet tokens = Updated(old, answer, now);
  if (tokens.ByteSizeLong() > kMaxTokenSetBytes) {
    *tokens.mutable_scopes() = old.scopes();
  }
  if (answer.access_token.empty() || tokens.ByteSizeLong() > kMaxTokenSetBytes) {
    // The refresh token is what must not be lost: with it the next refresh gets another access token.
    tokens.set_access_token(old.access_token());
    *tokens.mutable_expires_at() = ToTimestamp(now);
  }
  if (tokens.ByteSizeLong() > kMaxTokenSetBytes) {
    tokens.clear_access_token();
  }
  return tokens;
}

v1::TokenSet Rotated(const v1::TokenSet& old, int64_t version, const Secret& refresh_token, absl::Time now) {
  v1::TokenSet tokens = old;
  if (tokens.access_version() == 0) {
    tokens.set_access_version(version);
  }
  tokens.set_refresh_token(std::string(refresh_token.Expose()));
  if (tokens.ByteSizeLong() > kMaxTokenSetBytes) {
    tokens.clear_id_token();
  }
  if (tokens.ByteSizeLong() > kMaxTokenSetBytes) {
    tokens.clear_access_token();
    *tokens.mutable_expires_at() = ToTimestamp(now);
  }
  return tokens;
}

v1::TokenSet Linked(const TokenAnswer& answer, const std::vector<std::string>& asked, absl::Time now) {
  v1::TokenSet empty;
  for (const std::string& scope : asked) {
    empty.add_scopes(scope);
  }
  *empty.mutable_linked_at() = ToTimestamp(now);
  return Updated(empty, answer, now);
}

std::vector<std::string> MissingScopes(const std::vector<std::string>& granted,
                                       const std::vector<std::string>& needed) {
  std::vector<std::string> missing;
  for (const std::string& scope : needed) {
    if (!oauth::IsProtocolScope(scope) && std::find(granted.begin(), granted.end(), scope) == granted.end()) {
      missing.push_back(scope);
    }
  }
  return missing;
}

}  // namespace sallyport::token_broker
