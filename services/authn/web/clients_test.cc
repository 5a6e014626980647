// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/clients.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/identity.h"
#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ClientMetadataTest, ReadsWhatTheTypeScriptSdkSends) {
  ASSERT_OK_AND_ASSIGN(
      const ClientMetadata metadata,
      ParseClientMetadata(R"({"client_name":"x","redirect_uris":["http://localhost:3118/callback"],"grant_types":
        ["authorization_code","refresh_token"],"application_type":"native","scope":"mcp:tools"})"));
  EXPECT_EQ(metadata.token_endpoint_auth_method, "none");
  EXPECT_EQ(metadata.application_type, "native");
  EXPECT_TRUE(metadata.may_refresh());
}

TEST(ClientMetadataTest, ReadsWhatEditorsRegister) {
  ASSERT_OK_AND_ASSIGN(
      const ClientMetadata cursor,
      ParseClientMetadata(R"({"redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback"],"application_type":"web",
        "token_endpoint_auth_method":"none","logo_uri":"","client_uri":null})"));
  EXPECT_EQ(cursor.application_type, "native");
  ASSERT_OK_AND_ASSIGN(
      const ClientMetadata code,
      ParseClientMetadata(R"({"redirect_uris":["https://insiders.vscode.dev/redirect","https://vscode.dev/redirect",
        "http://127.0.0.1/","http://127.0.0.1:33418/"],"application_type":"native","grant_types":["authorization_code",
        "refresh_token","urn:ietf:params:oauth:grant-type:device_code"]})"));
  EXPECT_THAT(code.grant_types, ElementsAre("authorization_code", "refresh_token"));
}

struct BadMetadataCase {
  const char* name;
  std::string json;
  const char* error;
};
class BadMetadataTest : public ::testing::TestWithParam<BadMetadataCase> {};

TEST_P(BadMetadataTest, IsRefused) {
  const auto metadata = ParseClientMetadata(GetParam().json);
  EXPECT_EQ(DetailOf(metadata.status()).oauth_error, GetParam().error) << metadata.status();
}

std::string Uris(const std::string& list, const std::string& rest = "") {
  return absl::StrCat("{\"redirect_uris\":", list, rest, "}");
}

