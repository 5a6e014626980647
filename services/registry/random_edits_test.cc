// SPDX-License-Identifier: Apache-2.0
// Whatever people without the role credential-admin do to the configuration, in whatever order: what was entered for
// one origin is never sent to another.
#include <random>

#include "absl/strings/substitute.h"

#include "common/http/url.h"
#include "services/registry/catalog_testing.h"
#include "services/registry/secret_fields.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;

class RandomEditsTest : public CatalogTest {
 protected:
  static constexpr const char* kHosts[] = {"api.example.com", "idp.example.com", "evil.example.com"};
  static constexpr const char* kServers[] = {"a", "b", "c"};
  static constexpr const char* kApps[] = {"p", "q"};
  static constexpr const char* kCredentials[] = {"k", "l"};

  size_t Below(size_t count) { return std::uniform_int_distribution<size_t>(0, count - 1)(random_); }
  bool OneIn(size_t count) { return Below(count) == 0; }
  template <size_t N>
  const char* Any(const char* const (&all)[N]) {
    return all[Below(N)];
  }
  // What is typed for a secret: a new value that tells when it was, nothing, or an end to what is stored.
  std::string Typed() {
    return OneIn(2) ? "{}" : OneIn(5) ? R"({"clear": true})" : absl::Substitute(R"({"value": "typed-$0"})", ++typed_);
  }
  std::string Client(const char* url) {
    return absl::Substitute(R"({"$0": "https://$1/token", "clientId": "me", "clientSecret": $2})", url, Any(kHosts),
                            Typed());
  }
  std::string AppAuth() {
    switch (Below(6)) {
      case 0:
        return absl::Substitute(R"("bearer": {"token": $0})", Typed());
      case 1:
        return absl::Substitute(R"("apiKey": {"name": "X-Api-Key", "value": $0})", Typed());
      case 2:
        return absl::Substitute(R"("basic": {"username": "u", "password": $0})", Typed());
      case 3:
        return absl::StrCat(R"("clientCredentials": )", Client("tokenUrl"));
      case 4:
        return absl::Substitute(R"("oauthAuthorization": {"app": "$0"})", Any(kApps));
      default:
        return R"("passthrough": {})";
    }
  }
  std::string Headers() {
    std::vector<std::string> headers;
    if (OneIn(2)) {
      headers.push_back(absl::Substitute(R"({"name": "X-One", "literal": {"secretValue": $0}})", Typed()));
    }
    if (OneIn(3)) {
      headers.push_back(absl::StrCat(R"({"name": "X-Two", "oauth2ServiceToken": )", Client("tokenUrl"), "}"));
    }
    if (OneIn(3)) {
      headers.push_back(absl::StrCat(R"({"name": "X-Three", "onBehalfOf": )", Client("exchangeUrl"), "}"));
    }
    if (OneIn(4)) {
      headers.push_back(
          absl::Substitute(R"({"name": "X-Four", "storedCredential": {"credential": "$0"}})", Any(kCredentials)));
    }
    return absl::StrJoin(headers, ", ");
  }
  std::string Server() {
    return absl::Substitute(R"({"slug": "$0", "upstreamUrl": "https://$1/mcp", "agentAuth": {"interactive":
        {"allow": {"everyone": true}}}, "appAuth": {$2}, "outboundHeaders": [$3]})",
                            Any(kServers), Any(kHosts), AppAuth(), Headers());
  }
  std::string App(bool with_origins) {
    return absl::Substitute(
        R"({"slug": "$0", "authorizationUrl": "https://$1/authorize", "tokenUrl": "https://$2/token",
        "clientId": "me", "clientSecret": $3$4})",
        Any(kApps), Any(kHosts), Any(kHosts), Typed(),
        with_origins ? absl::Substitute(R"(, "allowedUpstreamOrigins": ["https://$0"])", Any(kHosts)) : "");
  }
  std::string Credential() {
    return absl::Substitute(
        R"({"slug": "$0", "kind": "API_KEY", "value": $1, "allowedUpstreamOrigins": ["https://$2"]})",
        Any(kCredentials), Typed(), Any(kHosts));
  }

  // Now and then one that was deleted before is finished.
  bool DeleteApp(const Writer& writer) {
    const auto ending = Stored().ending_apps();
    if (!ending.empty() && OneIn(2)) {
      clock_.Advance(Catalog::kLinksInFlight);
      EXPECT_THAT(catalog_->FinishApp(ending[static_cast<int>(Below(static_cast<size_t>(ending.size())))].uid()),
                  IsOk());
    }
    return catalog_->Delete<v1::App>(Any(kApps), 0, writer).ok();
  }

  // One edit. Most are refused, as they should be.
  bool Edit(const Writer& writer) {
    const bool dry_run = OneIn(10);
    switch (Below(9)) {
      case 0:
        return catalog_->Create(FromJson<v1::McpServer>(Server()), dry_run, writer).ok();
      case 1:
        return catalog_->Create(FromJson<v1::App>(App(OneIn(2))), dry_run, writer).ok();
      case 2:
        return catalog_->Update(FromJson<v1::App>(App(OneIn(2))), dry_run, writer).ok();
      case 3:
        return catalog_->Update(FromJson<v1::Credential>(Credential()), dry_run, writer).ok();
      case 4:
        return OneIn(6) && catalog_->Delete<v1::McpServer>(Any(kServers), 0, writer).ok();
      case 5:
        return OneIn(6) && DeleteApp(writer);
      case 6:
        return Apply(File({App(OneIn(2))}, {Server()},
                          OneIn(4) ? std::vector<std::string>{Credential()} : std::vector<std::string>()),
                     writer, dry_run)
            .ok();
      default:
        return catalog_->Update(FromJson<v1::McpServer>(Server()), dry_run, writer).ok();
    }
  }

  // Where the configuration as it stands sends each secret it refers to: the record's key and version, and the origin.
  struct Use {
    std::string key;
    int64_t version = 0;
    std::string origin;
  };
  std::vector<Use> Uses() {
    std::vector<Use> uses;
    v1::WatchEvent::Snapshot stored = Stored();
    const auto add = [&](const char* kind, const common::v1::Secret& secret, const std::string& url) {
      if (secret.set()) uses.push_back({absl::StrCat(kind, " ", secret.vault_record()), secret.version(), url});
    };
    for (const v1::McpServer& server : stored.mcp_servers()) {
      const auto& auth = server.app_auth();
      add("server_secret", auth.bearer().token(), server.upstream_url());
      add("server_secret", auth.api_key().value(), server.upstream_url());
      add("server_secret", auth.basic().password(), server.upstream_url());
      add("server_secret", auth.client_credentials().client_secret(), auth.client_credentials().token_url());
      for (const v1::OutboundHeader& header : server.outbound_headers()) {
        add("server_secret", header.literal().secret_value(), server.upstream_url());
        add("server_secret", header.oauth2_service_token().client_secret(), header.oauth2_service_token().token_url());
        add("server_secret", header.on_behalf_of().client_secret(), header.on_behalf_of().exchange_url());
        for (const v1::Credential& credential : stored.credentials()) {
          if (header.stored_credential().credential_uid() == credential.uid()) {
            add("credential", credential.value(), server.upstream_url());
          }
        }
      }
    }
    for (const auto* apps : {&stored.apps(), &stored.ending_apps()}) {
      for (const v1::App& app : *apps) add("app_secret", app.client_secret(), app.token_url());
    }
    for (Use& use : uses) use.origin = Url::Parse(use.origin)->origin();
    return uses;
  }

  std::mt19937 random_{20261128};
  int typed_ = 0;
};
INSTANTIATE_ENGINES(RandomEditsTest);

