// SPDX-License-Identifier: Apache-2.0
#include "services/registry/registry_server.h"

#include <thread>

#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>

#include "common/caller/passport.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/rpc/control_stream.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "services/registry/registry_testing.h"
#include "tests/testing/fakes/fake_authn.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Code = absl::StatusCode;

constexpr char kPublicUrl[] = "https://gw.example.com";
constexpr char kServer[] = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"bearer": {"token": {"value": "hunter2"}}}})";

class RegistryServerTest : public ::testing::Test {
 protected:
  RegistryServerTest() {
    config_.mutable_database()->set_sqlite(directory_.File("registry.db"));
    config_.mutable_deployment()->set_public_url(kPublicUrl);
    server_ = Start();
  }
  std::unique_ptr<RegistryServer> Start() {
    auto server = RegistryServer::Start(config_, clock_, {vault_server_.channel(), authn_server_.channel()});
    EXPECT_THAT(server, IsOk());
    return *std::move(server);
  }
  std::unique_ptr<v1::Registry::Stub> As(const std::string& caller) {
    return v1::Registry::NewStub(server_->InProcessChannel(caller));
  }
  std::unique_ptr<audit::v1::Audit::Stub> AuditAs(const std::string& caller) {
    return audit::v1::Audit::NewStub(server_->InProcessChannel(caller));
  }
  std::string PassportWith(const std::vector<std::string>& roles, Passport::Purpose purpose = Passport::Purpose::kApi) {
    Passport passport;
    passport.subject = "local:ada";
    passport.roles = roles;
    passport.client_id = "console";
    passport.purpose = purpose;
    return authn_.Sign(passport);
  }
  absl::Status Create(const std::string& caller, const std::string& passport, v1::McpServer* out = nullptr) {
    v1::CreateMcpServerRequest request;
    *request.mutable_mcp_server() = FromJson<v1::McpServer>(kServer);
    v1::WriteMcpServerResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), passport);
    const absl::Status status = FromGrpcStatus(As(caller)->CreateMcpServer(context.get(), request, &response));
    if (out != nullptr) *out = response.mcp_server();
    return status;
  }
  static audit::v1::AppendRequest OneEvent(const std::string& source) {
    audit::v1::AppendRequest request;
    audit::v1::Event& event = *request.add_events();
    event.set_source(source);
    event.set_boot("b");
    event.set_sequence(1);
    *event.mutable_at() = google::protobuf::util::TimeUtil::SecondsToTimestamp(1'800'000'000);
    return request;
  }
  // What the audit store holds as soon as it holds so many, or after 10 s.
  audit::v1::ListEventsResponse EventsOnceThereAre(int count) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    audit::v1::ListEventsResponse response;
    while (response.events_size() < count && std::chrono::steady_clock::now() < until) {
      const auto context = MakeClientContext(absl::Minutes(1), PassportWith({"auditor"}));
      EXPECT_TRUE(AuditAs("edge")->ListEvents(context.get(), {}, &response).ok());
      std::this_thread::yield();
    }
    return response;
  }
  absl::Status Append(const std::string& caller, const std::string& source) {
    audit::v1::AppendResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));
    return FromGrpcStatus(AuditAs(caller)->Append(context.get(), OneEvent(source), &response));
  }

  FakeClock clock_{absl::Now()};
  sallyport::testing::TempDirectory directory_;
  FakeVault vault_{clock_};
  sallyport::testing::InProcessServer vault_server_{{&vault_.service()}};
  sallyport::testing::FakeAuthn authn_{clock_, kPublicUrl};
  sallyport::testing::InProcessServer authn_server_{{&authn_}};
  config::v1::RegistryConfig config_;
  std::unique_ptr<RegistryServer> server_;
};

TEST_F(RegistryServerTest, WritesNeedAnAdminsPassportFromTheEdge) {
  EXPECT_FALSE(Create("edge", "").ok());
  EXPECT_THAT(Create("edge", PassportWith({})), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Create("edge", PassportWith({"auditor"})), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Create("edge", PassportWith({"credential-admin"})), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Create("edge", PassportWith({"admin"}, Passport::Purpose::kCall)), StatusIs(Code::kPermissionDenied))
      << "a passport for a call is not one for the API";
  for (const char* other : {"authn", "token_broker", "vault", "registry"}) {
    EXPECT_THAT(Create(other, PassportWith({"admin"})), StatusIs(Code::kPermissionDenied)) << other;
  }
  const std::string passport = PassportWith({"admin"});
  clock_.Advance(absl::Minutes(5) + absl::Seconds(1));
  EXPECT_THAT(Create("edge", passport), StatusIs(Code::kUnauthenticated)) << "expired";
  v1::McpServer created;
  ASSERT_THAT(Create("edge", PassportWith({"admin"}), &created), IsOk());
  EXPECT_THAT(created.app_auth().bearer().token().vault_record(), IsEmpty());
}

