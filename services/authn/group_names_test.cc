// SPDX-License-Identifier: Apache-2.0
#include "services/authn/group_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class GroupNamesTest : public ::testing::Test {
 protected:
  void AddIssuer(const std::string& id) {
    auto& connector = *connectors_.Add();
    connector.set_id(id);
    connector.mutable_oidc();
  }
  void AddLocal(const std::string& id, const std::vector<std::string>& groups) {
    auto& connector = *connectors_.Add();
    connector.set_id(id);
    connector.mutable_local()->add_users()->set_username("nobody");
    connector.mutable_local()->add_users()->mutable_groups()->Assign(groups.begin(), groups.end());
  }
  absl::Status Check(absl::string_view name) const {
    return GroupNames(connectors_).Check("roles.adminGroups[0]", name);
  }
  std::string Qualify(absl::string_view name) const {
    return GroupNames(connectors_).Qualify(name).value_or("nobody's");
  }

  google::protobuf::RepeatedPtrField<config::v1::Connector> connectors_;
};

TEST_F(GroupNamesTest, BareNameIsOfTheOnlyConnectorThatGivesGroups) {
  AddLocal("break-glass", {});
  AddIssuer("corp");
  EXPECT_THAT(Check("team"), IsOk());
  EXPECT_EQ(Qualify("team"), "corp:team");
  EXPECT_EQ(Qualify("corp:team"), "corp:team");
}

TEST_F(GroupNamesTest, BareNameIsRefusedWithEverySpellingWhileSeveralGiveGroups) {
  AddIssuer("corp");
  AddLocal("local", {"team"});
  EXPECT_THAT(Check("team"), StatusIs(kInvalid,
                                      "roles.adminGroups[0]: \"team\" may be a group of several connectors: "
                                      "write corp:team or local:team"));
  EXPECT_EQ(Qualify("team"), "nobody's");
  EXPECT_THAT(Check("corp:team"), IsOk());
  EXPECT_THAT(Check("local:team"), IsOk());
}

TEST_F(GroupNamesTest, TheFirstColonEndsTheConnector) {
  AddIssuer("corp");
  EXPECT_THAT(Check("corp:urn:x:team"), IsOk());
  // Not taken for a group of corp: it may be a connector's name that was mistyped, or one that is gone.
  EXPECT_THAT(Check("urn:x:team"), StatusIs(kInvalid, "no connector \"urn\": write <connector>:urn:x:team"));
  EXPECT_EQ(Qualify("urn:x:team"), "urn:x:team");
}

TEST_F(GroupNamesTest, NothingIsNoGroup) {
  AddIssuer("corp");
  for (const char* name : {"", "corp:"}) EXPECT_THAT(Check(name), StatusIs(kInvalid, "<connector>:<group>")) << name;
  EXPECT_EQ(Qualify(""), "nobody's");
  EXPECT_THAT(Check(":team"), StatusIs(kInvalid, "no connector"));
}

TEST_F(GroupNamesTest, WhereNoConnectorGivesGroupsABareNameIsRefused) {
  AddLocal("local", {});
  EXPECT_THAT(Check("team"), StatusIs(kInvalid, "no connector gives groups"));
  EXPECT_THAT(Check("local:team"), IsOk());
}

TEST_F(GroupNamesTest, RolesAreCheckedByField) {
  AddIssuer("corp");
  AddIssuer("partner");
  config::v1::AuthnConfig::Roles roles;
  roles.add_admin_groups("corp:team");
  roles.add_admin_groups("team");
  roles.add_credential_admin_groups("team");
  roles.add_auditor_groups("other:team");
  std::vector<std::string> fields;
  for (const auto& violation : DetailOf(CheckRoleGroups("roles", roles, GroupNames(connectors_))).violations) {
    fields.push_back(violation.field);
  }
  EXPECT_THAT(fields, ElementsAre("roles.adminGroups[1]", "roles.credentialAdminGroups[0]", "roles.auditorGroups[0]"));
}

TEST_F(GroupNamesTest, WithoutAConnectorThereAreNoGroups) {
  Identity identity;
  identity.groups = {"corp:team"};
  EXPECT_THAT(QualifiedGroups(identity), IsEmpty());
  identity.connector = "partner";
  EXPECT_THAT(QualifiedGroups(identity), ElementsAre("partner:corp:team"));
}

}  // namespace
}  // namespace sallyport::authn
