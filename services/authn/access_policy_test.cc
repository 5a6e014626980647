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
  ann.groups = {"team-a", "team-b"};
  return ann;
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

  const AccessDecision decision = AccessPolicy(allow).Decide(Ann(), GetParam().email_counts);

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
        Case{"Group", [](registry::v1::Allow& a) { a.add_groups("team-b"); }, false, true, "interactive.allow.groups"},
        Case{"GroupOtherCase", [](registry::v1::Allow& a) { a.add_groups("Team-B"); }, false, false, kNone},
        Case{"GroupPrefix", [](registry::v1::Allow& a) { a.add_groups("team-"); }, false, false, kNone},
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

  EXPECT_FALSE(AccessPolicy(allow).Decide(nobody, true).allowed);
}

TEST(RolePolicyTest, RolesComeFromGroupsAndSubjects) {
  config::v1::AuthnConfig::Roles roles;
  roles.add_admin_subjects("corp:ann");
  roles.add_auditor_groups("team-a");
  roles.add_credential_admin_groups("team-z");

  EXPECT_THAT(RolePolicy(roles).RolesOf(Ann()), ElementsAre("auditor", "admin"));
  EXPECT_THAT(RolePolicy(roles).groups(), ElementsAre("team-a", "team-z"));
}

TEST(RolePolicyTest, NobodyHasARoleThatIsNotConfigured) { EXPECT_THAT(RolePolicy({}).RolesOf(Ann()), IsEmpty()); }

TEST(RolePolicyTest, EmailIsNeverARole) {
  config::v1::AuthnConfig::Roles roles;
  roles.add_admin_subjects("Ann@Example.com");

  EXPECT_THAT(RolePolicy(roles).RolesOf(Ann()), IsEmpty());
}

}  // namespace
}  // namespace sallyport::authn
