// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/apply.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>

#include "tests/testing/status_matchers.h"
#include "tools/cli/cli_testing.h"
#include "tools/cli/yaml_printer.h"

namespace sallyport::cli {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kApply[] = "/api/sallyport.registry.v1.Registry/Apply";
constexpr char kFile[] = R"(mcpServers:
  - slug: echo
    upstreamUrl: http://127.0.0.1:9000/mcp
    agentAuth: {passthrough: {}}
    appAuth:
      apiKey:
        name: X-API-Key
        value: {valueFrom: {file: key}}
)";

class ApplyTest : public CliTest {};

TEST_F(ApplyTest, ReadsTheFileAndItsSecrets) {
  WriteHome("key", "s3cret\n");
  FieldLines lines;

  ASSERT_OK_AND_ASSIGN(const auto request, ReadResources(WriteHome("servers.yaml", kFile), terminal_, lines));

  ASSERT_EQ(request.mcp_servers_size(), 1);
  EXPECT_EQ(request.mcp_servers(0).app_auth().api_key().value().value(), "s3cret");
  EXPECT_EQ(lines.LineOf("mcpServers[0].appAuth.apiKey.name"), 7);
}

TEST_F(ApplyTest, ReadsStandardInput) {
  in_.str("apps: [{slug: google, clientId: x}]");
  FieldLines lines;

  ASSERT_OK_AND_ASSIGN(const auto request, ReadResources("-", terminal_, lines));

  EXPECT_EQ(request.apps(0).slug(), "google");
}

TEST_F(ApplyTest, RefusesAFileWithoutResources) {
  FieldLines lines;

  EXPECT_THAT(ReadResources(WriteHome("empty.yaml", "# nothing\n"), terminal_, lines),
              StatusIs(absl::StatusCode::kInvalidArgument, "names no resource"));
}

TEST_F(ApplyTest, AnUnknownFieldNamesFileLineAndFieldAndSendsNothing) {
  SignIn();
  const std::string file = WriteHome("bad.yaml", "mcpServers:\n  - slug: echo\n    upstreamURL: http://x\n");

  EXPECT_EQ(Run({"apply", "-f", file}), kBadUsage);

  EXPECT_THAT(err_.str(), HasSubstr("bad.yaml:3: field mcpServers[0].upstreamURL: unknown field"));
  EXPECT_TRUE(requests_.empty());
}

TEST_F(ApplyTest, AMissingSecretFileSendsNothing) {
  SignIn();

  EXPECT_EQ(Run({"apply", "-f", WriteHome("servers.yaml", kFile)}), kBadUsage);

  EXPECT_THAT(err_.str(), HasSubstr("servers.yaml:8"));
  EXPECT_TRUE(requests_.empty());
}

TEST_F(ApplyTest, ARefusedFieldComesBackWithFileAndLine) {
  SignIn();
  WriteHome("key", "s3cret");
  Reply(
      kApply,
      R"({"error":"invalid_argument","message":"x","violations":[{"field":"mcpServers[0].slug","message":"is reserved"}]})",
      400);

  EXPECT_EQ(Run({"apply", "-f", WriteHome("servers.yaml", kFile)}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("servers.yaml:2: field mcpServers[0].slug: is reserved"));
  EXPECT_THAT(err_.str(), Not(HasSubstr("s3cret")));
}

TEST_F(ApplyTest, PrintsWhatChanged) {
  SignIn();
  WriteHome("key", "s3cret");
  Reply(kApply, R"json({"results":[
    {"kind":"App","slug":"google","action":"UNCHANGED"},
    {"kind":"McpServer","slug":"echo","action":"UPDATED","changes":[
      {"field":"description","before":"\"old\"","after":"\"new\""},
      {"field":"policy","before":"{}","after":""},
      {"field":"appAuth.apiKey.value","before":"(secret)","after":"(secret)"}],
     "warnings":[{"field":"agentAuth.passthrough","message":"whoever reaches this URL"}]}]})json");

  EXPECT_EQ(Run({"apply", "-f", WriteHome("servers.yaml", kFile)}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr("= App google\n~ McpServer echo\n    description: \"old\" -> \"new\"\n"
                                    "    policy: {} -> (removed)\n    appAuth.apiKey.value: (secret) -> (secret)\n"));
  EXPECT_THAT(out_.str(), HasSubstr("servers.yaml:4: mcpServers[0].agentAuth.passthrough: whoever"));
  EXPECT_THAT(out_.str(), HasSubstr("0 created, 1 updated, 1 unchanged\n"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("s3cret")));
  EXPECT_THAT(requests_[0].body, Not(HasSubstr("dryRun")));
}

