// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <grpcpp/grpcpp.h>

#include "common/crypto/crypto.h"
#include "common/text/base64url.h"
#include "services/authn/authn_testing.h"
#include "services/authn/web/authn_web.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/lowered.h"
#include "tests/testing/postgres.h"
#include "tests/testing/status_matchers.h"

// A whole authn without RPCs, and a browser to walk through it.
namespace sallyport::authn::web {

inline constexpr char kPublicUrl[] = "https://gw.example.com";
inline constexpr char kIssuer[] = "https://idp.example.com";
inline constexpr char kOtherIssuer[] = "https://other.example.com";
inline constexpr char kVerifier[] = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";  // RFC 7636 appendix B.
inline constexpr char kChallenge[] = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
inline constexpr char kPassword[] = "correct horse";

inline registry::v1::McpServer MakeServer(const std::string& slug, const std::string& uid) {
  registry::v1::McpServer server;
  server.set_uid(uid);
  server.set_slug(slug);
  server.set_version(1);
  server.set_display_name(slug == "github" ? "GitHub" : "");
  server.mutable_agent_auth()->mutable_interactive()->mutable_allow()->set_everyone(true);
  server.mutable_app_auth()->mutable_passthrough();
  return server;
}

inline std::vector<registry::v1::McpServer> TestServers() {
  std::vector<registry::v1::McpServer> servers = {MakeServer("github", "srv_github"), MakeServer("notes", "srv_notes"),
                                                  MakeServer("linked", "srv_linked"), MakeServer("off", "srv_off"),
                                                  MakeServer("raw", "srv_raw"),       MakeServer("staff", "srv_staff")};
  servers[2].mutable_app_auth()->mutable_oauth_authorization()->set_app_uid("app_x");
  servers[3].set_enabled(false);
  servers[4].mutable_agent_auth()->mutable_passthrough();
  auto* allow = servers[5].mutable_agent_auth()->mutable_interactive()->mutable_allow();
  allow->set_everyone(false);
  allow->add_subjects("local:bob");
  return servers;
}

inline std::string SnapshotOf(const std::vector<registry::v1::McpServer>& servers,
                              const std::vector<registry::v1::App>& apps = {}) {
  registry::v1::WatchEvent event;
  event.set_store_id("store");
  event.set_revision(1);
  for (const auto& server : servers) {
    *event.mutable_snapshot()->add_mcp_servers() = sallyport::testing::Lowered(server);
  }
  for (const auto& app : apps) {
    *event.mutable_snapshot()->add_apps() = app;
  }
  return event.SerializeAsString();
}

inline google::protobuf::RepeatedPtrField<config::v1::Connector> TestConnectors(bool only_local) {
  static const auto& hash = *new std::string(HashPassword(Secret(std::string(kPassword))));
  google::protobuf::RepeatedPtrField<config::v1::Connector> connectors;
  auto* local = connectors.Add();
  local->set_id("local");
  for (const char* name : {"ann", "bob"}) {
    auto* user = local->mutable_local()->add_users();
    user->set_username(name);
    user->set_password_hash(hash);
    user->set_email(absl::StrCat(name, "@example.com"));
    user->set_name(name);
  }
  if (!only_local) {
    for (const auto& [id, issuer] : {std::pair("okta", kIssuer), std::pair("other", kOtherIssuer)}) {
      auto* oidc = connectors.Add();
      oidc->set_id(id);
      oidc->set_display_name(absl::StrCat("Test ", id));
      oidc->mutable_oidc()->set_issuer(issuer);
      oidc->mutable_oidc()->set_client_id("gateway");
    }
  }
  return connectors;
}

// What a provider's token or UserInfo endpoint was asked and answers.
struct FakeTokenEndpoint {
  std::vector<HttpRequest> requests;
  int status = 200;
  std::string body;
};

class World {
 public:
  struct Options {
    bool only_local = false;
    std::string postgresql;
    std::vector<registry::v1::McpServer> servers = TestServers();
    std::vector<registry::v1::App> apps = {};
    std::vector<Client> clients = {};
  };
  World() : World(Options()) {}
  explicit World(const Options& options)
      : database(Open(options)),
        jwks(fetcher),
        keys(vault, absl::Hours(1)),
        tokens(kPublicUrl, keys, absl::Hours(1)),
        passports(kPublicUrl, keys),
        roles(config::v1::AuthnConfig::Roles(), GroupNames()),
        stream(Nowhere(), clock),
        servers(stream, roles, GroupNames(TestConnectors(options.only_local))),
        audit(*database, clock),
        revocations(*database, Nowhere()),
        sessions(*database, absl::Hours(12)),
        grants(*database, &audit),
        connectors(*Connectors::Create(TestConnectors(options.only_local), jwks, vault)),
        issuer(kIssuer),
        other_issuer(kOtherIssuer),
        web(Parts{kPublicUrl, absl::Hours(12), clock, *database, sessions, grants, revocations, servers, *connectors,
                  tokens, keys, passports, sign_in_tokens, audit,
                  [this](HttpRequest request) { return Fetch(request); }, options.clients}) {
    EXPECT_THAT(keys.Refresh(clock.Now()), testing::IsOk());
    EXPECT_THAT(stream.Seed(SnapshotOf(options.servers, options.apps)), testing::IsOk());
    for (const TestIssuer* each : {&issuer, &other_issuer}) {
      fetcher.Serve(each->issuer() + "/.well-known/openid-configuration", each->Discovery());
      fetcher.Serve(each->issuer() + "/jwks", each->Jwks());
    }
  }

