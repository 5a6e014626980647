// SPDX-License-Identifier: Apache-2.0
#include "services/registry/catalog_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

class CatalogApplyTest : public CatalogTest {};
INSTANTIATE_ENGINES(CatalogApplyTest);

TEST_P(CatalogApplyTest, CredentialsAreForCredentialAdminsInAFileToo) {
  EXPECT_THAT(Apply(File({}, {}, {kCredential}), admin_), StatusIs(Code::kPermissionDenied));
  ASSERT_THAT(Apply(File({}, {}, {kCredential}), chief_), IsOk());
  std::string other = kCredential;
  other.replace(other.find("\"k\""), 3, "\"evil\"");
  EXPECT_THAT(Apply(File({}, {}, {other}), admin_), StatusIs(Code::kPermissionDenied))
      << "the value of an existing one is theirs as well";
  EXPECT_EQ(vault_.Look(vault_.Keys()[0]).versions.at(1), "k");
}

TEST_P(CatalogApplyTest, ApplyIsIdempotentInAnyOrderOfTheFile) {
  const std::string file = File({kApp}, {kOAuth, kBearer}, {kCredential});
  EXPECT_THAT(Actions(Apply(file, chief_)),
              ElementsAre("App github CREATED", "Credential c CREATED", "McpServer gh CREATED", "McpServer a CREATED"));
  const int64_t revision = Revision();
  EXPECT_THAT(Actions(Apply(file, chief_)), ElementsAre("App github UNCHANGED", "Credential c UNCHANGED",
                                                        "McpServer gh UNCHANGED", "McpServer a UNCHANGED"));
  EXPECT_EQ(Revision(), revision);
}

TEST_P(CatalogApplyTest, ApplyIsIdempotentForAPlainAdminTooOnceOriginsWereFilledIn) {
  const std::string file = File({kApp}, {kOAuth});
  ASSERT_THAT(Apply(file, admin_), IsOk());
  const int64_t revision = Revision();
  EXPECT_THAT(Actions(Apply(file, admin_)), ElementsAre("App github UNCHANGED", "McpServer gh UNCHANGED"));
  EXPECT_THAT(Actions(Apply(File({kApp}, {}), admin_)), ElementsAre("App github UNCHANGED"));
  EXPECT_EQ(Revision(), revision);
  EXPECT_THAT(Stored().apps(0).allowed_upstream_origins(), ElementsAre("https://api.example.com"));
}

std::string Grouped(const std::string& groups) {
  return R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": {"interactive": {"allow": {"groups": [)" +
         groups + R"(]}}}, "appAuth": {"passthrough": {}}})";
}

TEST_P(CatalogApplyTest, GroupsAreStoredWithTheirConnector) {
  ASSERT_OK_AND_ASSIGN(const auto written, Create<v1::McpServer>(Grouped(R"("team", "okta:ops", "okta:team")")));
  EXPECT_THAT(written.resource.agent_auth().interactive().allow().groups(), ElementsAre("okta:team", "okta:ops"));
  EXPECT_THAT(Stored().mcp_servers(0).agent_auth().interactive().allow().groups(),
              ElementsAre("okta:team", "okta:ops"));
  const int64_t revision = Revision();
  for (const char* groups : {R"("team", "ops")", R"("okta:team", "okta:ops")", R"("okta:team", "ops")"}) {
    const auto response = Apply(File({}, {Grouped(groups)}), admin_, /*dry_run=*/true);
    EXPECT_THAT(Actions(response), ElementsAre("McpServer a UNCHANGED")) << groups;
    EXPECT_THAT(response->results(0).changes(), IsEmpty());
    EXPECT_THAT(Actions(Apply(File({}, {Grouped(groups)}), admin_)), ElementsAre("McpServer a UNCHANGED"));
  }
  EXPECT_EQ(Revision(), revision);
}

TEST_P(CatalogApplyTest, GroupWithoutConnectorIsRefusedWithItsSpellingsWhileSeveralGiveGroups) {
  connectors_ = Connectors{{"corp", {"oidc"}}, {"okta", {"oidc"}}, {"local", {"local", true}}};
  const absl::Status refused = Create<v1::McpServer>(Grouped(R"("okta:ops", "team")")).status();
  EXPECT_THAT(Refused(refused), ElementsAre("agentAuth.interactive.allow.groups[1]"));
  EXPECT_THAT(refused, StatusIs(Code::kInvalidArgument, "write corp:team or okta:team"));
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("okta:team", "corp:team")")), IsOk());
}