INSTANTIATE_TEST_SUITE_P(
    Metadata, BadMetadataTest,
    ::testing::Values(
        BadMetadataCase{"NotJson", "x", "invalid_client_metadata"},
        BadMetadataCase{"NotAnObject", "[]", "invalid_client_metadata"},
        BadMetadataCase{"DuplicateKey", R"({"redirect_uris":["https://a.b/"],"redirect_uris":["https://c.d/"]})",
                        "invalid_client_metadata"},
        BadMetadataCase{"NoRedirectUri", "{}", "invalid_redirect_uri"},
        BadMetadataCase{"EmptyList", Uris("[]"), "invalid_redirect_uri"},
        BadMetadataCase{"NotStrings", Uris("[1]"), "invalid_redirect_uri"},
        BadMetadataCase{
            "ElevenUris",
            Uris(R"(["https://a.b/1","https://a.b/2","https://a.b/3","https://a.b/4","https://a.b/5","https://a.b/6",
                        "https://a.b/7","https://a.b/8","https://a.b/9","https://a.b/10","https://a.b/11"])"),
            "invalid_redirect_uri"},
        BadMetadataCase{"PlainHttp", Uris(R"(["http://a.b/"])"), "invalid_redirect_uri"},
        BadMetadataCase{"Wildcard", Uris(R"(["https://*.a.b/"])"), "invalid_redirect_uri"},
        BadMetadataCase{"OneBadAmongGood", Uris(R"j(["https://a.b/","javascript:alert(1)"])j"), "invalid_redirect_uri"},
        BadMetadataCase{"ScriptLogo", Uris(R"(["https://a.b/"])", R"j(,"logo_uri":"javascript:alert(1)")j"),
                        "invalid_client_metadata"},
        BadMetadataCase{"DataClientUri", Uris(R"(["https://a.b/"])", R"(,"client_uri":"data:x")"),
                        "invalid_client_metadata"},
        BadMetadataCase{"NameNotText", Uris(R"(["https://a.b/"])", R"(,"client_name":5)"), "invalid_client_metadata"},
        BadMetadataCase{"UnknownMethod",
                        Uris(R"(["https://a.b/"])", R"(,"token_endpoint_auth_method":"private_key_jwt")"),
                        "invalid_client_metadata"},
        BadMetadataCase{"ImplicitOnly", Uris(R"(["https://a.b/"])", R"(,"grant_types":["implicit"])"),
                        "invalid_client_metadata"},
        BadMetadataCase{"TokenResponseType", Uris(R"(["https://a.b/"])", R"(,"response_types":["token"])"),
                        "invalid_client_metadata"}),
    [](const auto& test) { return test.param.name; });

class ClientsTest : public EnginesTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnginesTest::SetUp());
    clients_ = std::make_unique<Clients>(*database_, std::vector<Client>(), 5);
  }
  static ClientMetadata Metadata(const std::string& path, const std::string& method = "none") {
    ClientMetadata metadata;
    metadata.redirect_uris = {"https://c.example/" + path};
    metadata.grant_types = {"authorization_code"};
    metadata.token_endpoint_auth_method = method;
    return metadata;
  }
  static Form Body(const FormFields& fields) { return *Form::Parse(FormEncode(fields)); }
  static std::string Basic(const std::string& pair) { return "Basic " + Base64Encode(pair); }

  std::unique_ptr<Clients> clients_;
};

INSTANTIATE_ENGINES(ClientsTest);

TEST_P(ClientsTest, EqualMetadataIsTheSameClientAgain) {
  ASSERT_OK_AND_ASSIGN(const auto one, clients_->Register(Metadata("a"), clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const auto two, clients_->Register(Metadata("a"), clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const auto other, clients_->Register(Metadata("b"), clock_.Now()));
  EXPECT_EQ(one.client.id, two.client.id);
  EXPECT_TRUE(two.existed);
  EXPECT_NE(one.client.id, other.client.id);
  EXPECT_THAT(one.client.id, Not(::testing::StartsWith("https://")));
}

TEST_P(ClientsTest, ClientsWithSecretsAreNeverShared) {
  ASSERT_OK_AND_ASSIGN(const auto one, clients_->Register(Metadata("a", "client_secret_basic"), clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const auto two, clients_->Register(Metadata("a", "client_secret_basic"), clock_.Now()));
  EXPECT_NE(one.client.id, two.client.id);
  EXPECT_FALSE(one.secret == two.secret);
}

TEST_P(ClientsTest, SurvivesARestart) {
  ASSERT_OK_AND_ASSIGN(const auto registered, clients_->Register(Metadata("a"), clock_.Now()));
  Clients again(*database_);
  ASSERT_OK_AND_ASSIGN(const Client found, again.Find(registered.client.id));
  EXPECT_THAT(found.metadata.redirect_uris, ElementsAre("https://c.example/a"));
}

TEST_P(ClientsTest, FullTableDropsClientsNeverUsedFirst) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto registered, clients_->Register(Metadata(absl::StrCat("x", i)), clock_.Now()));
    ids.push_back(registered.client.id);
    clock_.Advance(absl::Seconds(1));
  }
  // The oldest is in use; the flood must not push it out.
  EXPECT_THAT(clients_->Touch(*clients_->Find(ids[0]), clock_.Now()), IsOk());
  for (int i = 0; i < 20; ++i) {
    clock_.Advance(absl::Seconds(1));
    EXPECT_THAT(clients_->Register(Metadata(absl::StrCat("flood", i)), clock_.Now()), IsOk());
  }
  EXPECT_THAT(clients_->Find(ids[0]), IsOk());
  EXPECT_THAT(clients_->Find(ids[1]), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(ClientsTest, ConfiguredClientsAreInNoTable) {
  Client chatbot;
  chatbot.id = "chatbot";
  chatbot.configured = true;
  chatbot.secret_hash = ClientSecretHash("0123456789abcdef0123456789abcdef");
  Clients clients(*database_, {chatbot}, 1);
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(clients.Register(Metadata(std::to_string(i)), clock_.Now()), IsOk());
  }
  ASSERT_OK_AND_ASSIGN(const Client found, clients.Find("chatbot"));
  EXPECT_TRUE(found.configured);
  EXPECT_THAT(clients.Touch(found, clock_.Now()), IsOk());
  const auto authenticate = [&](const std::string& secret) {
    return clients.Authenticate("", *Form::Parse(FormEncode({{"client_id", "chatbot"}, {"client_secret", secret}})));
  };
  EXPECT_THAT(authenticate("0123456789abcdef0123456789abcdef"), IsOk());
  EXPECT_THAT(authenticate("0123456789abcdef0123456789abcdeF"), Not(IsOk()));
  EXPECT_THAT(authenticate(""), Not(IsOk()));
  EXPECT_THAT(clients_->Find("chatbot"), Not(IsOk())) << "taken out of the configuration, it is gone";
}

TEST_P(ClientsTest, SecretAuthenticatesByBasicInBothReadingsAndByPost) {
  ASSERT_OK_AND_ASSIGN(const auto registered, clients_->Register(Metadata("a", "client_secret_basic"), clock_.Now()));
  const std::string& id = registered.client.id;
  const std::string secret(registered.secret.Expose());
  EXPECT_THAT(clients_->Authenticate(Basic(id + ":" + secret), Body({})), IsOk());
  EXPECT_THAT(clients_->Authenticate(Basic(id + ":" + secret), Body({{"client_id", id}})), IsOk());
  std::string encoded = secret;
  encoded.replace(0, 1, "%" + std::string("73"));  // 's'
  EXPECT_THAT(clients_->Authenticate(Basic(id + ":" + encoded), Body({})), IsOk());
  EXPECT_THAT(clients_->Authenticate("", Body({{"client_id", id}, {"client_secret", secret}})), IsOk());
}

TEST_P(ClientsTest, UnknownClientAndWrongSecretAreToldTheSame) {
  ASSERT_OK_AND_ASSIGN(const auto registered, clients_->Register(Metadata("a", "client_secret_post"), clock_.Now()));
  const std::string& id = registered.client.id;
  const std::string secret(registered.secret.Expose());
  const auto unknown = clients_->Authenticate("", Body({{"client_id", "clt_nobody"}, {"client_secret", secret}}));
  EXPECT_EQ(DetailOf(unknown.status()).oauth_error, "invalid_client");
  for (const auto& refused :
       {clients_->Authenticate("", Body({{"client_id", id}, {"client_secret", secret + "x"}})),
        clients_->Authenticate("", Body({{"client_id", id}})), clients_->Authenticate("", Body({})),
        clients_->Authenticate(Basic(id + ":"), Body({})), clients_->Authenticate(Basic(id), Body({})),
        clients_->Authenticate("Basic !!!", Body({})),
        clients_->Authenticate("Bearer " + secret, Body({{"client_id", id}})),
        clients_->Authenticate(Basic(id + ":" + secret), Body({{"client_id", "clt_other"}}))}) {
    EXPECT_EQ(refused.status(), unknown.status());
  }
}

TEST_P(ClientsTest, TwoMethodsAtOnceAreRefused) {
  ASSERT_OK_AND_ASSIGN(const auto registered, clients_->Register(Metadata("a", "client_secret_post"), clock_.Now()));
  const std::string secret(registered.secret.Expose());
  const auto refused = clients_->Authenticate(Basic(registered.client.id + ":" + secret),
                                              Body({{"client_id", registered.client.id}, {"client_secret", secret}}));
  EXPECT_EQ(DetailOf(refused.status()).oauth_error, "invalid_request");
}

TEST_P(ClientsTest, PublicClientWithASecretIsRefused) {
  ASSERT_OK_AND_ASSIGN(const auto registered, clients_->Register(Metadata("a"), clock_.Now()));
  EXPECT_THAT(clients_->Authenticate("", Body({{"client_id", registered.client.id}})), IsOk());
  EXPECT_THAT(clients_->Authenticate("", Body({{"client_id", registered.client.id}, {"client_secret", "x"}})),
              Not(IsOk()));
}

TEST_P(ClientsTest, CommandLineIsBuiltInAndOnlyReturnsToThisComputer) {
  ASSERT_OK_AND_ASSIGN(const Client cli, clients_->Find(kCliClientId));
  EXPECT_TRUE(cli.AllowsRedirect("http://127.0.0.1:49152/callback"));
  EXPECT_TRUE(cli.AllowsRedirect("http://localhost:1/x"));
  EXPECT_FALSE(cli.AllowsRedirect("https://evil.example/callback"));
  EXPECT_FALSE(cli.AllowsRedirect("http://127.0.0.1:1/x#f"));
}

TEST_P(ClientsTest, ConsentIsForOneUserClientHostAndServer) {
  Consents consents(*database_);
  const ConsentKey key{"local:ann", "clt_a", "c.example", "srv_x"};
  EXPECT_THAT(consents.Give(key, clock_.Now()), IsOk());
  EXPECT_THAT(consents.Give(key, clock_.Now()), IsOk());
  EXPECT_TRUE(*consents.Has(key));
  for (const ConsentKey& other :
       {ConsentKey{"local:bob", "clt_a", "c.example", "srv_x"}, ConsentKey{"local:ann", "clt_b", "c.example", "srv_x"},
        ConsentKey{"local:ann", "clt_a", "d.example", "srv_x"},
        ConsentKey{"local:ann", "clt_a", "c.example", "srv_y"}}) {
    EXPECT_FALSE(*consents.Has(other));
  }
}

}  // namespace
}  // namespace sallyport::authn::web
