// SPDX-License-Identifier: Apache-2.0
#include "services/registry/draft.h"

#include <gmock/gmock.h>

#include "services/registry/registry_testing.h"

namespace sallyport::registry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kUid[] = "srv_a";

// Plans the secrets of servers, whose origin is that of upstream_url.
class PlanSecretsTest : public ::testing::Test {
 protected:
  SecretPlan Plan(const v1::McpServer* before, v1::McpServer& after) {
    findings_ = {};
    const auto reach = [](const v1::McpServer* server) {
      return [server](const SecretField& field) {
        return ResourceTraits<v1::McpServer>::ReachOf(field, *server, ResourceUrls(*server));
      };
    };
    return PlanSecrets(
        before, after, kUid, {reach(before), reach(&after), [](const SecretField&) { return MoveRule{"upstreamUrl"}; }},
        [this](const std::string& record) {
          const auto found = retired_.find(record);
          return found == retired_.end() ? std::nullopt : std::optional<SecretLedger::Version>(found->second);
        },
        findings_);
  }
  static v1::McpServer Bearer(const std::string& secret = "{}", const std::string& host = "api.example.com") {
    return FromJson<v1::McpServer>(R"({"slug": "a", "upstreamUrl": "https://)" + host +
                                   R"(/mcp", "appAuth": {"bearer": {"token": )" + secret + "}}}");
  }
  static v1::McpServer Stored(const std::string& host = "api.example.com") {
    return Bearer(R"({"set": true, "version": "4", "vaultRecord": "srv_a/app_auth.bearer.token",
                      "updatedAt": "2026-01-01T00:00:00Z"})",
                  host);
  }
  // All secrets of a resource go from there to here.
  static SecretMove Moves(const Origins& before, const Origins& after,
                          MoveRule::Outcome outcome = MoveRule::kGiveAgain) {
    return {[before](const SecretField&) {
              return SecretReach{before, {}};
            },
            [after](const SecretField&) {
              return SecretReach{after, {}};
            },
            [outcome](const SecretField&) {
              return MoveRule{"x", outcome};
            }};
  }
  std::vector<std::string> Refused() const {
    std::vector<std::string> fields;
    for (const auto& violation : findings_.violations) fields.push_back(violation.field);
    return fields;
  }

  std::map<std::string, SecretLedger::Version> retired_;
  Findings findings_;
};

TEST_F(PlanSecretsTest, AValueGoesToTheVaultAndLeavesTheMessage) {
  v1::McpServer after = Bearer(R"({"value": "hunter2"})");
  const SecretPlan plan = Plan(nullptr, after);
  ASSERT_THAT(plan.puts, SizeIs(1));
  EXPECT_EQ(plan.puts[0].record, "srv_a/app_auth.bearer.token");
  EXPECT_EQ(plan.puts[0].json_path, "appAuth.bearer.token");
  EXPECT_EQ(plan.puts[0].value, "hunter2");
  EXPECT_EQ(after.SerializeAsString().find("hunter2"), std::string::npos);
  EXPECT_THAT(Refused(), IsEmpty());
}

TEST_F(PlanSecretsTest, ARequiredValueThatIsNowhereIsRefused) {
  v1::McpServer after = Bearer();
  Plan(nullptr, after);
  EXPECT_THAT(Refused(), ElementsAre("appAuth.bearer.token"));
  v1::App app;
  Findings findings;
  PlanSecrets(
      nullptr, app, "app_a", Moves({}, {}), [](const std::string&) { return std::nullopt; }, findings);
  EXPECT_THAT(findings.violations, IsEmpty()) << "public clients have no secret";
}

TEST_F(PlanSecretsTest, AnAbsentSecretKeepsWhatIsStored) {
  const v1::McpServer before = Stored();
  v1::McpServer after = Bearer();
  const SecretPlan plan = Plan(&before, after);
  EXPECT_THAT(Refused(), IsEmpty());
  EXPECT_THAT(plan.puts, IsEmpty());
  EXPECT_THAT(plan.retire, IsEmpty());
  EXPECT_THAT(plan.erase, IsEmpty());
  EXPECT_EQ(after.SerializeAsString(), before.SerializeAsString());
}