TEST_P(CatalogApplyTest, GroupOfAnUnknownConnectorOrOfNobodyIsRefused) {
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("urn:x:team")")).status(),
              StatusIs(Code::kInvalidArgument, "there is no connector \"urn\": write <connector>:urn:x:team"));
  EXPECT_THAT(Refused(Create<v1::McpServer>(Grouped(R"("", "okta:")")).status()),
              ElementsAre("agentAuth.interactive.allow.groups[0]", "agentAuth.interactive.allow.groups[1]"));
  connectors_ = Connectors{{"local", {"local", true}}};
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("team")")).status(),
              StatusIs(Code::kInvalidArgument, "no connector gives groups"));
  connectors_ = std::nullopt;
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("team")")).status(),
              StatusIs(Code::kInvalidArgument, "authn does not answer"));
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("okta:urn:x:team")")), IsOk());
}

TEST_P(CatalogApplyTest, BareGroupsOfAnEarlierReleaseAreBroughtIntoFormWhenSaved) {
  ASSERT_THAT(Create<v1::McpServer>(Grouped(R"("okta:team")")), IsOk());
  v1::McpServer former = Stored().mcp_servers(0);
  *former.mutable_agent_auth()->mutable_interactive()->mutable_allow()->mutable_groups(0) = "team";
  former.set_version(2);
  ASSERT_THAT(Write([&](Transaction& tx) {
                return Store::Save(tx, "McpServer", {former.uid(), "a", 2, former.SerializeAsString()}, 1);
              }),
              IsOk());
  // The same group in both spellings, as long as it is known whose it is.
  for (const char* groups : {R"("team")", R"("okta:team")"}) {
    EXPECT_THAT(Actions(Apply(File({}, {Grouped(groups)}), admin_)), ElementsAre("McpServer a UNCHANGED")) << groups;
  }
  // With a second connector it is not: the administrator says it.
  connectors_ = Connectors{{"corp", {"oidc"}}, {"okta", {"oidc"}}};
  EXPECT_THAT(Refused(Apply(File({}, {Grouped(R"("team")")}), admin_).status()),
              ElementsAre("mcpServers[0].agentAuth.interactive.allow.groups[0]"));
  EXPECT_THAT(Actions(Apply(File({}, {Grouped(R"("okta:team")")}), admin_)), ElementsAre("McpServer a UPDATED"));
  EXPECT_THAT(Stored().mcp_servers(0).agent_auth().interactive().allow().groups(), ElementsAre("okta:team"));
}

TEST_P(CatalogApplyTest, ApplyIsAllOrNothingAndNamesEveryRefusalByItsPlaceInTheFile) {
  EXPECT_THAT(Refused(Apply(File({kApp, R"({"slug": "x"})"}, {kOAuth, R"({"slug": "y"})"}), chief_).status()),
              UnorderedElementsAre("apps[1].authorizationUrl", "apps[1].tokenUrl", "apps[1].clientId",
                                   "mcpServers[1].upstreamUrl", "mcpServers[1].agentAuth", "mcpServers[1].appAuth"));
  EXPECT_EQ(Revision(), 0);
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_THAT(Refused(Apply(File({}, {kOpen, kOpen}), chief_).status()), ElementsAre("mcpServers[1].slug"));
}

TEST_P(CatalogApplyTest, AVersionConflictInsideAFileStopsAllOfIt) {
  ASSERT_THAT(Create<v1::McpServer>(kOpen), IsOk());
  auto stale = FromJson<v1::McpServer>(kOpen);
  stale.set_version(7);
  stale.set_description("x");
  v1::ApplyRequest request;
  *request.add_apps() = FromJson<v1::App>(kApp);
  *request.add_mcp_servers() = stale;
  EXPECT_THAT(catalog_->Apply(request, chief_), StatusIs(Code::kAborted));
  EXPECT_THAT(Stored().apps(), IsEmpty());
  request.set_dry_run(true);
  EXPECT_THAT(catalog_->Apply(request, chief_), StatusIs(Code::kAborted));
}

