// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/server_entry.h"

#include <functional>

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>

#include "sallyport/audit/v1/audit.pb.h"
#include "tests/testing/fakes/lowered.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using Code = absl::StatusCode;
using Kind = ServerEntry::CallerKind;
using Plan = registry::v1::CredentialPlan;

constexpr char kInteractive[] = R"("agentAuth":{"interactive":{}})";
constexpr char kOpen[] = R"("agentAuth":{"passthrough":{}})";
constexpr char kJwt[] = R"("agentAuth":{"passthrough":{"jwtValidation":{"connector":"okta"}}})";

registry::v1::McpServer Server(const std::string& fields) {
  registry::v1::McpServer server;
  const std::string json =
      R"({"uid":"srv_a","slug":"a","version":"3","upstreamUrl":"https://api.example.com/mcp",)" + fields + "}";
  const auto status =
      google::protobuf::util::JsonStringToMessage(json, &server, google::protobuf::util::JsonParseOptions());
  EXPECT_TRUE(status.ok()) << status.ToString();
  return sallyport::testing::Lowered(std::move(server));
}
absl::StatusOr<std::shared_ptr<const ServerEntry>> Compile(const std::string& fields) {
  return CompileServer(Server(fields), "https://gw.example.com");
}
// What of the caller's fields goes upstream.
std::string Kept(const ServerEntry& entry, const std::vector<std::string>& names) {
  RequestHead head;
  for (const auto& name : names) head.field_storage[head.field_count++] = {name, "v", ClassifyHeader(name)};
  std::string out;
  entry.rules.AppendFields(head, HeaderId::kOther, out);
  return out;
}

TEST(ServerEntry, TheOriginIsWrittenAsTheServicesWriteIt) {
  registry::v1::McpServer server = Server(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}})");
  server.set_upstream_url("https://[2001:DB8:0:0::1]:443/mcp");
  ASSERT_OK_AND_ASSIGN(const auto entry, CompileServer(server, "https://gw.example.com"));
  EXPECT_EQ(entry->target.origin, "https://[2001:db8::1]");
}

registry::v1::McpServer SecretServer(const std::string& more = "") {
  registry::v1::McpServer server = Server(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}})" + more);
  server.clear_upstream_url();
  server.mutable_secret_upstream_url()->set_set(true);
  server.set_upstream_origin("https://hooks.example:8443");
  return server;
}

TEST(ServerEntry, OfASecretAddressOnlyTheOriginIsThere) {
  ASSERT_OK_AND_ASSIGN(const auto entry,
                       CompileServer(sallyport::testing::Lowered(SecretServer()), "https://gw.example.com"));
  EXPECT_EQ(entry->target.origin, "https://hooks.example:8443");
  EXPECT_EQ(entry->target.host, "") << "nothing dials it by mistake";
  ASSERT_NE(entry->secret_target, nullptr);
  EXPECT_TRUE(entry->target.secret);
  for (const Kind kind : {Kind::kUnverified, Kind::kSignedIn, Kind::kPresented}) {
    EXPECT_TRUE(entry->NeedOf(kind).asked);
    EXPECT_FALSE(entry->NeedOf(kind).per_caller);
  }
  ASSERT_OK_AND_ASSIGN(const auto target, entry->secret_target->Make("https://hooks.example:8443/x", ""));
  EXPECT_EQ(target->host, "hooks.example");
  EXPECT_EQ(target->connect_timeout, entry->target.connect_timeout);
}