TEST_F(RegistryServerTest, AConnectorWithoutTokensIsNoneToTrust) {
  v1::CreateMcpServerRequest request;
  *request.mutable_mcp_server() = FromJson<v1::McpServer>(kServer);
  auto& trusted = *request.mutable_mcp_server()->mutable_agent_auth()->mutable_interactive()->add_trusted_connectors();
  trusted.set_connector("users");
  trusted.add_audiences("chatbot");
  v1::WriteMcpServerResponse response;
  const auto context = MakeClientContext(absl::Minutes(1), PassportWith({"admin"}));
  const absl::Status status = FromGrpcStatus(As("edge")->CreateMcpServer(context.get(), request, &response));
  ASSERT_THAT(DetailOf(status).violations, SizeIs(1)) << status;
  EXPECT_EQ(DetailOf(status).violations[0].field, "agentAuth.interactive.trustedConnectors[0].connector");
  EXPECT_EQ(DetailOf(status).violations[0].message,
            "is a local connector, which issues no tokens: name an oidc connector");
}

TEST_F(RegistryServerTest, OnlyServicesThatNeedItWatchAndInvalidate) {
  for (const auto& [caller, allowed] :
       std::map<std::string, bool>{{"edge", true}, {"authn", true}, {"token_broker", true}, {"vault", false}}) {
    const auto context = MakeClientContext(absl::Minutes(1));
    const auto reader = As(caller)->Watch(context.get(), {});
    v1::WatchEvent event;
    EXPECT_EQ(reader->Read(&event), allowed) << caller;
    context->TryCancel();
    reader->Finish();
  }
  for (const auto& [caller, allowed] :
       std::map<std::string, bool>{{"edge", false}, {"authn", true}, {"token_broker", true}, {"vault", false}}) {
    v1::PublishInvalidationsRequest request;
    request.add_invalidations()->set_key("x");
    v1::PublishInvalidationsResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));
    EXPECT_EQ(As(caller)->PublishInvalidations(context.get(), request, &response).ok(), allowed) << caller;
  }
}

TEST_F(RegistryServerTest, OnlyTheBrokerFinishesAnApp) {
  const std::string admin = PassportWith({"admin", "credential-admin"});
  for (const auto& [caller, allowed] : std::map<std::string, bool>{
           {"edge", false}, {"authn", false}, {"vault", false}, {"registry", false}, {"token_broker", true}}) {
    v1::FinishAppRequest request;
    request.set_app_uid("app_nowhere");
    v1::FinishAppResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), caller == "edge" ? admin : "");
    const absl::Status status = FromGrpcStatus(As(caller)->FinishApp(context.get(), request, &response));
    EXPECT_EQ(status.code(), allowed ? Code::kOk : Code::kPermissionDenied) << caller << status;
  }
}

TEST_F(RegistryServerTest, AStoreOfAnEarlierReleaseIsAdoptedWhenItStarts) {
  ASSERT_THAT(Create("edge", PassportWith({"admin", "credential-admin"})), IsOk());
  ASSERT_THAT(vault_.Keys(), SizeIs(1));
  const std::string key = vault_.Keys()[0];
  server_.reset();
  vault_.MakeOld();
  ASSERT_THAT(vault_.Look(key).origins, IsEmpty());
  server_ = Start();
  const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!vault_.adopted() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  ASSERT_TRUE(vault_.adopted());
  const FakeVault::Held held = vault_.Look(key);
  EXPECT_THAT(held.versions, SizeIs(1)) << "the same version, with its origins";
  EXPECT_EQ(held.origins, (std::map<int64_t, std::vector<std::string>>{{held.head, {"https://api.example.com"}}}));
}

TEST_F(RegistryServerTest, NobodyAuditsInAnothersName) {
  EXPECT_THAT(Append("edge", "edge"), IsOk());
  EXPECT_THAT(Append("edge", "edge/eu-1"), IsOk());
  EXPECT_THAT(Append("vault", "vault/0"), IsOk());
  for (const char* forged : {"authn", "authn/0", "edgex", "edgex/0", "", "/edge", "EDGE/0"}) {
    EXPECT_FALSE(Append("edge", forged).ok()) << forged;
  }
  EXPECT_THAT(Append("vault", "edge/0"), StatusIs(Code::kPermissionDenied));
}

