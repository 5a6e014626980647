// SPDX-License-Identifier: Apache-2.0
// Where credentials go is sealed with them: whoever writes the configuration's database, or is the registry, can name
// another place, and gets nothing there.
#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <gtest/gtest.h>

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/mutex.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

constexpr char kEvil[] = "https://evil.example";

class OriginsTest : public testing::BrokerTestBase {
 protected:
  OriginsTest() : BrokerTestBase(clock_for_all_) { peers_.vault.SetAdopted(true); }

  registry::v1::McpServer* BearerServer(const std::string& url, const std::vector<std::string>& sealed_for) {
    registry::v1::McpServer* server = AddServer("srv_b", "bearer");
    server->set_upstream_url(url);
    server->mutable_agent_auth()->mutable_passthrough();
    PutSecret("server_secret", "srv_b/app_auth.bearer.token", "canary", sealed_for);
    common::v1::Secret* token = server->mutable_app_auth()->mutable_bearer()->mutable_token();
    token->set_set(true);
    token->set_version(1);
    token->set_vault_record("srv_b/app_auth.bearer.token");
    return server;
  }
  static v1::ResolveCredentialsRequest At(const std::string& uid, const std::string& origin) {
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(uid);
    request.set_server_version(1);
    request.set_upstream_origin(origin);
    return request;
  }
  // As a server that forwards the tokens of its users' sign-ins.
  void ForwardSignIns() {
    registry::v1::McpServer* server = AddServer("srv_f", "forwarding");
    server->mutable_agent_auth()->mutable_interactive();
    server->mutable_app_auth()->mutable_passthrough();
    auto* header = server->add_outbound_headers();
    header->set_name("X-Idp-Token");
    header->mutable_forward_caller_token();
    PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  }
  std::string Ada(const std::string& server) { return peers_.authn.Sign(CallPassport("corp:ada", server)); }

  FakeClock clock_for_all_{absl::Now()};
};

TEST_F(OriginsTest, AServerThatWasPointedElsewhereGetsNoKey) {
  BearerServer(absl::StrCat(kEvil, "/mcp"), {kOrigin});
  const auto refused = Resolve(StartBroker(), At("srv_b", kEvil), "");
  EXPECT_THAT(refused, StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(ReasonOf(refused.status()), "origin_not_allowed");
  EXPECT_TRUE(peers_.audit.Await("credential.refused", "origin_not_allowed"));
}

TEST_F(OriginsTest, ReadOnceAtTheRightPlaceItStillGoesNowhereElse) {
  registry::v1::McpServer* server = BearerServer(absl::StrCat(kOrigin, "/mcp"), {kOrigin});
  TokenBrokerServer& broker = StartBroker();
  ASSERT_THAT(Resolve(broker, At("srv_b", kOrigin), ""), IsOk());
  peers_.registry.Change([&](registry::v1::WatchEvent::Snapshot&) {
    server->set_upstream_url(absl::StrCat(kEvil, "/mcp"));
    server->set_version(2);
  });
  v1::ResolveCredentialsRequest request = At("srv_b", kEvil);
  request.set_server_version(2);
  EXPECT_THAT(Resolve(broker, request, ""), StatusIs(Code::kPermissionDenied));
}

// A server whose address is a secret, with a key beside it.
class SecretAddressTest : public OriginsTest {
 protected:
  registry::v1::McpServer* HookServer(const std::string& url, const std::vector<std::string>& sealed_for) {
    registry::v1::McpServer* server = BearerServer("", {kOrigin});
    PutSecret("server_secret", "srv_b/secret_upstream_url", url, sealed_for);
    common::v1::Secret* secret = server->mutable_secret_upstream_url();
    secret->set_set(true);
    secret->set_version(1);
    secret->set_vault_record("srv_b/secret_upstream_url");
    server->set_upstream_origin(kOrigin);
    return server;
  }
};

TEST_F(SecretAddressTest, GoesToTheEdgeWithTheCertificateAndEverythingElse) {
  registry::v1::McpServer* server = HookServer(absl::StrCat(kOrigin, "/canary?a=1"), {kOrigin});
  PutSecret("server_secret", "srv_b/policy.tls.client_cert", "line\nline\n", {kOrigin});
  common::v1::Secret* certificate = server->mutable_policy()->mutable_tls()->mutable_client_cert();
  certificate->set_set(true);
  certificate->set_version(1);
  certificate->set_vault_record("srv_b/policy.tls.client_cert");
  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(StartBroker(), At("srv_b", kOrigin), ""));
  ASSERT_EQ(response.pieces_size(), 3);
  EXPECT_EQ(response.pieces(0).value(), "Bearer canary");
  EXPECT_EQ(response.pieces(1).piece(), "upstream_url");
  EXPECT_EQ(response.pieces(1).location(), v1::ResolveCredentialsResponse::URL);
  EXPECT_EQ(response.pieces(1).value(), absl::StrCat(kOrigin, "/canary?a=1"));
  EXPECT_EQ(response.pieces(1).scope(), v1::ORG);
  EXPECT_EQ(response.pieces(2).piece(), "tls");
  EXPECT_EQ(response.pieces(2).location(), v1::ResolveCredentialsResponse::CLIENT_CERTIFICATE);
  EXPECT_EQ(response.pieces(2).value(), "line\nline\n");
}

