// SPDX-License-Identifier: Apache-2.0
#include "common/config/yaml_config.h"

#include <cstdlib>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/error.h"
#include "sallyport/config/v1/services.pb.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

absl::Status LoadAuthn(const std::string& text, config::v1::AuthnConfig* config = nullptr) {
  config::v1::AuthnConfig local;
  return LoadYaml(text, "authn.yaml", config == nullptr ? &local : config);
}
absl::Status LoadApply(const std::string& text, const YamlOptions& options = {},
                       registry::v1::ApplyRequest* request = nullptr) {
  registry::v1::ApplyRequest local;
  return LoadYaml(text, "apply.yaml", request == nullptr ? &local : request, options);
}

TEST(YamlConfigTest, FillsNestedListsMapsEnumsDurationsAndOneofs) {
  config::v1::AuthnConfig config;
  ASSERT_THAT(LoadAuthn(R"(# comment
server:
  listen: 127.0.0.1:7001
  maxThreads: 8
deployment: {publicUrl: "https://gw.example.com"}
accessTokenLifetime: 1h30m
sessionLifetime: 250ms
connectors:
  - id: corp
    oidc:
      issuer: https://idp.example.com
      scopes: [openid, email]
      accept: [JWT_ACCESS, ID_TOKEN]
      authorizationParams:
        prompt: login
        "max_age": "3600"
  - id: dev
    local:
      users: [{username: ada, groups: ["1", two]}]
)",
                        &config),
              IsOk());

  EXPECT_EQ(config.server().listen(), "127.0.0.1:7001");
  EXPECT_EQ(config.server().max_threads(), 8);
  EXPECT_EQ(config.deployment().public_url(), "https://gw.example.com");
  EXPECT_EQ(config.access_token_lifetime().seconds(), 5400);
  EXPECT_EQ(config.session_lifetime().nanos(), 250'000'000);
  ASSERT_EQ(config.connectors_size(), 2);
  EXPECT_EQ(config.connectors(0).oidc().scopes(1), "email");
  EXPECT_EQ(config.connectors(0).oidc().accept(1), config::v1::OidcConnector::ID_TOKEN);
  EXPECT_EQ(config.connectors(0).oidc().authorization_params().at("max_age"), "3600");
  EXPECT_EQ(config.connectors(1).local().users(0).groups(0), "1");
}

TEST(YamlConfigTest, OptionalBooleansTimestampsAndBytes) {
  registry::v1::McpServer server;
  ASSERT_THAT(LoadYaml("enabled: false\ncreatedAt: 2026-01-02T03:04:05Z\n", "s.yaml", &server), IsOk());
  EXPECT_TRUE(server.has_enabled());
  EXPECT_FALSE(server.enabled());
  EXPECT_EQ(server.created_at().seconds(), 1767323045);
  vault::v1::PutRequest put;
  ASSERT_THAT(LoadYaml("payload: aGk=\nexpectedVersion: 9007199254740993\n", "p.yaml", &put), IsOk());
  EXPECT_EQ(put.payload(), "hi");
  EXPECT_EQ(put.expected_version(), 9007199254740993);
}

TEST(YamlConfigTest, NothingIsAnEmptyMessage) {
  EXPECT_THAT(LoadAuthn(""), IsOk());
  EXPECT_THAT(LoadAuthn("# only a comment\n"), IsOk());
  EXPECT_THAT(LoadAuthn("server:\n"), IsOk());
}

TEST(YamlConfigTest, AnUnknownFieldIsNamedWithItsLine) {
  EXPECT_THAT(LoadAuthn("server:\n  listen: x\n  lisen: y\n"),
              StatusIs(Code::kInvalidArgument, "authn.yaml:3: field server.lisen: unknown field"));
}

TEST(YamlConfigTest, ProtoSpellingIsUnknown) {
  EXPECT_THAT(LoadAuthn("data_directory: /x\n"),
              StatusIs(Code::kInvalidArgument, "authn.yaml:1: field data_directory"));
}

TEST(YamlConfigTest, ARepeatedKeyIsRefused) {
  EXPECT_THAT(LoadAuthn("dataDirectory: /a\ndataDirectory: /b\n"),
              StatusIs(Code::kInvalidArgument, "authn.yaml:2: field dataDirectory: is given twice"));
}

TEST(YamlConfigTest, ARepeatedMapKeyIsRefused) {
  EXPECT_THAT(LoadAuthn("connectors: [{id: a, oidc: {authorizationParams: {x: '1', x: '2'}}}]\n"),
              StatusIs(Code::kInvalidArgument, "connectors[0].oidc.authorizationParams.x: is given twice"));
}

