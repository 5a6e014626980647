// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/caller_claims.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace sallyport::edge {
namespace {

using ClaimRefusal = Principal::ClaimRefusal;

// The configuration's own word for it; only its start, should somebody have written a novel.
std::string Quoted(const std::string& claim) { return absl::StrCat("\"", claim.substr(0, 64), "\""); }

ClaimRefusal RefusalOf(const ServerEntry::OwnHeader& header, const authn::v1::Principal& verified,
                       authn::v1::ClaimFault fault) {
  const std::string claim = Quoted(header.claim);
  switch (fault) {
    case authn::v1::CLAIM_TOO_LARGE:
      return {403, "claim_too_large",
              absl::StrCat("this server is sent the claim ", claim, " of its callers, and yours is larger than ",
                           verified.claim_limit(), " bytes")};
    case authn::v1::CLAIM_AMBIGUOUS:
      return {403, "claim_ambiguous",
              absl::StrCat("this server is sent the claim ", claim,
                           " of its callers as a list with commas, and an entry "
                           "of yours holds one; its administrator can set format: JSON")};
    default:
      return {403, "claim_missing",
              absl::StrCat("this server is sent the claim ", claim, " of its callers, and you have none")};
  }
}

// Null: authn gave none.
const std::string* ValueOf(const ServerEntry::OwnHeader& header, const authn::v1::Principal& verified) {
  const auto& claims = header.json ? verified.json_claims() : verified.claims();
  if (const auto value = claims.find(header.claim); value != claims.end()) return &value->second;
  if (header.json || verified.claim_faults().contains(header.claim)) return nullptr;
  if (header.claim == "sub") return &verified.subject();
  return header.claim == "email" ? &verified.email() : nullptr;
}

}  // namespace

void AppendCallerClaim(const ServerEntry::OwnHeader& header, const authn::v1::Principal& verified,
                       Principal& principal) {
  if (principal.claim_refusal.status != 0) return;
  const std::string* value = ValueOf(header, verified);
  if (value == nullptr || value->empty()) {
    const auto fault = verified.claim_faults().find(header.claim);
    principal.claim_refusal =
        RefusalOf(header, verified, fault == verified.claim_faults().end() ? authn::v1::CLAIM_MISSING : fault->second);
  } else if (!AppendField(header.name, header.prefix, *value, principal.header_lines)) {
    principal.claim_refusal = {500, "identity_unencodable",
                               absl::StrCat("your claim ", Quoted(header.claim), " holds bytes that no header may")};
  }
}

}  // namespace sallyport::edge