TEST_P(RandomEditsTest, NobodyButACredentialAdminMovesACredential) {
  // PostgreSQL does nothing else here, only slower.
  const int edits = GetParam() == Engine::kPostgresql ? 500 : 10'000;
  // For which origins each value was sealed when it was typed.
  std::map<std::string, std::vector<std::string>> sealed;
  const auto examine = [&](int edit) {
    for (const Use& use : Uses()) {
      const FakeVault::Held held = vault_.Look(use.key);
      ASSERT_TRUE(held.versions.contains(use.version)) << "edit " << edit << ": " << use.key;
      const std::string& value = held.versions.at(use.version);
      const std::vector<std::string>& origins = held.origins.at(use.version);
      EXPECT_THAT(origins, ::testing::Contains(use.origin)) << "edit " << edit << ": " << use.key << " " << value;
      EXPECT_EQ(sealed.try_emplace(value, origins).first->second, origins) << "edit " << edit << ": " << value;
    }
  };
  for (const char* slug : kCredentials) {
    ASSERT_THAT(Create<v1::Credential>(absl::Substitute(R"({"slug": "$0", "kind": "API_KEY",
        "value": {"value": "typed-by-chief-$0"}, "allowedUpstreamOrigins": ["https://api.example.com"]})",
                                                        slug)),
                IsOk());
  }
  int saved = 0;
  for (int edit = 0; edit < edits; ++edit) {
    if (!Edit(admin_)) continue;
    ++saved;
    examine(edit);
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(saved, edits / 20) << "hardly anything was saved: nothing was shown";
  EXPECT_GT(sealed.size(), static_cast<size_t>(edits) / 50);
}

}  // namespace
}  // namespace sallyport::registry