TEST_F(SecretAddressTest, WithoutTheAddressNothingIsGivenOut) {
  HookServer(absl::StrCat(kOrigin, "/canary"), {kOrigin})->clear_secret_upstream_url();
  EXPECT_THAT(Resolve(StartBroker(), At("srv_b", kOrigin), ""), StatusIs(Code::kPermissionDenied));
}

TEST_F(SecretAddressTest, OneThatIsNotStoredIsMissing) {
  HookServer(absl::StrCat(kOrigin, "/canary"), {kOrigin})->mutable_secret_upstream_url()->Clear();
  const auto refused = Resolve(StartBroker(), At("srv_b", kOrigin), "");
  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused.status()), "credential_missing");
}

TEST_F(SecretAddressTest, WhoeverEditsTheOriginGetsNothing) {
  HookServer(absl::StrCat(kOrigin, "/canary"), {kOrigin})->set_upstream_origin(kEvil);
  TokenBrokerServer& broker = StartBroker();
  EXPECT_THAT(Resolve(broker, At("srv_b", kEvil), ""), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Resolve(broker, At("srv_b", kOrigin), ""), StatusIs(Code::kPermissionDenied)) << "nor does the true one";
}

TEST_F(SecretAddressTest, OneOfAnotherOriginThanItWasSealedForIsNoPlaceForTheOthers) {
  HookServer(absl::StrCat(kEvil, "/canary"), {kOrigin});
  const auto refused = Resolve(StartBroker(), At("srv_b", kOrigin), "");
  EXPECT_THAT(refused, StatusIs(Code::kPermissionDenied));
  EXPECT_FALSE(absl::StrContains(std::string(refused.status().message()), "canary"));
}

