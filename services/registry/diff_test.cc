// SPDX-License-Identifier: Apache-2.0
#include "services/registry/diff.h"

#include <gmock/gmock.h>

#include "services/registry/registry_testing.h"

namespace sallyport::registry {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

std::vector<std::string> Diff(const google::protobuf::Message& before, const google::protobuf::Message& after) {
  std::vector<std::string> lines;
  for (const auto& change : DiffResources(before, after)) {
    lines.push_back(change.field() + ": " + change.before() + " -> " + change.after());
  }
  return lines;
}

TEST(DiffResources, CreationListsEveryFieldAndNothingWithoutAName) {
  const auto after = FromJson<v1::McpServer>(R"({"slug": "a", "appAuth": {"passthrough": {}}, "enabled": true})");
  EXPECT_THAT(Diff(v1::McpServer(), after),
              UnorderedElementsAre("slug:  -> \"a\"", "appAuth.passthrough:  -> {}", "enabled:  -> true"));
  EXPECT_THAT(Diff(v1::McpServer(), v1::McpServer()), IsEmpty());
}

TEST(DiffResources, EqualResourcesDifferInNothingWhateverTheBookkeeping) {
  auto before = FromJson<v1::McpServer>(R"({"slug": "a", "version": "3"})");
  auto after = before;
  after.set_uid("srv_x");
  after.set_version(9);
  after.mutable_updated_at()->set_seconds(5);
  after.mutable_binding()->set_version(3);
  EXPECT_THAT(Diff(before, after), IsEmpty());
}

TEST(DiffResources, ListsChangesAdditionsAndRemovalsByPath) {
  const auto before = FromJson<v1::McpServer>(R"({"slug": "a", "restrictedInboundHeaders": ["x-a", "x-b"],
      "agentAuth": {"interactive": {"allow": {"everyone": true}}}})");
  const auto after = FromJson<v1::McpServer>(R"({"slug": "a", "restrictedInboundHeaders": ["x-c"],
      "agentAuth": {"passthrough": {}}})");
  EXPECT_THAT(Diff(before, after),
              UnorderedElementsAre("restrictedInboundHeaders[0]: \"x-a\" -> \"x-c\"",
                                   "restrictedInboundHeaders[1]: \"x-b\" -> ",
                                   "agentAuth.interactive.allow.everyone: true -> ", "agentAuth.passthrough:  -> {}"));
}

TEST(DiffResources, SecretsDifferByVersionAndNeverShow) {
  const std::string set = R"("set": true, "updatedAt": "2026-01-01T00:00:00Z", "vaultRecord": "srv_a/x")";
  const auto server = [&](const std::string& version) {
    return FromJson<v1::McpServer>(R"({"appAuth": {"bearer": {"token": {)" + set + R"(, "version": ")" + version +
                                   R"("}}}})");
  };
  EXPECT_THAT(Diff(server("1"), server("1")), IsEmpty());
  EXPECT_THAT(Diff(server("1"), server("2")), UnorderedElementsAre("appAuth.bearer.token: (secret) -> (secret)"));
  const auto none = FromJson<v1::McpServer>(R"({"appAuth": {"bearer": {}}})");
  EXPECT_THAT(Diff(none, server("1")), UnorderedElementsAre("appAuth.bearer.token:  -> (secret)"));
  EXPECT_THAT(Diff(server("1"), none), UnorderedElementsAre("appAuth.bearer.token: (secret) -> "));
}

TEST(DiffResources, AValueOnItsWayInIsNotPrinted) {
  const auto after = FromJson<v1::McpServer>(R"({"appAuth": {"bearer": {"token": {"value": "hunter2"}}}})");
  for (const std::string& line : Diff(v1::McpServer(), after)) EXPECT_EQ(line.find("hunter2"), std::string::npos);
}

}  // namespace
}  // namespace sallyport::registry
