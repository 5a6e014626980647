// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/secret.h"
#include "sallyport/token_broker/v1/state.pb.h"

namespace sallyport::token_broker {

inline constexpr absl::Duration kLinkLifetime = absl::Minutes(10);

// Proof that a link to `server_uid` was handed to `subject` (web::SignTicket). It names nobody, and is worth nothing to
// anybody else. `key` is 32 bytes.
std::string MakeTicket(const Secret& key, absl::string_view subject, absl::string_view server_uid,
                       absl::Time expires_at);
// OK, DEADLINE_EXCEEDED (it has expired), or PERMISSION_DENIED reason link_user_mismatch: not made for this subject and
// server.
absl::Status CheckTicket(const Secret& key, absl::string_view ticket, absl::string_view subject,
                         absl::string_view server_uid, absl::Time now);

// "sp1." and base64url of AES-256-GCM: what an unlinked call carries until it is made again.
absl::StatusOr<std::string> SealRequestState(const Secret& key, const v1::RequestState& state);
// Nothing of a state that does not open, has expired, or is another user's, server's or call's: INVALID_ARGUMENT reason
// request_state_mismatch, one message for all.
absl::StatusOr<v1::RequestState> OpenRequestState(const Secret& key, absl::string_view sealed,
                                                  absl::string_view subject, absl::string_view server_uid,
                                                  const v1::Call& call, absl::Time now);

// What a form on a page of the broker must carry: it was shown to this session for this purpose. Same form as a ticket.
std::string MakeFormToken(const Secret& key, absl::string_view session, absl::string_view purpose,
                          absl::Time expires_at);
bool CheckFormToken(const Secret& key, absl::string_view token, absl::string_view session, absl::string_view purpose,
                    absl::Time now);

}  // namespace sallyport::token_broker