TEST_F(SecretAddressTest, AnotherSecretIsNoAddress) {
  HookServer("canary", {kOrigin});
  EXPECT_THAT(Resolve(StartBroker(), At("srv_b", kOrigin), ""), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, ASecretThatNamesNoPlaceGoesNowhere) {
  BearerServer(absl::StrCat(kOrigin, "/mcp"), {});
  EXPECT_THAT(Resolve(StartBroker(), At("srv_b", kOrigin), ""), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, OfAnEarlierReleaseItGoesWhereTheConfigurationSaysUntilItIsAdopted) {
  BearerServer(absl::StrCat(kOrigin, "/mcp"), {});
  peers_.vault.Unbind(OrganizationRecord("server_secret", "srv_b/app_auth.bearer.token"));
  peers_.vault.SetAdopted(false);
  TokenBrokerServer& broker = StartBroker();
  EXPECT_THAT(Resolve(broker, At("srv_b", kOrigin), ""), IsOk());
  peers_.vault.SetAdopted(true);  // Without this one: nobody told where it may go.
  EXPECT_THAT(Resolve(broker, At("srv_b", kOrigin), ""), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, AnOriginThatOnlyTheConfigurationAllowsGetsNoUsersToken) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  app_->add_allowed_upstream_origins(kEvil);
  registry::v1::McpServer* server = AddServer("srv_e", "evil");
  server->set_upstream_url(absl::StrCat(kEvil, "/mcp"));
  server->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
  server->mutable_agent_auth()->mutable_interactive();
  TokenBrokerServer& broker = StartBroker();
  const auto refused = Resolve(broker, At("srv_e", kEvil), Ada("srv_e"));
  EXPECT_THAT(refused, StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(ReasonOf(refused.status()), "origin_not_allowed");
  EXPECT_THAT(Resolve(broker, At(kServer, kOrigin), Ada(kServer)), IsOk());
}

TEST_F(OriginsTest, TheConfigurationNarrows) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  app_->clear_allowed_upstream_origins();
  app_->add_allowed_upstream_origins("https://other.example");
  EXPECT_THAT(Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer)), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, ABindingThatWasMadeAnewDoesNotSpeakForFormerLinks) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  // Deleted and made again, by somebody who may not change it.
  PutSecret("app_binding", absl::StrCat(kApp, "/binding"), "another-name", {kOrigin, kEvil});
  app_->mutable_binding()->set_version(2);
  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer)));
  EXPECT_EQ(response.pieces_size(), 0);
  EXPECT_EQ(response.link().reason(), v1::LinkRequired::NEEDS_REAUTH);
}

TEST_F(OriginsTest, WithoutABindingNothingGoesOut) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  vault::v1::DeleteRequest erase;
  *erase.mutable_record() = OrganizationRecord("app_binding", absl::StrCat(kApp, "/binding"));
  ASSERT_THAT(peers_.vault.Delete(testing::FakeVaultClient::Registry(), erase), IsOk());
  const auto refused = Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer));
  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused.status()), "credential_missing");
}

TEST_F(OriginsTest, AConnectionOfAnEarlierReleaseIsSealedAnewAtItsFirstUse) {
  Provider provider;
  provider.token_url = app_->token_url();
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1), "rt0", {{kBoundTo, BoundTo(provider)}});
  TokenBrokerServer& broker = StartBroker();
  const int writes = peers_.vault.writes();
  ASSERT_OK_AND_ASSIGN(const auto first, Resolve(broker, At(kServer, kOrigin), Ada(kServer)));
  ASSERT_EQ(first.pieces_size(), 1);
  const auto record = ConnectionRecord("corp:ada", kApp);
  ASSERT_TRUE(peers_.vault.AwaitWrites(writes + 1));
  v1::TokenSet tokens;
  ASSERT_TRUE(tokens.ParseFromString(peers_.vault.Head(record)));
  EXPECT_EQ(tokens.provenance().binding(), kBinding);
  EXPECT_EQ(tokens.provenance().token_origin(), Url::Parse(app_->token_url())->origin());
  EXPECT_EQ(tokens.refresh_token(), "rt0");
  EXPECT_EQ(peers_.vault.MetadataOf(record).generation(), 1) << "the same link";
}

TEST_F(OriginsTest, SignInTokensGoWhereTheServersBindingSays) {
  ForwardSignIns();
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(ReasonOf(Resolve(broker, At("srv_f", kOrigin), Ada("srv_f")).status()), "credential_missing");
  PutSecret("server_binding", "srv_f/binding", "name", {kEvil});
  EXPECT_EQ(ReasonOf(Resolve(broker, At("srv_f", kOrigin), Ada("srv_f")).status()), "origin_not_allowed");
  PutSecret("server_binding", "srv_f/binding", "name", {kOrigin});
  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(broker, At("srv_f", kOrigin), Ada("srv_f")));
  EXPECT_EQ(response.pieces_size(), 1);
}