TEST_F(PlanSecretsTest, OutputFieldsOnTheirWayInCannotPointToAnotherRecord) {
  v1::McpServer after = Bearer(R"({"set": true, "version": "9", "vaultRecord": "srv_other/app_auth.bearer.token"})");
  Plan(nullptr, after);
  EXPECT_THAT(Refused(), ElementsAre("appAuth.bearer.token"));
  EXPECT_FALSE(after.app_auth().bearer().token().set());

  const v1::McpServer before = Stored();
  after = Bearer(R"({"set": true, "version": "9", "vaultRecord": "srv_other/app_auth.bearer.token"})");
  Plan(&before, after);
  EXPECT_EQ(after.app_auth().bearer().token().vault_record(), "srv_a/app_auth.bearer.token");
  EXPECT_EQ(after.app_auth().bearer().token().version(), 4);
}

TEST_F(PlanSecretsTest, CarryingASecretToAnotherOriginIsRefusedNamingBothFields) {
  const v1::McpServer before = Stored();
  for (const char* host : {"evil.example.com", "api.example.com:8443"}) {
    v1::McpServer after = Bearer("{}", host);
    Plan(&before, after);
    EXPECT_THAT(Refused(), ElementsAre("appAuth.bearer.token", "upstreamUrl")) << host;
  }
  v1::McpServer again = Bearer(R"({"value": "hunter2"})", "evil.example.com");
  Plan(&before, again);
  EXPECT_THAT(Refused(), IsEmpty()) << "given again";
  v1::McpServer path = before;
  path.set_upstream_url("https://api.example.com/other?x=y");
  path.mutable_app_auth()->mutable_bearer()->clear_token();
  Plan(&before, path);
  EXPECT_THAT(Refused(), IsEmpty()) << "same origin";
}

TEST_F(PlanSecretsTest, PlainHttpIsAnotherOrigin) {
  const v1::McpServer before = Stored();
  v1::McpServer after = Bearer();
  after.set_upstream_url("http://api.example.com/mcp");
  Plan(&before, after);
  EXPECT_THAT(Refused(), ElementsAre("appAuth.bearer.token", "upstreamUrl"));
}

TEST_F(PlanSecretsTest, ClearErasesOptionalSecretsOnly) {
  const v1::McpServer before = Stored();
  v1::McpServer after = Bearer(R"({"clear": true})");
  Plan(&before, after);
  EXPECT_THAT(Refused(), ElementsAre("appAuth.bearer.token"));

  const auto app =
      FromJson<v1::App>(R"({"clientSecret": {"set": true, "version": "2", "vaultRecord": "app_a/client_secret"}})");
  auto cleared = FromJson<v1::App>(R"({"clientSecret": {"clear": true}})");
  Findings findings;
  const SecretPlan plan = PlanSecrets(
      &app, cleared, "app_a", Moves({}, {}), [](const std::string&) { return std::nullopt; }, findings);
  EXPECT_THAT(findings.violations, IsEmpty());
  ASSERT_THAT(plan.erase, SizeIs(1));
  EXPECT_EQ(plan.erase[0].record, "app_a/client_secret");
  EXPECT_FALSE(cleared.client_secret().set());

  auto untrue = FromJson<v1::App>(R"({"clientSecret": {"clear": false}})");
  PlanSecrets(
      &app, untrue, "app_a", Moves({}, {}), [](const std::string&) { return std::nullopt; }, findings);
  ASSERT_THAT(findings.violations, SizeIs(1));
  EXPECT_EQ(findings.violations[0].field, "clientSecret.clear");
}

TEST_F(PlanSecretsTest, ValuesThatCannotBeSentAreRefused) {
  for (const std::string& value : {std::string(), std::string("a\nb"), std::string(" a"), std::string("a "),
                                   std::string("a\0b", 3), std::string((32 << 10) + 1, 'x')}) {
    v1::McpServer after = Bearer();
    after.mutable_app_auth()->mutable_bearer()->mutable_token()->set_value(value);
    Plan(nullptr, after);
    EXPECT_THAT(Refused(), ElementsAre("appAuth.bearer.token")) << value.size();
    for (const auto& violation : findings_.violations) {
      if (!value.empty() && value != " a" && value != "a ") {
        EXPECT_THAT(violation.message, ::testing::Not(HasSubstr(value)));
      }
    }
  }
}