TEST_F(ApplyTest, PrintsWhatAChangeMeansForUsersAndCallers) {
  SignIn();
  WriteHome("key", "s3cret");
  Reply(kApply, R"json({"results":[{"kind":"McpServer","slug":"echo","action":"UPDATED","changes":[
    {"field":"description","before":"\"old\"","after":"\"new\""}],
    "consequences":[{"field":"appAuth","kind":"MUST_CONNECT_AGAIN","users":{"number":"42"},
      "message":"42 users must connect GitHub again: scope repo:write is asked for and their connection lacks it"},
      {"field":"agentAuth","kind":"CALLERS_REFUSED","callers":"WITHOUT_TOKEN","message":"callers without a token"}]}]})json");

  EXPECT_EQ(Run({"apply", "--dry-run", "-f", WriteHome("servers.yaml", kFile)}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr("description: \"old\" -> \"new\"\n    consequence: 42 users must connect GitHub "
                                    "again: scope repo:write is asked for and their connection lacks it\n    "
                                    "consequence: callers without a token\n"));
}

TEST_F(ApplyTest, ADryRunOfADeletionSaysSoToTheGatewayAndTheReader) {
  SignIn();
  Reply("/api/sallyport.registry.v1.Registry/DeleteMcpServer",
        R"json({"consequences":[{"kind":"CALLERS_REFUSED","message":"every call is refused with 404"}]})json");

  EXPECT_EQ(Run({"delete", "server", "echo", "--dry-run"}), kDone);

  EXPECT_THAT(requests_[0].body, HasSubstr(R"("dryRun":true)"));
  EXPECT_EQ(out_.str(), "- McpServer echo (not deleted)\n    consequence: every call is refused with 404\n");
}

TEST_F(ApplyTest, WarningThatSeveralServersShareAppearsOnce) {
  SignIn();
  Reply(kApply, R"json({"results":[
    {"kind":"McpServer","slug":"a","action":"CREATED","warnings":[{"field":"upstreamUrl","message":"is plain http"}]},
    {"kind":"McpServer","slug":"b","action":"UNCHANGED","warnings":[{"field":"upstreamUrl","message":"is plain http"},
      {"field":"upstreamUrl","message":"has a query"}]},
    {"kind":"McpServer","slug":"c","action":"CREATED","warnings":[{"field":"upstreamUrl","message":"is plain http"}]}
    ]})json");
  const std::string file =
      "mcpServers:\n  - slug: a\n    upstreamUrl: http://127.0.0.1:1/\n  - slug: b\n    upstreamUrl: "
      "http://127.0.0.1:2/?a=b\n  - slug: c\n    upstreamUrl: http://127.0.0.1:3/\n";

  EXPECT_EQ(Run({"apply", "-f", WriteHome("servers.yaml", file)}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr("servers.yaml:3: mcpServers[0].upstreamUrl: is plain http (also lines 5, 7)\n"));
  EXPECT_THAT(out_.str(), HasSubstr("servers.yaml:5: mcpServers[1].upstreamUrl: has a query\n"));
  EXPECT_EQ(out_.str().find("is plain http"), out_.str().rfind("is plain http"));
}

TEST_F(ApplyTest, DryRunSaysSoToTheGatewayAndTheReader) {
  SignIn();
  WriteHome("key", "s3cret");
  Reply(kApply, R"({"results":[{"kind":"McpServer","slug":"echo","action":"CREATED"}]})");

  EXPECT_EQ(Run({"apply", "--dry-run", "-f", WriteHome("servers.yaml", kFile)}), kDone);

  EXPECT_THAT(requests_[0].body, HasSubstr(R"("dryRun":true)"));
  EXPECT_THAT(out_.str(), HasSubstr("1 created, 0 updated, 0 unchanged (not applied)"));
}