TEST_F(OriginsTest, AClientSecretGoesToTheProviderItWasEnteredFor) {
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));  // Has ended: it must be renewed.
  PutSecret("app_secret", "app_gh/client_secret", "canary", {"https://provider.example"});
  common::v1::Secret* secret = app_->mutable_client_secret();
  secret->set_set(true);
  secret->set_version(1);
  secret->set_vault_record("app_gh/client_secret");
  std::atomic<int> asked{0};
  provider_.SetHandler([&](const testing::HttpProvider::Request&) -> testing::HttpProvider::Response {
    ++asked;
    return {200, R"({"access_token":"at1","expires_in":3600})"};
  });
  EXPECT_FALSE(Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer)).ok());
  EXPECT_EQ(asked, 0);
}

// Calls `use` for every field that is set, whatever message it is in.
void ForEachField(
    google::protobuf::Message& message,
    const std::function<void(google::protobuf::Message&, const google::protobuf::FieldDescriptor&, int)>& use) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      // A server of another uid or version is one the caller does not ask for, and the broker waits until it hears of
      // it.
      const bool names_server = message.GetDescriptor() == registry::v1::McpServer::descriptor() &&
                                (field->name() == "uid" || field->name() == "version");
      if (names_server) continue;
      if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
        use(message, *field, i);
      } else if (field->is_repeated()) {
        ForEachField(*reflection.MutableRepeatedMessage(&message, field, i), use);
      } else {
        ForEachField(*reflection.MutableMessage(&message, field), use);
      }
    }
  }
}

// A registry that says whatever it likes: each field of a configuration with every kind of credential is set to a place
// of the thief's, or to the name of another thing.
class AnyConfigurationTest : public OriginsTest {
 protected:
  using Snapshot = registry::v1::WatchEvent::Snapshot;

