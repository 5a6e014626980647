// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "services/registry/consequences/callers.h"

namespace sallyport::registry {
namespace {

using v1::Consequence;

constexpr char kAllow[] = "agentAuth.interactive.allow";
constexpr char kTrusted[] = "agentAuth.interactive.trustedConnectors";
constexpr char kJwt[] = "agentAuth.passthrough.jwtValidation";

// Tokens of an identity provider that get through a door.
struct Tokens {
  std::string keys;  // Who signs them; two that say the same are verified alike.
  std::string name;  // For people.
  std::string issuer;
  std::set<std::string> audiences;  // Any, if empty.
  std::map<std::string, std::string> claims;
  std::string subject_claim;
};
struct Door {
  bool open = false;        // A token is not asked for.
  bool signed_in = false;   // Tokens of the gateway.
  std::vector<Tokens> own;  // Tokens of identity providers.
};

Tokens TokensOf(const v1::JwtValidation& jwt) {
  Tokens tokens;
  switch (jwt.keys_case()) {
    case v1::JwtValidation::kConnector:
      tokens.keys = absl::StrCat("connector ", jwt.connector());
      tokens.name = tokens.keys;
      break;
    case v1::JwtValidation::kJwksUrl:
      tokens.keys = absl::StrCat("url ", jwt.jwks_url());
      tokens.name = absl::StrCat("the keys at ", jwt.jwks_url());
      break;
    default:
      tokens.keys = absl::StrCat("json ", jwt.jwks_json());
      tokens.name = "the keys in jwksJson";
  }
  tokens.issuer = jwt.issuer();
  if (!jwt.audience().empty()) tokens.audiences = {jwt.audience()};
  tokens.subject_claim = jwt.subject_claim().empty() && !jwt.has_connector() ? "sub" : jwt.subject_claim();
  return tokens;
}

Door DoorOf(const v1::AgentAuth& agent) {
  Door door;
  if (agent.has_passthrough()) {
    door.open = !agent.passthrough().has_jwt_validation();
    if (!door.open) door.own.push_back(TokensOf(agent.passthrough().jwt_validation()));
  }
  door.signed_in = agent.has_interactive();
  for (const v1::TrustedConnector& trusted : agent.interactive().trusted_connectors()) {
    Tokens tokens;
    tokens.keys = tokens.name = absl::StrCat("connector ", trusted.connector());
    tokens.audiences = {trusted.audiences().begin(), trusted.audiences().end()};
    tokens.claims = {trusted.required_claims().begin(), trusted.required_claims().end()};
    door.own.push_back(std::move(tokens));
  }
  return door;
}

// Which of the tokens that `before` takes `after`, of the same keys, refuses: empty if none.
std::string Refused(const Tokens& before, const Tokens& after) {
  std::vector<std::string> refused;
  if (!after.issuer.empty() && after.issuer != before.issuer) {
    refused.push_back(absl::StrCat("that is not issued by ", after.issuer));
  }
  if (before.audiences.empty() && !after.audiences.empty()) {
    refused.push_back(absl::StrCat("that is not for ", absl::StrJoin(after.audiences, " or ")));
  } else if (!after.audiences.empty()) {
    std::vector<std::string> gone;
    std::set_difference(before.audiences.begin(), before.audiences.end(), after.audiences.begin(),
                        after.audiences.end(), std::back_inserter(gone));
    if (!gone.empty()) refused.push_back(absl::StrCat("for ", absl::StrJoin(gone, " or "), " only"));
  }
  for (const auto& [name, value] : after.claims) {
    const auto had = before.claims.find(name);
    if (had == before.claims.end() || had->second != value) {
      refused.push_back(absl::StrCat("without the claim ", name, " \"", value, "\""));
    }
  }
  if (!after.subject_claim.empty() && after.subject_claim != before.subject_claim) {
    refused.push_back(absl::StrCat("without the claim ", after.subject_claim));
  }
  return absl::StrJoin(refused, ", or ");
}

void CompareTokens(const Tokens& before, const Door& after, Consequences& found) {
  if (after.open) return;
  const char* field = after.signed_in ? kTrusted : kJwt;
  const auto same = std::find_if(after.own.begin(), after.own.end(),
                                 [&](const Tokens& tokens) { return tokens.keys == before.keys; });
  if (same == after.own.end()) {
    found.push_back(CallersRefused(field, Consequence::WITH_OWN_TOKEN,
                                   absl::StrCat("callers with a token of ", before.name, " are refused")));
  } else if (const std::string refused = Refused(before, *same); !refused.empty()) {
    found.push_back(
        CallersRefused(field, Consequence::WITH_OWN_TOKEN,
                       absl::StrCat("callers with a token of ", before.name, " ", refused, " are refused")));
  }
}

// Lines of an allow rule, each as it is written.
std::set<std::string> LinesOf(const v1::Allow& allow) {
  std::set<std::string> lines;
  const auto add = [&lines](const char* kind, const auto& values) {
    for (const std::string& value : values) lines.insert(absl::StrCat(kind, " ", value));
  };
  add("group", allow.groups());
  add("email", allow.emails());
  add("emailDomain", allow.email_domains());
  add("subject", allow.subjects());
  return lines;
}

void CompareAllow(const v1::Allow& before, const v1::Allow& after, Consequences& found) {
  if (after.everyone()) return;
  const std::set<std::string> old_lines = LinesOf(before);
  const std::set<std::string> new_lines = LinesOf(after);
  std::string whose;
  if (before.everyone()) {
    whose = new_lines.empty() ? "everybody who is signed in is refused"
                              : "whoever is signed in and matches no line of allow is refused";
  } else {
    std::vector<std::string> gone;
    std::set_difference(old_lines.begin(), old_lines.end(), new_lines.begin(), new_lines.end(),
                        std::back_inserter(gone));
    if (gone.empty()) return;
    whose = absl::StrCat("whoever was admitted by ", absl::StrJoin(gone, " or "), " alone is refused");
  }
  found.push_back(CallersRefused(kAllow, Consequence::SIGNED_IN, whose));
}

}  // namespace

Consequences LostAtTheDoor(const v1::AgentAuth& agent_before, const v1::AgentAuth& agent_after) {
  const Door before = DoorOf(agent_before);
  const Door after = DoorOf(agent_after);
  Consequences found;
  if (before.open && !after.open) {
    const char* field = after.signed_in ? "agentAuth.interactive" : kJwt;
    found.push_back(
        CallersRefused(field, Consequence::WITHOUT_TOKEN, "callers without a token, such as scripts, are refused"));
    std::vector<std::string> taken;
    if (after.signed_in) taken.emplace_back("the gateway's sign-in");
    for (const Tokens& tokens : after.own) taken.push_back(tokens.name);
    found.push_back(CallersRefused(
        field, Consequence::WITH_OWN_TOKEN,
        absl::StrCat("callers with a token that is not of ", absl::StrJoin(taken, " or "), " are refused")));
  }
  if (before.signed_in && !after.signed_in) {
    found.push_back(CallersRefused("agentAuth.passthrough", Consequence::SIGNED_IN,
                                   "callers who signed in at the gateway are refused: a Passthrough server takes no "
                                   "token of the gateway"));
  }
  if (before.signed_in && after.signed_in) {
    CompareAllow(agent_before.interactive().allow(), agent_after.interactive().allow(), found);
  }
  for (const Tokens& tokens : before.own) CompareTokens(tokens, after, found);
  return found;
}

}  // namespace sallyport::registry
