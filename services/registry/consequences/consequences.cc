// SPDX-License-Identifier: Apache-2.0
#include "services/registry/consequences/consequences.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "services/registry/consequences/callers.h"
#include "services/registry/consequences/needs.h"
#include "services/registry/urls.h"

namespace sallyport::registry {
namespace {

using v1::Consequence;

bool IsEnabled(const v1::McpServer& server) { return !server.has_enabled() || server.enabled(); }

void Append(Consequences more, Consequences& all) { std::move(more.begin(), more.end(), std::back_inserter(all)); }

bool Names(const v1::McpServer& server, const v1::App& app) {
  return server.app_auth().oauth_authorization().app() == app.slug();
}
bool Names(const v1::McpServer& server, const v1::Credential& credential) {
  return std::any_of(
      server.outbound_headers().begin(), server.outbound_headers().end(),
      [&](const v1::OutboundHeader& header) { return header.stored_credential().credential() == credential.slug(); });
}

// Servers that may no longer be sent what they send today.
template <typename T>
void CompareOrigins(const T& before, const T& after, const Neighbours& neighbours, Consequences& found) {
  const auto holds = [](const T& resource, const std::string& origin) {
    const auto& origins = resource.allowed_upstream_origins();
    return std::find(origins.begin(), origins.end(), origin) != origins.end();
  };
  for (const v1::McpServer* server : neighbours.servers) {
    if (!Names(*server, after) || !IsEnabled(*server)) continue;
    const std::string origin = ResourceUrls(*server).UpstreamOrigin();
    if (!holds(before, origin) || holds(after, origin)) continue;
    found.push_back(CallersRefused(
        "allowedUpstreamOrigins", Consequence::EVERYBODY,
        absl::StrCat("every call of server ", server->slug(), " is refused: nothing may be sent to ", origin)));
  }
}

void AddAgain(const UserNeed& need, const std::optional<Consequence::Users>& users, const std::string& why,
              Consequences& found) {
  if (users && users->number() == 0 && !users->at_least()) return;
  const std::string who = users ? UsersText(*users) : "users (how many is not known)";
  found.push_back(ForUsers(Consequence::MUST_CONNECT_AGAIN, need, users ? &*users : nullptr,
                           absl::StrCat(who, " must ", Connect(need), " again", why)));
}

std::optional<Consequence::Users> AllOf(const UserNeed& need, UserCounts& counts) {
  const auto count = counts.Ask(need.Any());
  return count ? std::make_optional(count->users) : std::nullopt;
}

// Scopes, and an endpoint at another origin: the labels of a connection say whom that is for.
void CompareConnections(const v1::App& before, const v1::App& after, UserCounts& counts, Consequences& found) {
  const UserNeed was = NeedOf(before);
  UserNeed need = NeedOf(after);
  const std::vector<std::string> scopes = NewScopes(was, need);
  const bool moved = !was.token_origin.empty() && !need.token_origin.empty() && was.token_origin != need.token_origin;
  if (scopes.empty() && !moved) return;
  need.field = moved ? "tokenUrl" : "defaultScopes";
  if (!moved) need.token_origin = was.token_origin;
  const Holding good = need.Good();
  const auto count = counts.Ask(was.Good(), &good);
  std::vector<std::string> why;
  if (moved) why.push_back(absl::StrCat("their tokens are of ", was.token_origin));
  if (!scopes.empty()) {
    why.push_back(absl::StrCat(scopes.size() == 1 ? "scope " : "scopes ", absl::StrJoin(scopes, ", "),
                               scopes.size() == 1 ? " is asked for and their connection lacks it"
                                                  : " are asked for and their connection lacks one"));
  }
  AddAgain(need, count ? std::make_optional(count->lacking) : std::nullopt,
           absl::StrCat(": ", absl::StrJoin(why, ", or ")), found);
}

// What no label says: everybody's.
void CompareClient(const v1::App& before, const v1::App& after, UserCounts& counts, Consequences& found) {
  UserNeed need = NeedOf(after);
  need.every_account = true;
  const bool found_by_issuer = before.token_url().empty() || after.token_url().empty();
  const bool same_endpoint =
      before.token_url() == after.token_url() && (before.issuer() == after.issuer() || !after.token_url().empty());
  if (found_by_issuer && !same_endpoint) {
    need.field = before.issuer() != after.issuer() ? "issuer" : "tokenUrl";
    AddAgain(need, AllOf(need, counts), " unless the token endpoint is at the same origin as before", found);
  }
  if (before.client_id() != after.client_id()) {
    need.field = "clientId";
    AddAgain(need, AllOf(need, counts), " once their token ends: it was given to another client", found);
  }
}

}  // namespace

Consequences ConsequencesOf(const v1::McpServer& before, const v1::McpServer& after, const Neighbours& neighbours,
                            UserCounts& counts) {
  Consequences found;
  if (!IsEnabled(before)) return found;  // Nobody uses it.
  if (!IsEnabled(after)) {
    found.push_back(CallersRefused("enabled", Consequence::EVERYBODY,
                                   "every call is refused with 404 until the server is enabled again"));
    return found;
  }
  Append(LostAtTheDoor(before.agent_auth(), after.agent_auth()), found);
  Append(AskedOfCallers(before, after), found);
  Append(NeededOfUsers(before, after, neighbours, counts), found);
  return found;
}

Consequences ConsequencesOf(const v1::App& before, const v1::App& after, const Neighbours& neighbours,
                            UserCounts& counts) {
  Consequences found;
  CompareConnections(before, after, counts, found);
  CompareClient(before, after, counts, found);
  CompareOrigins(before, after, neighbours, found);
  return found;
}

Consequences ConsequencesOf(const v1::Credential& before, const v1::Credential& after, const Neighbours& neighbours,
                            UserCounts& /*counts*/) {
  Consequences found;
  CompareOrigins(before, after, neighbours, found);
  return found;
}

Consequences ConsequencesOfDeleting(const v1::McpServer& server, const Neighbours& neighbours, UserCounts& counts) {
  Consequences found;
  if (!IsEnabled(server)) return found;
  found.push_back(CallersRefused("", Consequence::EVERYBODY, "every call is refused with 404"));
  Append(NeededOfUsers(server, v1::McpServer(), neighbours, counts), found);
  return found;
}

Consequences ConsequencesOfDeleting(const v1::App& app, const Neighbours& /*neighbours*/, UserCounts& counts) {
  Consequences found;
  // Its metadata may name an endpoint for it.
  const bool can_revoke = !app.revocation_url().empty() || !app.issuer().empty();
  UserNeed need = NeedOf(app);
  need.every_account = true;
  AddNotUsed(need,
             can_revoke ? "all of their accounts are disconnected and revoked at the provider"
                        : "all of their accounts are disconnected; they cannot be revoked at the provider, because the "
                          "app has no revocationUrl and no issuer",
             counts, found);
  return found;
}

Consequences ConsequencesOfDeleting(const v1::Credential& credential, const Neighbours& /*neighbours*/,
                                    UserCounts& counts) {
  Consequences found;
  if (credential.owner() != v1::Credential::USER) return found;
  AddNotUsed(NeedOf(credential), "no server uses it any more; the value stays stored until they clear it", counts,
             found);
  return found;
}

}  // namespace sallyport::registry