  AnyConfigurationTest()
      : thief_([this](const testing::HttpProvider::Request& request) -> testing::HttpProvider::Response {
          MutexLock lock(mu_);
          absl::StrAppend(&stolen_, request.path, " ", request.authorization);
          for (const auto& [name, value] : request.form) absl::StrAppend(&stolen_, " ", name, "=", value);
          return {200, R"({"access_token":"thief","expires_in":3600})"};
        }) {}
  void Configure() {
    BearerServer(absl::StrCat(kOrigin, "/mcp"), {kOrigin});
    ForwardSignIns();
    PutSecret("server_binding", "srv_f/binding", "name", {kOrigin});
    PutSecret("app_secret", "app_gh/client_secret", "canary", {Url::Parse(provider_.Url("/"))->origin()});
    common::v1::Secret* secret = app_->mutable_client_secret();
    secret->set_set(true);
    secret->set_version(1);
    secret->set_vault_record("app_gh/client_secret");
    provider_.SetHandler([](const testing::HttpProvider::Request&) -> testing::HttpProvider::Response {
      return {200, R"({"access_token":"at0-of-renewed","refresh_token":"refresh-canary","expires_in":3600})"};
    });
    peers_.registry.Change([this](Snapshot& snapshot) { configured_ = snapshot; });
  }
  // Texts to put in a field's place.
  std::vector<std::string> OthersFor(const std::string& text) {
    if (absl::StrContains(text, "://")) return {thief_.Url("/mcp"), thief_.Url(""), ""};
    std::vector<std::string> others = {"", thief_.Url("")};
    for (const char* name : {"srv_gh", "srv_b", "srv_f", "app_gh", "srv_b/app_auth.bearer.token",
                             "app_gh/client_secret", "app_gh/binding", "srv_f/binding", "github"}) {
      if (text != name) others.emplace_back(name);
    }
    return others;
  }
  void Apply(TokenBrokerServer& broker, const Snapshot& edited) {
    const std::string marker = MakeUid("srv_");
    peers_.registry.Change([&](Snapshot& snapshot) {
      snapshot = edited;
      registry::v1::McpServer* server = snapshot.add_mcp_servers();  // Shows that it has arrived.
      server->set_uid(marker);
      server->set_slug(marker.substr(4));
      server->set_version(1);
      server->set_upstream_url(absl::StrCat(kOrigin, "/mcp"));
      server->mutable_app_auth()->mutable_passthrough();
    });
    const auto until = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!Resolve(broker, At(marker, kOrigin), "").ok() && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
  }
  // As a caller who has not called before, with a token that has ended and must be renewed.
  void Call(TokenBrokerServer& broker, const std::string& what) {
    const std::string subject = absl::StrCat("corp:u", ++callers_);
    PutConnection(subject, kApp, absl::Hours(2), absl::Hours(1), "refresh-canary");
    PutConnection(subject, "sso:corp", absl::Minutes(1), absl::Hours(1), "refresh-canary");
    const std::string evil = Url::Parse(thief_.Url("/"))->origin();
    for (const std::string server : {"srv_gh", "srv_b", "srv_f"}) {
      for (const std::string& origin : {evil, std::string(kOrigin)}) {
        const auto response = Resolve(broker, At(server, origin), peers_.authn.Sign(CallPassport(subject, server)));
        if (!response.ok() || origin != evil) continue;
        for (const auto& piece : response->pieces()) {
          EXPECT_FALSE(absl::StrContains(piece.value(), "canary") || absl::StrContains(piece.value(), "at0-of-"))
              << what << ": " << server << " gets " << piece.value();
        }
      }
    }
    MutexLock lock(mu_);
    EXPECT_FALSE(absl::StrContains(stolen_, "canary")) << what << ": " << stolen_;
  }

  Mutex mu_;
  std::string stolen_ ABSL_GUARDED_BY(mu_);
  testing::HttpProvider thief_;
  Snapshot configured_;
  int callers_ = 0;
};

TEST_F(AnyConfigurationTest, SendsNothingThatIsKeptToAnotherPlace) {
  Configure();
  TokenBrokerServer& broker = StartBroker();
  Call(broker, "unedited");
  int fields = 0;
  ForEachField(configured_, [&](auto&, const auto&, int) { ++fields; });
  EXPECT_GE(fields, 24);
  int edits = 0;
  for (int chosen = 0; chosen < fields && !HasFailure(); ++chosen) {
    // How many values the field can take is known when it is found.
    for (size_t value = 0, values = 1; value < values && !HasFailure(); ++value) {
      Snapshot edited = configured_;
      std::string what;
      int at = 0;
      ForEachField(
          edited, [&](google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field, int i) {
            if (at++ != chosen) return;
            const google::protobuf::Reflection& reflection = *message.GetReflection();
            what = absl::StrCat(field.full_name(), " edited");
            if (field.cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_STRING) {
              std::string scratch;
              const std::string text = field.is_repeated()
                                           ? reflection.GetRepeatedStringReference(message, &field, i, &scratch)
                                           : reflection.GetStringReference(message, &field, &scratch);
              const std::vector<std::string> others = OthersFor(text);
              values = others.size();
              if (field.is_repeated()) {
                reflection.SetRepeatedString(&message, &field, i, others[value]);
              } else {
                reflection.SetString(&message, &field, others[value]);
              }
              absl::StrAppend(&what, " to \"", others[value], "\"");
            } else if (!field.is_repeated()) {
              reflection.ClearField(&message, &field);
            }
          });
      Apply(broker, edited);
      Call(broker, what);
      ++edits;
    }
  }
  EXPECT_GE(edits, 100);
}

}  // namespace
}  // namespace sallyport::token_broker