TEST(ServerEntry, SecretsOfTheConnectionMustFitTheServer) {
  const auto with = [](const std::function<void(registry::v1::McpServer&)>& change, registry::v1::McpServer server) {
    server = sallyport::testing::Lowered(std::move(server));
    change(server);
    return CompileServer(server, "https://gw.example.com").status();
  };
  const auto last = [](registry::v1::McpServer& server) -> Plan::Piece& {
    auto& pieces = *server.mutable_credential_plan()->mutable_pieces();
    return pieces[pieces.size() - 1];
  };
  EXPECT_THAT(with([](auto&) {}, SecretServer()), IsOk());
  EXPECT_THAT(with([](auto& server) { server.clear_upstream_origin(); }, SecretServer()), Not(IsOk()));
  EXPECT_THAT(
      with([](auto& server) { server.mutable_credential_plan()->mutable_pieces()->RemoveLast(); }, SecretServer()),
      StatusIs(Code::kInvalidArgument))
      << "no address";
  EXPECT_THAT(with([&](auto& server) { last(server).set_scope(Plan::USER); }, SecretServer()),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(with([&](auto& server) { last(server).set_callers(Plan::SIGNED_IN); }, SecretServer()),
              StatusIs(Code::kInvalidArgument))
      << "others would have none";
  EXPECT_THAT(
      with([&](auto& server) { *server.mutable_credential_plan()->add_pieces() = last(server); }, SecretServer()),
      StatusIs(Code::kInvalidArgument))
      << "two";
  EXPECT_THAT(with(
                  [&](auto& server) {
                    server.set_upstream_url("https://api.example.com/mcp");
                    server.clear_secret_upstream_url();
                  },
                  SecretServer()),
              StatusIs(Code::kInvalidArgument))
      << "an address in place of the one that is shown";
  const std::string shown = R"(,"policy":{"tls":{"clientCert":{"set":true,"vaultRecord":"r","version":"1"}}})";
  EXPECT_THAT(with([](auto&) {}, SecretServer(shown)), IsOk());
  EXPECT_THAT(with([](auto& server) { server.set_upstream_origin("http://hooks.example"); }, SecretServer(shown)),
              StatusIs(Code::kInvalidArgument))
      << "a certificate without TLS";
  EXPECT_THAT(with([](auto& server) { server.mutable_policy()->mutable_tls()->set_ca_bundle("x"); }, SecretServer()),
              StatusIs(Code::kInvalidArgument));
}

TEST(ServerEntry, CarriesTargetIdentityAndLimits) {
  ASSERT_OK_AND_ASSIGN(const auto entry, Compile(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}},
      "policy":{"bodyLimit":"100","connectTimeout":"0.250s","firstByteTimeout":"30s","auditRequired":true,
      "allowedClientNetworks":["10.0.0.0/8"]})"));
  EXPECT_EQ(entry->uid, "srv_a");
  EXPECT_EQ(entry->display_name, "a");
  EXPECT_EQ(entry->version, 3);
  EXPECT_TRUE(entry->enabled);
  EXPECT_EQ(entry->target.origin, "https://api.example.com");
  EXPECT_EQ(entry->target.pool_key, "srv_a/" + std::to_string(entry->serial)) << "no two servers share a connection";
  EXPECT_EQ(entry->target.connect_timeout, std::chrono::milliseconds(250));
  EXPECT_EQ(entry->target.first_byte_timeout, std::chrono::seconds(30));
  EXPECT_EQ(entry->body_limit, 100U);
  EXPECT_TRUE(entry->audit_required);
  EXPECT_THAT(entry->allowed_client_networks, SizeIs(1));
  audit::v1::Event event;
  ASSERT_TRUE(event.ParseFromString(entry->audit_fields));
  EXPECT_EQ(event.server_slug(), "a");
  ASSERT_OK_AND_ASSIGN(const auto plain,
                       Compile(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}},"enabled":false)"));
  EXPECT_EQ(plain->body_limit, 4U << 20);
  EXPECT_FALSE(plain->enabled);
}

