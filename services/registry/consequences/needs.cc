// SPDX-License-Identifier: Apache-2.0
#include "services/registry/consequences/needs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "common/oauth/protocol_scopes.h"
#include "services/registry/consequences/callers.h"
#include "services/registry/credentials/credentials.h"
#include "services/registry/resource.h"

namespace sallyport::registry {
namespace {

using v1::Consequence;

// Labels as the broker writes them: clear ones of a user's record.
constexpr char kScope[] = "scope";
constexpr char kBoundTo[] = "bound_to";  // "<origin of the token endpoint> <origin of the revocation endpoint>"
constexpr char kOrigins[] = "origins";
// A label holds no more words than this, and the vault takes no more.
constexpr size_t kMaxWords = 1'000;

std::string OriginOf(const std::string& url) {
  const absl::StatusOr<Url> parsed = Url::Parse(url);
  return parsed.ok() ? parsed->origin() : "";
}

template <typename Scopes>
void AddScopes(const Scopes& scopes, UserNeed& need) {
  for (const std::string& scope : scopes) {
    const bool there = std::find(need.scopes.begin(), need.scopes.end(), scope) != need.scopes.end();
    if (!there && !oauth::IsProtocolScope(scope)) need.scopes.push_back(scope);
  }
}

template <typename T>
std::string NameOf(const T& resource) {
  return resource.display_name().empty() ? resource.slug() : resource.display_name();
}

}  // namespace

Holding UserNeed::Any() const {
  Holding holding;
  holding.set_kind(account ? "connection" : "credential");
  holding.set_name(account_label.empty() ? uid : absl::StrCat(uid, "/", account_label));
  holding.set_every_account(every_account);
  return holding;
}

Holding UserNeed::Good() const {
  Holding holding = Any();
  const auto add = [&holding](const char* label) {
    auto* rule = holding.add_labels();
    rule->set_name(label);
    return rule;
  };
  if (!scopes.empty()) {
    const auto end = scopes.size() > kMaxWords ? scopes.begin() + kMaxWords : scopes.end();
    add(kScope)->mutable_words()->Assign(scopes.begin(), end);
  }
  if (!token_origin.empty()) add(kBoundTo)->set_prefix(absl::StrCat(token_origin, " "));
  if (!origin.empty()) add(kOrigins)->add_words(origin);
  return holding;
}

UserNeed NeedOf(const v1::App& app) {
  UserNeed need;
  need.account = true;
  need.uid = app.uid();
  need.slug = app.slug();
  need.name = NameOf(app);
  need.token_origin = OriginOf(app.token_url());
  AddScopes(app.default_scopes(), need);
  return need;
}

UserNeed NeedOf(const v1::Credential& credential) {
  UserNeed need;
  need.uid = credential.uid();
  need.slug = credential.slug();
  need.name = NameOf(credential);
  return need;
}

std::vector<UserNeed> NeedsOf(const v1::McpServer& server, const Neighbours& neighbours) {
  std::vector<UserNeed> needs;
  const v1::CredentialPlan plan = LowerCredentials(server);
  for (const auto& piece : plan.pieces()) {
    if (piece.has_user_connection()) {
      const v1::App* app = neighbours.app(piece.user_connection().app_uid());
      if (app == nullptr) continue;
      needs.push_back(NeedOf(*app));
      AddScopes(piece.user_connection().scopes(), needs.back());
      if (needs.back().account_label = piece.user_connection().label(); !needs.back().account_label.empty()) {
        absl::StrAppend(&needs.back().name, " account \"", needs.back().account_label, "\"");
      }
    } else if (piece.stored_credential().match() == v1::CredentialPlan::StoredCredential::PER_USER) {
      const v1::Credential* credential = neighbours.credential(piece.stored_credential().uid());
      if (credential == nullptr) continue;
      needs.push_back(NeedOf(*credential));
      needs.back().origin = ResourceUrls(server).UpstreamOrigin();
    } else {
      continue;
    }
    needs.back().field = FieldOf(server, piece);
  }
  return needs;
}

std::vector<std::string> NewScopes(const UserNeed& before, const UserNeed& after) {
  std::vector<std::string> added;
  for (const std::string& scope : after.scopes) {
    if (std::find(before.scopes.begin(), before.scopes.end(), scope) == before.scopes.end()) added.push_back(scope);
  }
  return added;
}

std::string Connect(const UserNeed& need) { return absl::StrCat(need.account ? "connect " : "enter ", need.name); }
std::string Connected(const UserNeed& need) {
  return absl::StrCat(need.account ? "connected " : "entered ", need.name);
}

v1::Consequence ForUsers(Consequence::Kind kind, const UserNeed& need, const Consequence::Users* users,
                         const std::string& message) {
  Consequence consequence;
  consequence.set_field(need.field);
  consequence.set_kind(kind);
  consequence.set_resource_kind(
      std::string(need.account ? ResourceTraits<v1::App>::kKind : ResourceTraits<v1::Credential>::kKind));
  consequence.set_resource_slug(need.slug);
  if (users != nullptr) *consequence.mutable_users() = *users;
  consequence.set_message(message);
  return consequence;
}

void AddNotUsed(const UserNeed& need, const std::string& what_becomes, UserCounts& counts, Consequences& found) {
  const auto count = counts.Ask(need.Any());
  if (!count) {
    found.push_back(
        ForUsers(Consequence::NOT_USED, need, nullptr,
                 absl::StrCat("users who have ", Connected(need), " (how many is not known): ", what_becomes)));
    return;
  }
  if (count->users.number() == 0 && !count->users.at_least()) return;
  const char* have = count->users.number() == 1 && !count->users.at_least() ? " has " : " have ";
  found.push_back(ForUsers(Consequence::NOT_USED, need, &count->users,
                           absl::StrCat(UsersText(count->users), have, Connected(need), ": ", what_becomes)));
}

}  // namespace sallyport::registry
