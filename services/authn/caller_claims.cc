// SPDX-License-Identifier: Apache-2.0
#include "services/authn/caller_claims.h"

#include <utility>
#include <vector>

#include "absl/strings/str_join.h"

#include "common/text/json.h"

namespace sallyport::authn {
namespace {

constexpr char kGroups[] = "groups";
constexpr char kUserId[] = "user_id";

struct Value {
  std::string text;
  v1::ClaimFault fault = v1::CLAIM_FAULT_UNSPECIFIED;
};

Value Fault(v1::ClaimFault fault) { return {"", fault}; }

nlohmann::json OrNull(const std::string& text) { return text.empty() ? nlohmann::json() : nlohmann::json(text); }

// The identity provider's own value in a subject, raw.
std::string UserIdOf(const Identity& identity) {
  const std::string& subject = identity.subject;
  if (!identity.connector.empty()) {
    return subject.substr(subject.find(':') + 1);
  }
  // "server-<uid>:<iss>|<value>"; an issuer may hold colons, and any of them a bar.
  const size_t value = subject.find(':') + 1 + identity.issuer.size() + 1;
  return value <= subject.size() ? subject.substr(value) : "";
}

// Null if the sign-in did not tell it.
nlohmann::json ClaimOf(const Identity& identity, const std::string& claim) {
  if (claim == "sub") {
    return OrNull(identity.subject);
  }
  if (claim == kUserId) {
    return OrNull(UserIdOf(identity));
  }
  if (claim == "email") {
    return OrNull(identity.email);
  }
  if (claim == "email_verified") {
    return nlohmann::json(identity.email_verified);
  }
  if (claim == "name") {
    return OrNull(identity.name);
  }
  // Groups that the provider left out because there are too many are unknown, not none.
  return claim == kGroups && !identity.groups_overage ? nlohmann::json(identity.groups) : nlohmann::json();
}

bool IsScalar(const nlohmann::json& value) {
  return value.is_string() || value.is_boolean() || value.is_number_integer();
}

std::string ScalarText(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : DumpJson(value);
}

// Strings as they are, integers and booleans in JSON's spelling, arrays of these joined by ",".
Value AsText(const nlohmann::json& value) {
  if (!value.is_array()) {
    return IsScalar(value) ? Value{ScalarText(value)} : Fault(v1::CLAIM_MISSING);
  }
  std::vector<std::string> parts;
  for (const nlohmann::json& element : value) {
    if (!IsScalar(element)) {
      return Fault(v1::CLAIM_MISSING);
    }
    parts.push_back(ScalarText(element));
    // A group that somebody named "x,admins" must not read as two.
    if (parts.back().find(',') != std::string::npos) {
      return Fault(v1::CLAIM_AMBIGUOUS);
    }
  }
  return {absl::StrJoin(parts, ",")};
}

Value AsJson(const nlohmann::json& value) {
  if (value.is_null()) {
    return Fault(v1::CLAIM_MISSING);
  }
  return {value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace)};
}

Value Render(const nlohmann::json& value, bool json) {
  Value rendered = json ? AsJson(value) : AsText(value);
  if (rendered.fault != v1::CLAIM_FAULT_UNSPECIFIED) {
    return rendered;
  }
  if (rendered.text.empty()) {
    return Fault(v1::CLAIM_MISSING);
  }
  return rendered.text.size() > kMaxClaimBytes ? Fault(v1::CLAIM_TOO_LARGE) : rendered;
}

}  // namespace

std::set<WantedClaim> WantedClaims(const registry::v1::CredentialPlan& plan) {
  std::set<WantedClaim> wanted;
  for (const auto& piece : plan.pieces()) {
    if (piece.has_claim()) {
      wanted.insert({piece.claim().name(), piece.claim().json()});
    }
  }
  return wanted;
}

void AddCallerClaims(const std::set<WantedClaim>& wanted, const Identity& identity, const Jwt* jwt,
                     absl::string_view groups_claim, v1::Principal& principal) {
  principal.set_claim_limit(static_cast<int>(kMaxClaimBytes));
  for (const WantedClaim& want : wanted) {
    nlohmann::json value;
    if (jwt == nullptr || want.claim == "sub") {
      value = ClaimOf(identity, want.claim);
    } else if (const nlohmann::json* member = JsonMember(jwt->json(), want.claim.c_str()); member != nullptr) {
      const bool is_list = want.claim == kGroups || want.claim == groups_claim;
      value = is_list && member->is_string() ? nlohmann::json::array({*member}) : *member;
    } else if (want.claim == kUserId) {
      // A token that has such a claim is asked first: it is the identity provider's own word, too.
      value = ClaimOf(identity, want.claim);
    }
    Value rendered = Render(value, want.json);
    if (rendered.fault != v1::CLAIM_FAULT_UNSPECIFIED) {
      (*principal.mutable_claim_faults())[want.claim] = rendered.fault;
    } else {
      (*(want.json ? principal.mutable_json_claims() : principal.mutable_claims()))[want.claim] =
          std::move(rendered.text);
    }
  }
}

}  // namespace sallyport::authn