TEST(ServerEntry, ChallengesAreThoseOfTheirDoor) {
  ASSERT_OK_AND_ASSIGN(const auto interactive, Compile(std::string(kInteractive) + R"(,"appAuth":{"bearer":{}})"));
  EXPECT_TRUE(interactive->authenticates());
  EXPECT_EQ(
      interactive->challenge,
      R"(Bearer resource_metadata="https://gw.example.com/.well-known/oauth-protected-resource/mcp/a", scope="mcp")");
  EXPECT_NE(interactive->challenge_invalid.find(R"(scope="mcp", error="invalid_token")"), std::string::npos);
  ASSERT_OK_AND_ASSIGN(const auto jwt, Compile(std::string(kJwt) + R"(,"appAuth":{"bearer":{}})"));
  EXPECT_TRUE(jwt->authenticates());
  EXPECT_EQ(jwt->challenge, "Bearer") << "a Passthrough server publishes no metadata";
  EXPECT_EQ(jwt->challenge_invalid.substr(0, 28), R"(Bearer error="invalid_token")");
  ASSERT_OK_AND_ASSIGN(const auto open, Compile(std::string(kOpen) + R"(,"appAuth":{"bearer":{}})"));
  EXPECT_FALSE(open->authenticates());
}

TEST(ServerEntry, AppAuthenticationDecidesBrokerAndInjectedNames) {
  ASSERT_OK_AND_ASSIGN(const auto bearer, Compile(std::string(kOpen) + R"(,"appAuth":{"bearer":{}})"));
  EXPECT_TRUE(bearer->NeedOf(Kind::kUnverified).asked);
  EXPECT_FALSE(bearer->NeedOf(Kind::kUnverified).per_caller);
  ASSERT_OK_AND_ASSIGN(const auto basic, Compile(std::string(kOpen) + R"(,"appAuth":{"basic":{"username":"u"}})"));
  EXPECT_TRUE(basic->NeedOf(Kind::kUnverified).asked);
  ASSERT_OK_AND_ASSIGN(const auto header,
                       Compile(std::string(kOpen) + R"(,"appAuth":{"apiKey":{"name":"X-Api-Key"}})"));
  EXPECT_TRUE(header->api_key_query.empty());
  EXPECT_EQ(Kept(*header, {"x_api_key", "X-API-KEY", "X-Other"}), "X-Other: v\r\n") << "a caller must not pre-set it";
  ASSERT_OK_AND_ASSIGN(const auto query,
                       Compile(std::string(kOpen) + R"(,"appAuth":{"apiKey":{"name":"key","location":"QUERY"}})"));
  EXPECT_EQ(query->api_key_query, "key");
  ASSERT_OK_AND_ASSIGN(const auto oauth, Compile(std::string(kInteractive) +
                                                 R"(,"appAuth":{"oauthAuthorization":{"app":"x","appUid":"app_x"}})"));
  EXPECT_TRUE(oauth->NeedOf(Kind::kSignedIn).per_caller && oauth->NeedOf(Kind::kPresented).per_caller);
  EXPECT_EQ(oauth->app_uid, "app_x");
  ASSERT_OK_AND_ASSIGN(const auto passthrough, Compile(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}})"));
  EXPECT_TRUE(passthrough->app_passthrough);
  EXPECT_FALSE(passthrough->NeedOf(Kind::kUnverified).asked);
  EXPECT_EQ(Kept(*passthrough, {"Authorization", "Cookie", "X-Forwarded-For", "Accept"}), "Accept: v\r\n");
}

TEST(ServerEntry, OutboundSourcesAreRenderedHereOrAskedOfTheBroker) {
  ASSERT_OK_AND_ASSIGN(const auto entry, Compile(std::string(kInteractive) + R"(,"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-User","callerIdentity":{"claim":"email"}},
                         {"name":"X-Token","prefix":"Bearer ","forwardCallerToken":{}}])"));
  ASSERT_THAT(entry->own_headers, SizeIs(2));
  EXPECT_EQ(entry->own_headers[0].claim, "email");
  EXPECT_EQ(entry->own_headers[0].piece, "outbound_headers[x-user]");
  EXPECT_EQ(entry->own_headers[1].source, ServerEntry::OwnHeader::Source::kPresentedToken);
  EXPECT_TRUE(entry->NeedOf(Kind::kSignedIn).asked && entry->NeedOf(Kind::kSignedIn).per_caller)
      << "for our own tokens";
  EXPECT_FALSE(entry->NeedOf(Kind::kPresented).asked);
  EXPECT_EQ(Kept(*entry, {"x_user", "X-TOKEN", "X-A"}), "X-A: v\r\n");
  ASSERT_OK_AND_ASSIGN(const auto literal, Compile(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Team","literal":{"value":"a"}}])"));
  EXPECT_TRUE(literal->NeedOf(Kind::kUnverified).asked);
  EXPECT_THAT(literal->own_headers, IsEmpty());
}

