// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/link_ticket.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/web/ticket.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

constexpr char kStatePrefix[] = "sp1.";
constexpr char kStateData[] = "sallyport request state v1";
constexpr size_t kMaxState = 4096;

absl::Status StateMismatch() {
  return WithReason(absl::InvalidArgumentError("requestState does not belong to this call; make the call anew"),
                    "request_state_mismatch");
}

}  // namespace

std::string MakeTicket(const Secret& key, absl::string_view subject, absl::string_view server_uid,
                       absl::Time expires_at) {
  return web::SignTicket(key, {"link", subject, server_uid}, expires_at);
}

absl::Status CheckTicket(const Secret& key, absl::string_view ticket, absl::string_view subject,
                         absl::string_view server_uid, absl::Time now) {
  switch (web::CheckTicket(key, ticket, {"link", subject, server_uid}, now)) {
    case web::TicketVerdict::kGood:
      return absl::OkStatus();
    case web::TicketVerdict::kExpired:
      return absl::DeadlineExceededError("the link has expired");
    case web::TicketVerdict::kForged:
      break;
  }
  return error::LinkUserMismatch("the link was made for somebody else");
}

std::string MakeFormToken(const Secret& key, absl::string_view session, absl::string_view purpose,
                          absl::Time expires_at) {
  return web::SignTicket(key, {"form", session, purpose}, expires_at);
}

bool CheckFormToken(const Secret& key, absl::string_view token, absl::string_view session, absl::string_view purpose,
                    absl::Time now) {
  return web::CheckTicket(key, token, {"form", session, purpose}, now) == web::TicketVerdict::kGood;
}

absl::StatusOr<std::string> SealRequestState(const Secret& key, const v1::RequestState& state) {
  ASSIGN_OR_RETURN(const std::string sealed, AeadSeal(key, state.SerializeAsString(), kStateData));
  return absl::StrCat(kStatePrefix, Base64UrlEncode(sealed));
}

absl::StatusOr<v1::RequestState> OpenRequestState(const Secret& key, absl::string_view sealed,
                                                  absl::string_view subject, absl::string_view server_uid,
                                                  const v1::Call& call, absl::Time now) {
  if (!absl::StartsWith(sealed, kStatePrefix) || sealed.size() > kMaxState) {
    return StateMismatch();
  }
  const absl::StatusOr<std::string> bytes = Base64UrlDecode(sealed.substr(sizeof(kStatePrefix) - 1));
  if (!bytes.ok()) {
    return StateMismatch();
  }
  const absl::StatusOr<Secret> plain = AeadOpen(key, *bytes, kStateData);
  v1::RequestState state;
  if (!plain.ok() || !state.ParseFromArray(plain->Expose().data(), static_cast<int>(plain->Expose().size()))) {
    return StateMismatch();
  }
  const bool mine = state.subject() == subject && state.server_uid() == server_uid;
  const bool same_call = state.call().method() == call.method() && state.call().name() == call.name() &&
                         state.call().arguments_digest() == call.arguments_digest();
  if (!mine || !same_call || FromTimestamp(state.expires_at()) <= now) {
    return StateMismatch();
  }
  return state;
}

}  // namespace sallyport::token_broker
