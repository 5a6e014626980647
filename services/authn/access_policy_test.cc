// SPDX-License-Identifier: Apache-2.0
#include "services/authn/access_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sallyport::authn {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Identity Ann() {
  Identity ann;
  ann.subject = "corp:ann";
  ann.connector = "corp";
  ann.email = "Ann@Example.com";
  ann.email_verified = true;
  ann.groups = {"team-a", "team-b", "urn:x:team"};
  return ann;
}

// "corp" and "other" are issuers; the local users have no groups.
GroupNames Names(const std::vector<std::string>& issuers) {
  google::protobuf::RepeatedPtrField<config::v1::Connector> connectors;
  for (const std::string& id : issuers) {
    auto& connector = *connectors.Add();
    connector.set_id(id);
    connector.mutable_oidc();
  }
  auto& local = *connectors.Add();
  local.set_id("local");
  local.mutable_local()->add_users()->set_username("lena");
  return GroupNames(connectors);
}

struct Case {
  const char* name;
  void (*fill)(registry::v1::Allow&);
  bool email_counts;
  bool allowed;
  const char* rule;
};

class AllowTest : public ::testing::TestWithParam<Case> {};

TEST_P(AllowTest, DecidesAsTheTableSays) {
  registry::v1::Allow allow;
  GetParam().fill(allow);

  const AccessDecision decision = AccessPolicy(allow, Names({"corp", "other"})).Decide(Ann(), GetParam().email_counts);

  EXPECT_EQ(decision.allowed, GetParam().allowed);
  EXPECT_STREQ(decision.rule, GetParam().rule);
}

constexpr char kNone[] = "interactive.allow.none";
INSTANTIATE_TEST_SUITE_P(
    Allow, AllowTest,
    ::testing::Values(
        Case{"Empty", [](registry::v1::Allow&) {}, true, false, kNone},
        Case{"Everyone", [](registry::v1::Allow& a) { a.set_everyone(true); }, false, true,
             "interactive.allow.everyone"},
        Case{"Group", [](registry::v1::Allow& a) { a.add_groups("corp:team-b"); }, false, true,
             "interactive.allow.groups"},
        Case{"GroupWithColon", [](registry::v1::Allow& a) { a.add_groups("corp:urn:x:team"); }, false, true,
             "interactive.allow.groups"},
        Case{"GroupOfOtherConnector", [](registry::v1::Allow& a) { a.add_groups("other:team-b"); }, false, false,
             kNone},
        Case{"GroupOfNobodyKnowsWhich", [](registry::v1::Allow& a) { a.add_groups("team-b"); }, false, false, kNone},
        Case{"GroupWhoseNameLooksQualified", [](registry::v1::Allow& a) { a.add_groups("urn:x:team"); }, false, false,
             kNone},
        Case{"GroupOtherCase", [](registry::v1::Allow& a) { a.add_groups("corp:Team-B"); }, false, false, kNone},
        Case{"GroupPrefix", [](registry::v1::Allow& a) { a.add_groups("corp:team-"); }, false, false, kNone},
        Case{"Subject", [](registry::v1::Allow& a) { a.add_subjects("corp:ann"); }, false, true,
             "interactive.allow.subjects"},
        Case{"SubjectOfOtherConnector", [](registry::v1::Allow& a) { a.add_subjects("other:ann"); }, false, false,
             kNone},
        Case{"SubjectOtherCase", [](registry::v1::Allow& a) { a.add_subjects("corp:Ann"); }, false, false, kNone},
        Case{"Email", [](registry::v1::Allow& a) { a.add_emails("ann@example.COM"); }, true, true,
             "interactive.allow.emails"},
        Case{"EmailThatDoesNotCount", [](registry::v1::Allow& a) { a.add_emails("ann@example.com"); }, false, false,
             kNone},
        Case{"Domain", [](registry::v1::Allow& a) { a.add_email_domains("EXAMPLE.com"); }, true, true,
             "interactive.allow.email_domains"},
        Case{"DomainThatDoesNotCount", [](registry::v1::Allow& a) { a.add_email_domains("example.com"); }, false, false,
             kNone},
        Case{"ParentDomain", [](registry::v1::Allow& a) { a.add_email_domains("com"); }, true, false, kNone},
        Case{"DomainSuffix", [](registry::v1::Allow& a) { a.add_email_domains("ample.com"); }, true, false, kNone}),
    [](const auto& test) { return test.param.name; });