TEST(ServerEntry, AnExchangeNeedsThePresentedTokenOfThoseWhoHaveNoneOfOurs) {
  ASSERT_OK_AND_ASSIGN(const auto entry, Compile(std::string(kInteractive) + R"(,"appAuth":{"bearer":{}},
      "outboundHeaders":[{"name":"X-Obo","onBehalfOf":{"exchangeUrl":"https://idp.example.com/token"}}])"));
  EXPECT_TRUE(entry->NeedOf(Kind::kPresented).presented_token);
  EXPECT_TRUE(entry->NeedOf(Kind::kPresented).per_caller);
  EXPECT_FALSE(entry->NeedOf(Kind::kSignedIn).presented_token) << "the broker has that of the sign-in";
  EXPECT_TRUE(entry->NeedOf(Kind::kSignedIn).per_caller);
  ASSERT_OK_AND_ASSIGN(const auto service, Compile(std::string(kOpen) + R"(,"appAuth":{"clientCredentials":{}})"));
  EXPECT_TRUE(service->NeedOf(Kind::kUnverified).asked);
  EXPECT_FALSE(service->NeedOf(Kind::kUnverified).per_caller || service->NeedOf(Kind::kUnverified).presented_token);
}

// A newer registry may stream what this edge has never heard of.
TEST(ServerEntry, APlanThatIsNotKnownInFullIsNotCarriedOutInPart) {
  const registry::v1::McpServer known = Server(std::string(kInteractive) + R"(,"appAuth":{"bearer":{}},
      "outboundHeaders":[{"name":"X-User","callerIdentity":{"claim":"sub"}}])");
  ASSERT_THAT(CompileServer(known, "https://gw.example.com"), IsOk());
  const std::vector<std::function<void(Plan&)>> edits = {
      [](Plan& plan) { plan.Clear(); },
      [](Plan& plan) {
        plan.mutable_pieces()->RemoveLast();
        plan.mutable_pieces(0)->set_id("outbound_headers[x]");
      },
      [](Plan& plan) { plan.mutable_pieces(0)->clear_source(); },
      [](Plan& plan) { plan.mutable_pieces(1)->clear_source(); },
      [](Plan& plan) { plan.mutable_pieces(0)->set_renderer(Plan::EDGE); },
      [](Plan& plan) { plan.mutable_pieces(1)->set_renderer(Plan::BROKER); },
      [](Plan& plan) { plan.mutable_pieces(0)->clear_renderer(); },
      [](Plan& plan) { plan.mutable_pieces(0)->clear_location(); },
      [](Plan& plan) { plan.mutable_pieces(1)->set_location(Plan::QUERY); },
      [](Plan& plan) { plan.mutable_pieces(0)->set_location(static_cast<Plan::Location>(77)); },
      [](Plan& plan) { plan.mutable_pieces(0)->set_callers(static_cast<Plan::Callers>(77)); },
      [](Plan& plan) { plan.mutable_pieces(1)->set_request_header("X-Other"); },
      [](Plan& plan) {
        Plan::Piece& piece = *plan.mutable_pieces(0);
        piece.GetReflection()->MutableUnknownFields(&piece)->AddVarint(1000, 1);
      },
  };
  for (size_t i = 0; i < edits.size(); ++i) {
    registry::v1::McpServer server = known;
    edits[i](*server.mutable_credential_plan());
    EXPECT_THAT(CompileServer(server, "https://gw.example.com"), StatusIs(Code::kInvalidArgument)) << i;
  }
}

TEST(ServerEntry, RestrictedNamesAreDropped) {
  ASSERT_OK_AND_ASSIGN(const auto entry, Compile(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}},
      "restrictedInboundHeaders":["x-internal-*"])"));
  EXPECT_EQ(Kept(*entry, {"X-Internal-A", "x-internal-", "x_internal_b", "xinternal-a"}), "xinternal-a: v\r\n");
}