TEST_P(CatalogApplyTest, AFileThatNamesAVersionMayBeAppliedTwice) {
  ASSERT_THAT(Apply(File({}, {kBearer}), chief_), IsOk());
  v1::ApplyRequest file;
  ASSERT_OK_AND_ASSIGN(*file.add_mcp_servers(), catalog_->Get<v1::McpServer>("a"));
  file.mutable_mcp_servers(0)->set_description("x");
  EXPECT_THAT(Actions(catalog_->Apply(file, chief_)), ElementsAre("McpServer a UPDATED"));
  EXPECT_THAT(Actions(catalog_->Apply(file, chief_)), ElementsAre("McpServer a UNCHANGED"));
  auto& token = *file.mutable_mcp_servers(0)->mutable_app_auth()->mutable_bearer()->mutable_token();
  token.set_value("hunter2");
  EXPECT_THAT(Actions(catalog_->Apply(file, chief_)), ElementsAre("McpServer a UNCHANGED")) << "the vault compares";
  token.set_value("hunter3");
  EXPECT_THAT(catalog_->Apply(file, chief_), StatusIs(Code::kAborted)) << "this would change it";
  EXPECT_EQ(vault_.Look(BearerKey()).versions, (std::map<int64_t, std::string>{{1, "hunter2"}})) << "taken back";
  token.set_value("hunter2");
  file.mutable_mcp_servers(0)->set_description("y");
  const int puts = vault_.puts();
  EXPECT_THAT(catalog_->Apply(file, chief_), StatusIs(Code::kAborted));
  EXPECT_EQ(vault_.puts(), puts) << "known before the vault was asked";
}

TEST_P(CatalogApplyTest, ADryRunShowsAFirstSecretAsAChange) {
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  ASSERT_THAT(catalog_->Create(app, false, chief_), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto preview, Apply(File({kApp}, {}), chief_, true));
  ASSERT_THAT(preview.results(0).changes(), SizeIs(1));
  EXPECT_EQ(preview.results(0).changes(0).field(), "clientSecret");
  EXPECT_EQ(preview.results(0).changes(0).before(), "");
  EXPECT_EQ(preview.results(0).changes(0).after(), "(secret)");
}

TEST_P(CatalogApplyTest, ADryRunOfAFileShowsTheChangesAndMakesNone) {
  ASSERT_THAT(Apply(File({}, {kBearer}), chief_), IsOk());
  const int puts = vault_.puts();
  std::string changed = kBearer;
  changed.replace(changed.find("/mcp"), 4, "/v2");
  ASSERT_OK_AND_ASSIGN(const auto preview, Apply(File({kApp}, {changed}), chief_, true));
  EXPECT_EQ(preview.results(0).action(), v1::ApplyResponse::CREATED);
  ASSERT_EQ(preview.results(1).action(), v1::ApplyResponse::UPDATED);
  std::vector<std::string> lines;
  for (const auto& change : preview.results(1).changes()) lines.push_back(change.field() + "=" + change.after());
  EXPECT_THAT(lines, UnorderedElementsAre("upstreamUrl=\"https://api.example.com/v2\"",
                                          "appAuth.bearer.token=(secret, compared when applied)"));
  for (const auto& result : preview.results()) {
    for (const auto& change : result.changes()) {
      EXPECT_FALSE(change.field().empty());
      EXPECT_THAT(change.after(), ::testing::Not(HasSubstr("hunter2")));
      EXPECT_THAT(change.after(), ::testing::Not(HasSubstr("s3cret")));
    }
  }
  EXPECT_EQ(vault_.puts(), puts);
  EXPECT_EQ(Revision(), 1);
  EXPECT_THAT(Stored().apps(), IsEmpty());
}

TEST_P(CatalogApplyTest, AuthnIsAskedForItsConnectorsOnceAFile) {
  std::vector<std::string> servers;
  for (int i = 0; i < 5; ++i) {
    std::string server = kOpen;
    server.replace(server.find("\"a\""), 3, "\"a" + std::to_string(i) + "\"");
    servers.push_back(server);
  }
  ASSERT_THAT(Apply(File({}, servers), admin_), IsOk());
  EXPECT_EQ(connector_questions_, 1);
}

}  // namespace
}  // namespace sallyport::registry