TEST(YamlConfigTest, TwoMembersOfAOneofAreRefused) {
  EXPECT_THAT(LoadAuthn("connectors:\n- id: a\n  oidc: {}\n  local: {}\n"),
              StatusIs(Code::kInvalidArgument, "authn.yaml:4: field connectors[0].local: only one of oidc and local"));
}

TEST(YamlConfigTest, WrongTypesAreRefused) {
  EXPECT_THAT(LoadAuthn("server: [1]\n"), StatusIs(Code::kInvalidArgument, "field server: must be a mapping"));
  EXPECT_THAT(LoadAuthn("server: {maxThreads: many}\n"),
              StatusIs(Code::kInvalidArgument, "server.maxThreads: must be a whole"));
  EXPECT_THAT(LoadAuthn("server: {maxThreads: \"8\"}\n"), StatusIs(Code::kInvalidArgument, "must be a whole number"));
  EXPECT_THAT(LoadAuthn("server: {maxThreads: 3000000000}\n"), StatusIs(Code::kInvalidArgument, "32 bits"));
  EXPECT_THAT(LoadAuthn("server: {listen: [a]}\n"), StatusIs(Code::kInvalidArgument, "server.listen: must be text"));
  EXPECT_THAT(LoadAuthn("connectors: {id: a}\n"), StatusIs(Code::kInvalidArgument, "connectors: must be a list"));
  EXPECT_THAT(LoadAuthn("- a\n"), StatusIs(Code::kInvalidArgument, "authn.yaml:1: must be a mapping"));
}

TEST(YamlConfigTest, OnlyTrueAndFalseAreBooleans) {
  EXPECT_THAT(LoadApply("dryRun: yes\n"), StatusIs(Code::kInvalidArgument, "must be true or false"));
  EXPECT_THAT(LoadApply("dryRun: \"true\"\n"), StatusIs(Code::kInvalidArgument, "must be true or false"));
  EXPECT_THAT(LoadApply("dryRun: true\n"), IsOk());
}