TEST(ServerEntry, IdentityHeadersGoOnOnlyWherePassthroughInAndOutSaysSo) {
  const std::vector<std::string> names = {"Remote-User", "X-Forwarded-User", "X-Forwarded-For", "X-Other"};
  const std::string through = std::string(kOpen) + R"(,"appAuth":{"passthrough":{}})";
  ASSERT_OK_AND_ASSIGN(const auto plain, Compile(through));
  EXPECT_EQ(Kept(*plain, names), "X-Other: v\r\n");
  const std::string forwarding = R"(,"policy":{"forwardIdentityHeaders":true})";
  ASSERT_OK_AND_ASSIGN(const auto open, Compile(through + forwarding));
  EXPECT_EQ(Kept(*open, names), "Remote-User: v\r\nX-Forwarded-User: v\r\nX-Other: v\r\n");
  ASSERT_OK_AND_ASSIGN(const auto jwt, Compile(std::string(kJwt) + R"(,"appAuth":{"passthrough":{}})" + forwarding));
  EXPECT_EQ(Kept(*jwt, {"Impersonate-User"}), "Impersonate-User: v\r\n");
  ASSERT_OK_AND_ASSIGN(const auto set, Compile(through + forwarding + R"(,"outboundHeaders":[
      {"name":"Remote-User","literal":{"value":"service"}}])"));
  EXPECT_EQ(Kept(*set, {"remote_user"}), "") << "what a rule sets, no caller does";
  for (const std::string& other : {std::string(kInteractive) + R"(,"appAuth":{"passthrough":{}})",
                                   std::string(kOpen) + R"(,"appAuth":{"bearer":{}})"}) {
    EXPECT_THAT(Compile(other + forwarding), StatusIs(Code::kInvalidArgument)) << other;
  }
}

TEST(ServerEntry, WhatCannotBeExecutedIsNotRunWithARuleMissing) {
  for (const std::string& fields : std::vector<std::string>{
           std::string(R"("appAuth":{"bearer":{}})"), std::string(kOpen),
           std::string(kOpen) + R"(,"appAuth":{"bearer":{}},"outboundHeaders":[{"name":"X-A"}])",
           std::string(kOpen) + R"(,"appAuth":{"bearer":{}},"outboundHeaders":[{"name":"X-A","onBehalfOf":{}}])",
           std::string(kOpen) + R"(,"appAuth":{"oauthAuthorization":{"app":"x"}})",
           std::string(kOpen) +
               R"(,"appAuth":{"bearer":{}},"outboundHeaders":[{"name":"X-A","callerIdentity":{"claim":"sub"}}])",
           std::string(kOpen) + R"(,"appAuth":{"bearer":{}},"policy":{"allowedClientNetworks":["x"]})",
           std::string(kOpen) + R"(,"appAuth":{"bearer":{}},"restrictedInboundHeaders":["x y"])"}) {
    EXPECT_THAT(Compile(fields), StatusIs(Code::kInvalidArgument)) << fields;
  }
  registry::v1::McpServer server = Server(std::string(kOpen) + R"(,"appAuth":{"bearer":{}})");
  server.set_upstream_url("ftp://x");
  EXPECT_FALSE(CompileServer(server, "https://gw.example.com").ok());
}

TEST(Routes, KeepsEntriesOfUnchangedServersAndAnswersForBrokenOnes) {
  Routes routes("https://gw.example.com");
  RegistrySnapshot snapshot;
  const auto put = [&](registry::v1::McpServer server) {
    auto shared = std::make_shared<const registry::v1::McpServer>(server);
    snapshot.servers_by_uid[server.uid()] = shared;
    snapshot.servers_by_slug[server.slug()] = shared;
  };
  put(Server(std::string(kOpen) + R"(,"appAuth":{"bearer":{}})"));
  routes.Update(snapshot);
  const auto first = routes.table()->by_slug.at("a");
  const uint64_t generation = routes.generation();
  registry::v1::McpServer broken = Server(R"("appAuth":{"bearer":{}})");
  broken.set_uid("srv_b");
  broken.set_slug("b");
  put(broken);
  routes.Update(snapshot);
  EXPECT_EQ(routes.table()->by_slug.at("a"), first);
  EXPECT_EQ(routes.table()->by_slug.at("b"), nullptr) << "503, not 404";
  EXPECT_GT(routes.generation(), generation);
  registry::v1::McpServer changed = Server(std::string(kOpen) + R"(,"appAuth":{"passthrough":{}})");
  changed.set_version(4);
  put(changed);
  routes.Update(snapshot);
  EXPECT_NE(routes.table()->by_slug.at("a")->serial, first->serial) << "caches start anew";
}

}  // namespace
}  // namespace sallyport::edge