  // Events of a type, as they lie in the outbox.
  std::vector<audit::v1::Event> Events(const std::string& type) {
    std::vector<audit::v1::Event> events;
    AuditOutbox outbox(*database, clock, {.source = "authn"});
    while (true) {
      const auto shipped = outbox.ShipOnce([&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
        for (const auto& event : batch.events()) {
          all_events_.push_back(event);
        }
        return batch.events(batch.events_size() - 1).sequence();
      });
      if (!shipped.ok() || *shipped == 0) {
        break;
      }
    }
    for (const auto& event : all_events_) {
      if (event.type() == type) {
        events.push_back(event);
      }
    }
    return events;
  }

  TempDirectory directory;
  FakeClock clock;
  std::unique_ptr<Database> database;
  FakeVaultClient vault;
  MemorySignInTokens sign_in_tokens;
  FakeFetcher fetcher;
  JwksCache jwks;
  SigningKeys keys;
  AccessTokens tokens;
  Passports passports;
  RolePolicy roles;
  ControlStream stream;
  Servers servers;
  Audit audit;
  Revocations revocations;
  Sessions sessions;
  Grants grants;
  std::unique_ptr<Connectors> connectors;
  TestIssuer issuer;
  TestIssuer other_issuer;
  FakeTokenEndpoint token_endpoint;
  FakeTokenEndpoint userinfo;
  AuthnWeb web;

 private:
  static std::shared_ptr<grpc::Channel> Nowhere() {
    return grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials());
  }
  std::unique_ptr<Database> Open(const Options& options) {
    config::v1::Database config;
    if (options.postgresql.empty()) {
      config.set_sqlite(directory.path() + "/authn.db");
    } else {
      config.set_postgresql(options.postgresql);
    }
    auto opened = OpenAuthnDatabase(config, clock);
    EXPECT_THAT(opened, testing::IsOk());
    return *std::move(opened);
  }
  absl::StatusOr<HttpResponse> Fetch(const HttpRequest& request) {
    FakeTokenEndpoint& endpoint = absl::EndsWith(request.url, "/userinfo") ? userinfo : token_endpoint;
    endpoint.requests.push_back(request);
    HttpResponse response;
    response.status = endpoint.status;
    response.body = endpoint.body;
    return response;
  }
  std::vector<audit::v1::Event> all_events_;
};

inline std::string ResponseHeader(const WebResponse& response, absl::string_view name) {
  for (const auto& header : response.headers()) {
    if (header.name() == name) {
      return header.value();
    }
  }
  return "";
}

// Text between `before` and `after`, with the escapes of our pages undone.
inline std::string Between(absl::string_view text, absl::string_view before, absl::string_view after) {
  const size_t begin = text.find(before);
  if (begin == absl::string_view::npos) {
    return "";
  }
  text.remove_prefix(begin + before.size());
  std::string found(text.substr(0, text.find(after)));
  for (const auto& [escaped, plain] : {std::pair("&quot;", "\""), std::pair("&#39;", "'"), std::pair("&amp;", "&")}) {
    for (size_t at = found.find(escaped); at != std::string::npos; at = found.find(escaped, at)) {
      found.replace(at, std::string(escaped).size(), plain);
    }
  }
  return found;
}

inline Form QueryOf(absl::string_view url) {
  const size_t mark = url.find('?');
  return *Form::Parse(mark == absl::string_view::npos ? absl::string_view() : url.substr(mark + 1));
}

// Keeps cookies, sends Origin with its forms, follows nothing.
class TestBrowser {
 public:
  explicit TestBrowser(World& world) : world_(world) {}