TEST_F(RegistryServerTest, ItsOwnWritesReachTheAuditStore) {
  ASSERT_THAT(Create("edge", PassportWith({"admin"})), IsOk());
  const audit::v1::ListEventsResponse response = EventsOnceThereAre(1);
  ASSERT_THAT(response.events(), SizeIs(1));
  EXPECT_EQ(response.events(0).type(), "config.created");
  EXPECT_EQ(response.events(0).subject(), "local:ada");
  EXPECT_EQ(response.events(0).client_id(), "console");
}

TEST_F(RegistryServerTest, NamesAreErasedByAnAdministratorAndTheAuditSaysSo) {
  audit::v1::AppendRequest login = OneEvent("authn");
  *login.mutable_events(0)->mutable_at() = ToTimestamp(clock_.Now() - absl::Minutes(1));
  login.mutable_events(0)->set_type("login");
  login.mutable_events(0)->set_subject("okta:00u1");
  login.mutable_events(0)->set_user_name("Ada Lovelace");
  audit::v1::AppendResponse appended;
  const auto as_authn = MakeClientContext(absl::Seconds(30));
  ASSERT_TRUE(AuditAs("authn")->Append(as_authn.get(), login, &appended).ok());
  ASSERT_EQ(EventsOnceThereAre(1).events(0).user_name(), "Ada Lovelace");

  audit::v1::EraseNamesRequest request;
  request.set_subject("okta:00u1");
  const auto erase = [&](const std::string& caller, const std::string& passport) {
    audit::v1::EraseNamesResponse response;
    const auto context = MakeClientContext(absl::Seconds(30), passport);
    return FromGrpcStatus(AuditAs(caller)->EraseNames(context.get(), request, &response));
  };
  EXPECT_THAT(erase("edge", PassportWith({"auditor"})), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(erase("edge", PassportWith({"credential-admin"})), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(erase("authn", PassportWith({"admin"})), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(EventsOnceThereAre(1).events(0).user_name(), "Ada Lovelace");
  ASSERT_THAT(erase("edge", PassportWith({"admin"})), IsOk());

  const audit::v1::ListEventsResponse events = EventsOnceThereAre(2);
  ASSERT_THAT(events.events(), SizeIs(2));
  EXPECT_EQ(events.events(0).type(), "audit.names_erased");
  EXPECT_EQ(events.events(0).subject(), "local:ada");
  EXPECT_EQ(events.events(0).client_id(), "console");
  EXPECT_EQ(events.events(0).details().at("user"), "okta:00u1");
  EXPECT_EQ(events.events(1).subject(), "okta:00u1");
  EXPECT_EQ(events.events(1).user_name(), "");
}

TEST_F(RegistryServerTest, WritesRefusedForWantOfARoleAreInTheAudit) {
  ASSERT_THAT(Create("edge", PassportWith({"auditor"})), StatusIs(Code::kPermissionDenied));
  v1::ApplyRequest file;
  *file.add_mcp_servers() = FromJson<v1::McpServer>(kServer);
  file.add_apps()->set_slug(std::string(3000, 'x'));
  v1::ApplyResponse applied;
  const auto context = MakeClientContext(absl::Minutes(1), PassportWith({}));
  ASSERT_EQ(As("edge")->Apply(context.get(), file, &applied).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  ASSERT_FALSE(Create("edge", "").ok());
  ASSERT_FALSE(Create("vault", PassportWith({"admin"})).ok());

  const audit::v1::ListEventsResponse response = EventsOnceThereAre(2);
  ASSERT_THAT(response.events(), SizeIs(2)) << "none of a caller who is nobody or another service";
  for (const audit::v1::Event& event : response.events()) {
    EXPECT_EQ(event.type(), "config.denied");
    EXPECT_EQ(event.decision(), audit::v1::DECISION_DENIED);
    EXPECT_EQ(event.rule(), "role_missing");
    EXPECT_EQ(event.subject(), "local:ada");
    EXPECT_EQ(event.client_id(), "console");
    EXPECT_EQ(event.SerializeAsString().find("hunter2"), std::string::npos);
    const bool of_file = event.details().at("kind") == "file";
    EXPECT_EQ(event.server_slug(), of_file ? "" : "a");
    if (!of_file) continue;
    EXPECT_EQ(event.details().at("fields"), "…") << "a slug too long for any list ends it";
  }
}

// The client the other services use, against the real server.
TEST_F(RegistryServerTest, AControlStreamFollowsChangesAndResumesAfterARestart) {
  ControlStream stream(server_->InProcessChannel("edge"), clock_);
  Mutex mu;
  std::condition_variable_any changed;
  std::vector<ControlUpdate> updates;
  stream.AddListener([&](const ControlUpdate& update) {
    MutexLock lock(mu);
    updates.push_back(update);
    changed.notify_all();
  });
  const auto await = [&](const std::function<bool(const ControlUpdate&)>& condition) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    MutexLock lock(mu);
    while (true) {
      for (const auto& update : updates) {
        if (condition(update)) return true;
      }
      if (changed.wait_until(mu, until) == std::cv_status::timeout) return false;
    }
  };
  stream.Start();
  ASSERT_TRUE(await([](const ControlUpdate& update) { return update.full; }));
  ASSERT_THAT(Create("edge", PassportWith({"admin"})), IsOk());
  ASSERT_TRUE(await([](const ControlUpdate& update) { return update.snapshot->ServerBySlug("a") != nullptr; }));
  v1::PublishInvalidationsRequest request;
  request.add_invalidations()->set_key("gone");
  v1::PublishInvalidationsResponse response;
  const auto context = MakeClientContext(absl::Minutes(1));
  ASSERT_TRUE(As("authn")->PublishInvalidations(context.get(), request, &response).ok());
  EXPECT_EQ(response.revision(), 2);
  EXPECT_TRUE(await([](const ControlUpdate& update) {
    return !update.invalidations.empty() && update.invalidations[0].key() == "gone";
  }));
}

TEST_F(RegistryServerTest, RestartsOnItsDatabase) {
  ASSERT_THAT(Create("edge", PassportWith({"admin"})), IsOk());
  server_->Shutdown(absl::ZeroDuration());
  server_ = Start();
  EXPECT_THAT(server_->Ready(), IsOk());
  v1::McpServer server;
  v1::GetMcpServerRequest request;
  request.set_slug("a");
  const auto context = MakeClientContext(absl::Minutes(1), PassportWith({"auditor"}));
  ASSERT_TRUE(As("edge")->GetMcpServer(context.get(), request, &server).ok());
  EXPECT_EQ(server.version(), 1);
}

TEST_F(RegistryServerTest, ShutdownEndsOpenStreams) {
  const auto context = MakeClientContext(absl::Seconds(30));
  const auto reader = As("edge")->Watch(context.get(), {});
  v1::WatchEvent event;
  ASSERT_TRUE(reader->Read(&event));
  std::thread stopping([&] { server_->Shutdown(absl::Seconds(20)); });
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  const auto before = std::chrono::steady_clock::now();
  stopping.join();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(10)) << "the stream did not hold it up";
}

std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> names;
  for (const auto& violation : DetailOf(status).violations) names.push_back(violation.field);
  return names;
}

TEST(RegistryConfig, RefusalsNameTheField) {
  const auto fields = [](const std::string& json) {
    return FieldsOf(ValidateRegistryConfig(FromJson<config::v1::RegistryConfig>(json)));
  };
  EXPECT_THAT(fields("{}"), ::testing::ElementsAre("database", "deployment.publicUrl"));
  EXPECT_THAT(fields(R"({"database": {"sqlite": "x"}, "deployment": {"publicUrl": "https://gw.example.com",
                         "egress": {"oauthNetworks": ["nope"]}}})"),
              ::testing::ElementsAre("deployment.egress.oauthNetworks[0]"));
  EXPECT_THAT(fields(R"({"database": {"sqlite": "x"}, "deployment": {"publicUrl": "https://gw.example.com"},
                         "auditRetention": "10s"})"),
              ::testing::ElementsAre("auditRetention"));
}

TEST(RegistryConfig, AProcessOfItsOwnNeedsAListenerAndPeers) {
  EXPECT_THAT(FieldsOf(ValidateSplitConfig({})),
              ::testing::ElementsAre("database", "deployment.publicUrl", "server.listen", "server.tls.certificate",
                                     "server.tls.privateKey", "server.tls.caBundle", "server.tls.trustDomain",
                                     "peers.vault", "peers.authn"));
}

}  // namespace
}  // namespace sallyport::registry