TEST(YamlConfigTest, BadEnumsListWhatIsKnown) {
  EXPECT_THAT(LoadAuthn("connectors: [{id: a, oidc: {accept: [BOTH]}}]\n"),
              StatusIs(Code::kInvalidArgument, "oidc.accept[0]: must be one of JWT_ACCESS, ID_TOKEN"));
  EXPECT_THAT(LoadAuthn("connectors: [{id: a, oidc: {accept: [ACCEPT_UNSPECIFIED]}}]\n"),
              StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(LoadAuthn("connectors: [{id: a, oidc: {accept: [1]}}]\n"), StatusIs(Code::kInvalidArgument));
}

TEST(YamlConfigTest, BadDurationsAndTimesAreRefused) {
  EXPECT_THAT(LoadAuthn("sessionLifetime: 12\n"), StatusIs(Code::kInvalidArgument, "must be a duration"));
  EXPECT_THAT(LoadAuthn("sessionLifetime: inf\n"), StatusIs(Code::kInvalidArgument, "must be a duration"));
  EXPECT_THAT(LoadAuthn("sessionLifetime: {seconds: 5}\n"), StatusIs(Code::kInvalidArgument, "must be a duration"));
  registry::v1::McpServer server;
  EXPECT_THAT(LoadYaml("createdAt: yesterday\n", "s.yaml", &server),
              StatusIs(Code::kInvalidArgument, "must be a time"));
  vault::v1::PutRequest put;
  EXPECT_THAT(LoadYaml("payload: '!'\n", "p.yaml", &put), StatusIs(Code::kInvalidArgument, "must be base64"));
}

TEST(YamlConfigTest, BrokenYamlNamesTheLine) {
  EXPECT_THAT(LoadAuthn("server:\n  listen: [open\n"), StatusIs(Code::kInvalidArgument, "authn.yaml:3: "));
  EXPECT_THAT(LoadAuthn("server: a: b\n"), StatusIs(Code::kInvalidArgument, "authn.yaml:1: "));
  EXPECT_THAT(LoadAuthn("a: 1\n---\nb: 2\n"), StatusIs(Code::kInvalidArgument, "one YAML document"));
  EXPECT_THAT(LoadAuthn("? [a]\n: b\n"), StatusIs(Code::kInvalidArgument, "a key that is no name"));
}

TEST(YamlConfigTest, EnvironmentReferencesAreText) {
  config::v1::AuthnConfig config;
  ASSERT_THAT(LoadAuthn("dataDirectory: ${HOME}\n", &config), IsOk());
  EXPECT_EQ(config.data_directory(), "${HOME}");
}

constexpr char kWithSecret[] = "mcpServers:\n- slug: a\n  appAuth:\n    bearer:\n      token:\n        valueFrom: ";

TEST(YamlConfigTest, ValueFromReadsFilesAndTheEnvironment) {
  const testing::TempDirectory directory;
  directory.Write("token.txt", "s3cret\n");
  const std::string yaml = directory.Write("apply.yaml", std::string(kWithSecret) + "{file: token.txt}\n");
  registry::v1::ApplyRequest request;
  YamlOptions options;
  options.resolve_value_from = true;
  options.refuse_writable_by_others = false;
  ASSERT_THAT(LoadYamlFile(yaml, &request, options), IsOk());
  EXPECT_EQ(request.mcp_servers(0).app_auth().bearer().token().value(), "s3cret");

  setenv("SALLYPORT_TEST_TOKEN", "from-env", 1);
  ASSERT_THAT(LoadApply(std::string(kWithSecret) + "{env: SALLYPORT_TEST_TOKEN}\n", options, &request), IsOk());
  EXPECT_EQ(request.mcp_servers(0).app_auth().bearer().token().value(), "from-env");
}

TEST(YamlConfigTest, ValueFromThatCannotBeReadIsRefused) {
  YamlOptions options;
  options.resolve_value_from = true;
  const std::string with = kWithSecret;
  EXPECT_THAT(LoadApply(with + "{env: SALLYPORT_TEST_UNSET}\n", options),
              StatusIs(Code::kInvalidArgument, "is not set"));
  EXPECT_THAT(LoadApply(with + "{file: /nonexistent/x}\n", options),
              StatusIs(Code::kInvalidArgument, "token.valueFrom"));
  EXPECT_THAT(LoadApply(with + "{url: x}\n", options), StatusIs(Code::kInvalidArgument, "{env: NAME} or {file: path}"));
  EXPECT_THAT(LoadApply(with + "text\n", options), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(LoadApply(with + "{env: HOME}\n        value: x\n", options),
              StatusIs(Code::kInvalidArgument, "excludes"));
  EXPECT_THAT(LoadApply(with + "{env: HOME}\n"), StatusIs(Code::kInvalidArgument, "not accepted here"));
}

TEST(YamlConfigTest, AFileOthersMayWriteIsRefusedWithTheRemedy) {
  const testing::TempDirectory directory;
  const std::string path = directory.Write("c.yaml", "dataDirectory: /x\n");
  config::v1::AuthnConfig config;
  chmod(path.c_str(), 0664);
  EXPECT_THAT(LoadYamlFile(path, &config), StatusIs(Code::kFailedPrecondition, "chmod go-w"));
  chmod(path.c_str(), 0644);
  EXPECT_THAT(LoadYamlFile(path, &config), IsOk());
  EXPECT_THAT(LoadYamlFile(directory.File("none.yaml"), &config), StatusIs(Code::kNotFound));
}

TEST(FieldLinesTest, LaterErrorsAreLocated) {
  config::v1::AuthnConfig config;
  FieldLines lines;
  ASSERT_THAT(LoadYaml("server:\n  listen: a\nconnectors:\n- id: a\n- id: b\n  oidc:\n    issuer: x\n", "a.yaml",
                       &config, {}, &lines),
              IsOk());

  EXPECT_EQ(lines.LineOf("connectors[1].oidc.issuer"), 7);
  EXPECT_EQ(lines.LineOf("connectors[1].oidc.clientId"), 6);
  EXPECT_EQ(lines.LineOf("connectors[1].displayName"), 5);
  EXPECT_EQ(lines.LineOf("deployment.publicUrl"), 1);
  EXPECT_THAT(lines.Locate(InvalidFields({{"server.listen", "is bad"}, {"connectors[1].oidc.issuer", "is worse"}})),
              StatusIs(Code::kInvalidArgument,
                       "a.yaml:2: field server.listen: is bad\na.yaml:7: field connectors[1].oidc.issuer: is worse"));
  EXPECT_THAT(lines.Locate(absl::OkStatus()), IsOk());
  EXPECT_THAT(lines.Locate(absl::NotFoundError("x")), StatusIs(Code::kNotFound, "x"));
}

}  // namespace
}  // namespace sallyport