TEST_F(ApplyTest, ASecretThatOnlyTheVaultCanCompareIsNoDifference) {
  SignIn();
  WriteHome("key", "s3cret");
  Reply(kApply, R"json({"results":[{"kind":"McpServer","slug":"echo","action":"UPDATED","changes":[
    {"field":"appAuth.apiKey.value","before":"(secret)","after":"(secret, compared when applied)"}]}]})json");

  EXPECT_EQ(Run({"diff", "-f", WriteHome("servers.yaml", kFile)}), 0);

  EXPECT_THAT(out_.str(), HasSubstr("= McpServer echo\n    appAuth.apiKey.value: (secret) -> (secret, compared"));
}

TEST_F(ApplyTest, AFirstSecretIsADifference) {
  SignIn();
  WriteHome("key", "s3cret");
  const std::string file = WriteHome("servers.yaml", kFile);
  for (const char* after : {"(secret)", "(secret, compared when applied)"}) {
    Reply(kApply, absl::StrCat(
                      R"json({"results":[{"kind":"App","slug":"github","action":"UPDATED","changes":[
      {"field":"clientSecret","before":"","after":")json",
                      after, "\"}]}]}"));
    EXPECT_EQ(Run({"diff", "-f", file}), 1) << after;
  }
  EXPECT_THAT(out_.str(), HasSubstr("~ App github\n    clientSecret: (secret)"));
}

TEST_F(ApplyTest, DiffEndsWithOneWhenSomethingDiffers) {
  SignIn();
  WriteHome("key", "s3cret");
  const std::string file = WriteHome("servers.yaml", kFile);
  Reply(kApply, R"({"results":[{"kind":"McpServer","slug":"echo","action":"CREATED"}]})");
  EXPECT_EQ(Run({"diff", "-f", file}), 1);
  Reply(kApply, R"({"results":[{"kind":"McpServer","slug":"echo","action":"UNCHANGED"}]})");
  EXPECT_EQ(Run({"diff", "-f", file}), 0);
  Reply(kApply, R"({"error":"internal","message":"internal error"})", 500);
  EXPECT_EQ(Run({"diff", "-f", file}), 2);
  EXPECT_THAT(requests_[0].body, HasSubstr(R"("dryRun":true)"));
}

TEST(YamlPrinterTest, WhatIsPrintedReadsBackEqual) {
  registry::v1::ApplyRequest before;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(
                  R"({"mcpServers":[{"slug":"a-b","description":"yes: \"it\" is\nso # not a comment","enabled":false,
      "version":"9007199254740993","createdAt":"2026-01-02T03:04:05.500Z","agentAuth":{"interactive":{"allow":{
      "groups":["on","true","eng team","x:"]},"trustedConnectors":[{"connector":"okta","audiences":["https://a/"],
      "requiredClaims":{"b":"2","a":"~"}}]}},"appAuth":{"passthrough":{}},"restrictedInboundHeaders":["*","x-*"],
      "outboundHeaders":[{"name":"X-A","literal":{"value":""}},{"name":"X-B","forwardCallerToken":{"token":"ID"}}],
      "policy":{"firstByteTimeout":"1.250s","bodyLimit":"5"}}],"apps":[{"slug":"g"},{"slug":"h","pkce":"OFF"}]})",
                  &before)
                  .ok());

  registry::v1::ApplyRequest after;
  const std::string yaml = ToYaml(before);
  ASSERT_THAT(LoadYaml(yaml, "printed.yaml", &after), IsOk()) << yaml;

  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(before, after)) << yaml;
}

TEST(YamlPrinterTest, ListsOfMessagesBeginAtTheDash) {
  registry::v1::ApplyRequest request;
  request.add_apps()->set_slug("google");
  request.mutable_apps(0)->add_default_scopes("a b");

  EXPECT_EQ(ToYaml(request), "apps:\n  - slug: google\n    defaultScopes:\n      - \"a b\"\n");
}

}  // namespace
}  // namespace sallyport::cli