  WebResponse Get(absl::string_view url) {
    WebRequest request = Begin("GET", url);
    return Send(request);
  }
  WebResponse Post(absl::string_view url, const FormFields& fields) {
    WebRequest request = Begin("POST", url);
    Add(request, "origin", origin);
    Add(request, "content-type", "application/x-www-form-urlencoded");
    request.set_body(FormEncode(fields));
    return Send(request);
  }
  WebRequest Begin(const char* method, absl::string_view url) const {
    WebRequest request;
    request.set_method(method);
    if (absl::StartsWith(url, kPublicUrl)) {
      url.remove_prefix(sizeof(kPublicUrl) - 1);
    }
    const size_t mark = url.find('?');
    request.set_path(std::string(url.substr(0, mark)));
    if (mark != absl::string_view::npos) {
      request.set_query(std::string(url.substr(mark + 1)));
    }
    request.set_client_address(address);
    std::string header;
    for (const auto& [name, value] : cookies) {
      absl::StrAppend(&header, header.empty() ? "" : "; ", name, "=", value);
    }
    if (!header.empty()) {
      Add(request, "cookie", header);
    }
    return request;
  }
  WebResponse Send(const WebRequest& request) {
    WebResponse response = world_.web.Handle(request);
    for (const auto& header : response.headers()) {
      if (header.name() == "set-cookie") {
        const std::string cookie = header.value().substr(0, header.value().find(';'));
        const size_t equals = cookie.find('=');
        const std::string name = cookie.substr(0, equals);
        if (absl::StrContains(header.value(), "Max-Age=0;")) {
          cookies.erase(name);
        } else {
          cookies[name] = cookie.substr(equals + 1);
        }
      }
    }
    return response;
  }
  static void Add(WebRequest& request, absl::string_view name, absl::string_view value) {
    auto* header = request.add_headers();
    header->set_name(std::string(name));
    header->set_value(std::string(value));
  }

  // Signs in at the local connector and comes back to `return_to`.
  WebResponse SignIn(const std::string& user, const std::string& return_to = "/") {
    const WebResponse form = Get(WithParameters("/login/local", {{"connector", "local"}, {"return_to", return_to}}));
    return Post("/login/local", {{"csrf", Between(form.body(), "name=\"csrf\" value=\"", "\"")},
                                 {"return_to", return_to},
                                 {"connector", "local"},
                                 {"username", user},
                                 {"password", kPassword}});
  }
  // Answers the consent page at `location`, with a server where there is a choice.
  WebResponse Consent(absl::string_view location, const std::string& decision, const std::string& server = "") {
    const WebResponse page = Get(location);
    FormFields fields = {{"txn", Between(page.body(), "name=\"txn\" value=\"", "\"")},
                         {"csrf", Between(page.body(), "name=\"csrf\" value=\"", "\"")},
                         {"decision", decision}};
    if (!server.empty()) {
      fields.emplace_back("server", server);
    }
    return Post("/oauth/consent", fields);
  }

  std::map<std::string, std::string> cookies;
  std::string origin = kPublicUrl;
  std::string address = "192.0.2.1";

 private:
  World& world_;
};

inline std::string Location(const WebResponse& response) { return ResponseHeader(response, "location"); }
// Where a page goes by itself.
inline std::string RefreshTarget(const WebResponse& response) {
  return Between(response.body(), "content=\"0;url=", "\"");
}

inline nlohmann::json JsonOf(const WebResponse& response) {
  const auto json = ParseJsonObject(response.body());
  return json.ok() ? *json : nlohmann::json::object();
}

// A registered public client with one redirect URI.
inline std::string RegisterClient(TestBrowser& browser, const std::string& redirect_uri,
                                  const nlohmann::json& more = nlohmann::json::object()) {
  nlohmann::json metadata = {{"redirect_uris", nlohmann::json::array({redirect_uri})}, {"client_name", "Cursor"}};
  metadata.update(more);
  WebRequest request = browser.Begin("POST", "/oauth/register");
  TestBrowser::Add(request, "content-type", "application/json");
  request.set_body(metadata.dump());
  return JsonString(JsonOf(browser.Send(request)), "client_id").value_or("");
}

inline FormFields AuthorizeFields(const std::string& client_id, const std::string& redirect_uri,
                                  const std::string& resource = "https://gw.example.com/mcp/github") {
  return {{"response_type", "code"},      {"client_id", client_id},          {"redirect_uri", redirect_uri},
          {"code_challenge", kChallenge}, {"code_challenge_method", "S256"}, {"state", "st"},
          {"resource", resource}};
}

// The code of a finished flow, by a browser that is signed in.
inline std::string ObtainCode(TestBrowser& browser, const FormFields& fields) {
  WebResponse response = browser.Get("/oauth/authorize?" + FormEncode(fields));
  std::string target = Location(response);
  if (absl::StartsWith(target, "/oauth/consent")) {
    target = RefreshTarget(browser.Consent(target, "allow"));
  }
  return QueryOf(target).Get("code");
}

inline WebResponse RequestToken(TestBrowser& browser, const FormFields& fields) {
  return browser.Post("/oauth/token", fields);
}

}  // namespace sallyport::authn::web
