// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "common/secret.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "sallyport/token_broker/v1/token_set.pb.h"

// What people must agree to at their identity provider, beyond their sign-in, before it gives a token for a server.
namespace sallyport::token_broker {

// For so long after somebody has agreed they are not sent to agree again for the same server: a provider that asks for
// it each time could keep them going round.
inline constexpr absl::Duration kConsentPause = absl::Minutes(5);

// Tokens of sign-ins are exchanged for this server.
bool ExchangesSignIns(const registry::v1::McpServer& server);
// "<connector>" of a subject.
std::string ConnectorOf(absl::string_view subject);
// Uid of the consent of somebody who signed in: "sso:<connector>", their connection that changes with it.
std::string ConsentUid(absl::string_view subject);
// Whether `uid` names a consent that this caller may be asked for, for calls to `server`.
bool IsConsentOf(const registry::v1::McpServer& server, const Passport& passport, absl::string_view uid);
// That a caller lacks it. `claims` as in the proto.
v1::LinkRequired ConsentLink(absl::string_view subject, const std::string& claims);
bool HasConsented(const v1::TokenSet::Consent& consent, const registry::v1::McpServer& server, absl::Time now);

// A status of reason interaction_required that the caller's consent mends, and what the provider wants in the request
// for it. Nothing of that is in the message or goes over the wire.
absl::Status MendedByConsent(absl::Status refusal, const std::string& claims);
// The claims of such a status; nothing if it is none.
std::optional<std::string> ConsentWantedBy(const absl::Status& status);
// The same in words alone.
absl::Status InWords(absl::Status status);

// Purpose of the key of the next two (BrokerKey).
inline constexpr char kClaimsKey[] = "sallyport consent claims v1";
// Claims as a link carries them, for one person and server. `key` is 32 bytes. Empty: there are none, or they are not
// theirs.
absl::StatusOr<std::string> SealClaims(const Secret& key, absl::string_view subject, absl::string_view server_uid,
                                       const std::string& claims);
std::string OpenClaims(const Secret& key, absl::string_view subject, absl::string_view server_uid,
                       absl::string_view sealed);

}  // namespace sallyport::token_broker