TEST_F(PlanSecretsTest, SwitchingTypeRetiresAndSwitchingBackRestores) {
  const v1::McpServer before = Stored();
  auto passthrough = FromJson<v1::McpServer>(
      R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp", "appAuth": {"passthrough": {}}})");
  const SecretPlan away = Plan(&before, passthrough);
  ASSERT_THAT(away.retire, SizeIs(1));
  EXPECT_EQ(away.retire[0].record, "srv_a/app_auth.bearer.token");
  EXPECT_EQ(away.retire[0].version, 4);
  EXPECT_THAT(away.retire[0].origins, ElementsAre("https://api.example.com"));

  SecretLedger::Version former = away.retire[0];
  former.updated_at = absl::FromUnixSeconds(1'767'225'600);
  retired_[former.record] = former;
  v1::McpServer back = Bearer();
  Plan(&passthrough, back);
  EXPECT_THAT(Refused(), IsEmpty());
  EXPECT_EQ(back.SerializeAsString(), before.SerializeAsString());

  v1::McpServer elsewhere = Bearer("{}", "evil.example.com");
  Plan(&passthrough, elsewhere);
  EXPECT_THAT(Refused(), ElementsAre("appAuth.bearer.token", "upstreamUrl"));
}

TEST_F(PlanSecretsTest, HeaderSecretsGoByNameNotByPosition) {
  const auto before = FromJson<v1::McpServer>(R"({"upstreamUrl": "https://api.example.com/", "outboundHeaders": [
      {"name": "X-A", "literal": {"secretValue": {"set": true, "version": "1", "vaultRecord": "srv_a/outbound_headers.x-a.literal.secret_value"}}},
      {"name": "X-B", "literal": {"secretValue": {"set": true, "version": "2", "vaultRecord": "srv_a/outbound_headers.x-b.literal.secret_value"}}}]})");
  auto swapped = FromJson<v1::McpServer>(R"({"upstreamUrl": "https://api.example.com/", "outboundHeaders": [
      {"name": "x_b", "literal": {"secretValue": {}}}, {"name": "X-A", "literal": {"secretValue": {}}}]})");
  Plan(&before, swapped);
  EXPECT_THAT(Refused(), IsEmpty());
  EXPECT_EQ(swapped.outbound_headers(0).literal().secret_value().version(), 2);
  EXPECT_EQ(swapped.outbound_headers(1).literal().secret_value().version(), 1);

  auto renamed = FromJson<v1::McpServer>(R"({"upstreamUrl": "https://api.example.com/", "outboundHeaders": [
      {"name": "X-A", "literal": {"secretValue": {}}}, {"name": "X-C", "literal": {"secretValue": {}}}]})");
  const SecretPlan plan = Plan(&before, renamed);
  EXPECT_THAT(Refused(), ElementsAre("outboundHeaders[1].literal.secretValue"));
  EXPECT_THAT(plan.retire, SizeIs(1));
}

TEST_F(PlanSecretsTest, AValueThatMayMoveIsKeptAndBoundAnew) {
  const auto before = FromJson<v1::Credential>(R"({"value": {"set": true, "version": "3", "vaultRecord": "crd_a/value",
      "updatedAt": "2026-01-01T00:00:00Z"}, "allowedUpstreamOrigins": ["https://a.example.com"]})");
  auto after = FromJson<v1::Credential>(R"({"allowedUpstreamOrigins": ["https://b.example.com"]})");
  const SecretPlan plan = PlanSecrets(
      &before, after, "crd_a", Moves({"https://a.example.com"}, {"https://b.example.com"}, MoveRule::kRebind),
      [](const std::string&) { return std::nullopt; }, findings_);
  EXPECT_THAT(Refused(), IsEmpty());
  ASSERT_THAT(plan.rebind, SizeIs(1));
  EXPECT_EQ(plan.rebind[0].record, "crd_a/value");
  EXPECT_EQ(plan.rebind[0].version, 3);
  EXPECT_THAT(plan.rebind[0].origins, ElementsAre("https://b.example.com"));
  EXPECT_EQ(after.value().version(), 3);
}

TEST(SecretFields, HidingLeavesNothingOfBindings) {
  auto app = FromJson<v1::App>(R"({"binding": {"vaultRecord": "app_a/binding", "version": "2"}})");
  HideSecretInternals(app);
  EXPECT_FALSE(app.has_binding());
}

TEST(SecretFields, HidingLeavesWhatAnApiMayShow) {
  auto server = FromJson<v1::McpServer>(R"({"appAuth": {"apiKey": {"name": "k", "value": {"set": true, "version": "2",
      "vaultRecord": "srv_a/x", "updatedAt": "2026-01-01T00:00:00Z"}}}})");
  HideSecretInternals(server);
  const auto& secret = server.app_auth().api_key().value();
  EXPECT_TRUE(secret.set());
  EXPECT_EQ(secret.version(), 2);
  EXPECT_TRUE(secret.has_updated_at());
  EXPECT_THAT(secret.vault_record(), IsEmpty());
}

}  // namespace
}  // namespace sallyport::registry
