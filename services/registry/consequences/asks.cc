// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "services/registry/consequences/callers.h"
#include "services/registry/credentials/credentials.h"

namespace sallyport::registry {
namespace {

using v1::Consequence;
using Plan = v1::CredentialPlan;

// What a piece of a plan asks of who calls, besides an account or a value of their own.
struct Ask {
  std::string key;  // Equal for two that ask the same.
  Consequence::Callers callers;
  std::string message;  // Of whom it refuses.
};

Ask SignInAsk(Plan::TokenKind kind) {
  const char* name = kind == Plan::ID ? "ID" : "access";
  return {absl::StrCat("sign_in ", name), Consequence::SIGNED_IN,
          absl::StrCat("users of a local account are refused: their sign-in brings no ", name,
                       " token of an identity provider; others are asked to sign in again where theirs has ended")};
}

// Which kind it is, access or ID token, counts only of a trusted connector's.
std::optional<Ask> PresentedAsk(Plan::TokenKind kind, Plan::Scope scope, const v1::AgentAuth& agent) {
  if (scope == Plan::REQUEST) {
    return Ask{"presented", Consequence::WITHOUT_TOKEN, "callers without a token are refused: theirs goes on"};
  }
  if (agent.interactive().trusted_connectors().empty()) return std::nullopt;
  const bool id = kind == Plan::ID;
  return Ask{absl::StrCat("presented ", id ? "ID" : "access"), Consequence::WITH_OWN_TOKEN,
             absl::StrCat("callers who present an ", id ? "access" : "ID", " token are refused: an ",
                          id ? "ID" : "access", " token goes on")};
}

std::optional<Ask> AskOf(const Plan::Piece& piece, const v1::AgentAuth& agent) {
  switch (piece.source_case()) {
    case Plan::Piece::kSignInToken:
      // For all callers, and so for those who have no sign-in: one for another audience.
      if (piece.callers() == Plan::ANY && !agent.interactive().trusted_connectors().empty()) {
        return Ask{
            "sign_in only", Consequence::WITH_OWN_TOKEN,
            "callers with a token of their identity provider are refused: a token for this audience is asked for "
            "with a sign-in"};
      }
      return SignInAsk(piece.sign_in_token().kind());
    case Plan::Piece::kPresentedToken:
      return PresentedAsk(piece.presented_token().kind(), piece.scope(), agent);
    case Plan::Piece::kExchangedToken:
      if (piece.callers() == Plan::SIGNED_IN) return SignInAsk(piece.exchanged_token().subject());
      return PresentedAsk(piece.exchanged_token().subject(), Plan::TOKEN, agent);
    case Plan::Piece::kRequestHeader:
      return Ask{
          absl::StrCat("header ", piece.request_header()), Consequence::EVERYBODY,
          absl::StrCat("calls go out without a credential unless they bring their own as ", piece.request_header())};
    case Plan::Piece::kClaim:
      // Of every verified caller there are these.
      if (piece.claim().name() == "sub" || piece.claim().name() == "user_id") return std::nullopt;
      return Ask{absl::StrCat("claim ", piece.claim().name()), Consequence::EVERYBODY,
                 absl::StrCat("callers of whom the claim ", piece.claim().name(), " is not known are refused")};
    default:
      return std::nullopt;
  }
}

// Somebody like this got through the former door; who comes first with the new one loses nothing.
bool WasAdmitted(Consequence::Callers callers, const v1::AgentAuth& agent) {
  switch (callers) {
    case Consequence::SIGNED_IN:
      return agent.has_interactive();
    case Consequence::WITH_OWN_TOKEN:
      return agent.has_passthrough() || !agent.interactive().trusted_connectors().empty();
    case Consequence::WITHOUT_TOKEN:
      return agent.has_passthrough() && !agent.passthrough().has_jwt_validation();
    default:
      return true;
  }
}

}  // namespace

v1::Consequence CallersRefused(const std::string& field, Consequence::Callers callers, const std::string& message) {
  Consequence consequence;
  consequence.set_field(field);
  consequence.set_kind(Consequence::CALLERS_REFUSED);
  consequence.set_callers(callers);
  consequence.set_message(message);
  return consequence;
}

std::string FieldOf(const v1::McpServer& server, const Plan::Piece& piece) {
  for (int i = 0; i < server.outbound_headers_size(); ++i) {
    if (piece.id() == absl::StrCat("outbound_headers[", absl::AsciiStrToLower(server.outbound_headers(i).name()), "]"))
      return absl::StrCat("outboundHeaders[", i, "]");
  }
  return "appAuth";
}

Consequences AskedOfCallers(const v1::McpServer& before, const v1::McpServer& after) {
  std::set<std::string> asked;
  const Plan former = LowerCredentials(before);
  for (const Plan::Piece& piece : former.pieces()) {
    if (const auto ask = AskOf(piece, before.agent_auth())) asked.insert(ask->key);
  }
  Consequences found;
  const Plan plan = LowerCredentials(after);
  for (const Plan::Piece& piece : plan.pieces()) {
    const auto ask = AskOf(piece, after.agent_auth());
    if (!ask || !WasAdmitted(ask->callers, before.agent_auth()) || !asked.insert(ask->key).second) continue;
    found.push_back(CallersRefused(FieldOf(after, piece), ask->callers, ask->message));
  }
  return found;
}

}  // namespace sallyport::registry