TEST(AccessPolicyTest, EmptyEmailMatchesNoEmptyRule) {
  registry::v1::Allow allow;
  allow.add_emails("");
  allow.add_email_domains("");
  Identity nobody = Ann();
  nobody.email.clear();

  EXPECT_FALSE(AccessPolicy(allow, GroupNames()).Decide(nobody, true).allowed);
}

TEST(AccessPolicyTest, GroupWithoutConnectorIsShorthandWhileOneConnectorGivesGroups) {
  registry::v1::Allow allow;
  allow.add_groups("team-b");
  const AccessPolicy one(allow, Names({"corp"}));
  EXPECT_TRUE(one.Decide(Ann(), false).allowed);
  EXPECT_THAT(one.ambiguous_groups(), IsEmpty());

  const AccessPolicy another(allow, Names({"other"}));
  EXPECT_FALSE(another.Decide(Ann(), false).allowed) << "stored while `other` was the only one";

  const AccessPolicy two(allow, Names({"corp", "other"}));
  EXPECT_THAT(two.ambiguous_groups(), ElementsAre("team-b"));
}

TEST(AccessPolicyTest, UsersOfAServersOwnKeysHaveNoGroups) {
  registry::v1::Allow allow;
  allow.add_groups("corp:team-b");
  Identity someone = Ann();
  someone.connector.clear();
  EXPECT_FALSE(AccessPolicy(allow, Names({"corp"})).Decide(someone, false).allowed);
}

TEST(AccessPolicyTest, GroupsThatWereLeftOutAreTheReasonWhereGroupsDecide) {
  Identity crowded = Ann();
  crowded.groups.clear();
  crowded.groups_overage = true;
  registry::v1::Allow allow;
  allow.add_subjects("corp:bob");
  EXPECT_STREQ(AccessPolicy(allow, GroupNames()).Decide(crowded, false).rule, kNone);

  allow.add_groups("corp:team-b");
  const AccessDecision decision = AccessPolicy(allow, GroupNames()).Decide(crowded, false);
  EXPECT_FALSE(decision.allowed);
  EXPECT_STREQ(decision.rule, "interactive.allow.groups_overage");

  allow.set_everyone(true);
  EXPECT_STREQ(AccessPolicy(allow, GroupNames()).Decide(crowded, false).rule, "interactive.allow.everyone");
}

TEST(RolePolicyTest, RolesComeFromGroupsAndSubjects) {
  config::v1::AuthnConfig::Roles roles;
  roles.add_admin_subjects("corp:ann");
  roles.add_auditor_groups("team-a");
  roles.add_credential_admin_groups("corp:team-z");

  const RolePolicy policy(roles, Names({"corp"}));
  EXPECT_THAT(policy.RolesOf(Ann()), ElementsAre("auditor", "admin"));
  EXPECT_THAT(policy.groups(), ElementsAre("corp:team-a", "corp:team-z"));
}

TEST(RolePolicyTest, GroupOfAnotherConnectorGivesNoRole) {
  config::v1::AuthnConfig::Roles roles;
  roles.add_admin_groups("corp:team-a");
  Identity stranger = Ann();
  stranger.subject = "other:ann";
  stranger.connector = "other";

  const RolePolicy policy(roles, Names({"corp", "other"}));
  EXPECT_THAT(policy.RolesOf(Ann()), ElementsAre("admin"));
  EXPECT_THAT(policy.RolesOf(stranger), IsEmpty());
}

TEST(RolePolicyTest, NobodyHasARoleThatIsNotConfigured) {
  EXPECT_THAT(RolePolicy({}, GroupNames()).RolesOf(Ann()), IsEmpty());
}

TEST(RolePolicyTest, EmailIsNeverARole) {
  config::v1::AuthnConfig::Roles roles;
  roles.add_admin_subjects("Ann@Example.com");

  EXPECT_THAT(RolePolicy(roles, GroupNames()).RolesOf(Ann()), IsEmpty());
}

}  // namespace
}  // namespace sallyport::authn
