// SPDX-License-Identifier: Apache-2.0
#include "services/vault/access.h"

#include "absl/strings/str_join.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using testing::For;
using testing::Service;

const RecordId kConnection = {{"user", "corp:ada"}, "connection", "app_1"};
const RecordId kSignIn = {{"user", "corp:ada"}, "connection", "sso:corp"};
const RecordId kServerSecret = {{"org", "default"}, "server_secret", "srv_1/x"};
const RecordId kUserCredential = {{"user", "corp:ada"}, "credential", "crd_1/value"};
const RecordId kSigningKey = {{"system", "authn"}, "signing_key", "k1"};
const RecordId kConnectorSecret = {{"system", "authn"}, "connector_secret", "corp/client_secret"};
const RecordId kFlow = {{"system", "token_broker"}, "link_flow", "ab"};

const RecordId kServerBinding = {{"org", "default"}, "server_binding", "srv_1/binding"};
const RecordId kAppBinding = {{"org", "default"}, "app_binding", "app_1/binding"};

constexpr Operation kAll[] = {Operation::kGet, Operation::kPut,   Operation::kDelete, Operation::kList,
                              Operation::kPin, Operation::kLease, Operation::kRebind, Operation::kCount};

// "get put …": what this caller may do with the record.
std::string Allowed(const Caller& caller, const RecordId& id) {
  std::vector<std::string> out;
  for (const Operation operation : kAll) {
    if (CheckAccess(caller, operation, id).ok()) {
      out.emplace_back(OperationName(operation));
    }
  }
  return absl::StrJoin(out, " ");
}

Caller Api(const std::string& service, const std::string& role) {
  Caller caller = For(service, "corp:root");
  caller.passport->purpose = Passport::Purpose::kApi;
  caller.passport->roles = {role};
  return caller;
}

TEST(AccessTest, BrokerOwnsConnectionsOfTheUserWhoIsCalling) {
  EXPECT_EQ(Allowed(For("token_broker", "corp:ada"), kConnection), "get put delete list lease");
}
TEST(AccessTest, BrokerWithoutPassportSeesNoUserRecord) {
  EXPECT_EQ(Allowed(Service("token_broker"), kConnection), "");
  EXPECT_EQ(ReasonOf(CheckAccess(Service("token_broker"), Operation::kGet, kConnection)), "passport_required");
}
TEST(AccessTest, BrokerWithAnotherUsersPassportSeesNothing) {
  EXPECT_EQ(Allowed(For("token_broker", "corp:eve"), kConnection), "");
  EXPECT_EQ(Allowed(For("token_broker", "corp:ad"), kConnection), "");
  EXPECT_EQ(Allowed(For("token_broker", ""), kConnection), "");
}
TEST(AccessTest, BrokerOnlyReadsConfiguredSecrets) {
  EXPECT_EQ(Allowed(Service("token_broker"), kServerSecret), "get");
  EXPECT_EQ(Allowed(Service("token_broker"), kConnectorSecret), "get");
  EXPECT_EQ(Allowed(Service("token_broker"), kUserCredential), "");
}
TEST(AccessTest, ACredentialOfAUsersOwnIsTheirs) {
  EXPECT_EQ(Allowed(Service("token_broker"), kUserCredential), "");
  EXPECT_EQ(Allowed(For("token_broker", "corp:ada"), kUserCredential), "get list") << "of a call";
  Caller browser = For("token_broker", "corp:ada");
  for (const auto purpose : {Passport::Purpose::kApi, Passport::Purpose::kLink}) {
    browser.passport->purpose = purpose;
    EXPECT_EQ(Allowed(browser, kUserCredential), "get put delete list");
  }
  EXPECT_EQ(Allowed(For("token_broker", "corp:eve"), kUserCredential), "");
  // Entered for them by an administrator of credentials, and never read.
  EXPECT_EQ(Allowed(Api("token_broker", "credential-admin"), kUserCredential), "put delete");
  EXPECT_EQ(Allowed(Api("token_broker", "admin"), kUserCredential), "");
  EXPECT_EQ(Allowed(Api("token_broker", "credential-admin"), kConnection), "");
  for (const char* role : {"admin", "credential-admin"}) {
    EXPECT_EQ(Allowed(Api("registry", role), kUserCredential), "count");
    EXPECT_EQ(Allowed(Api("authn", role), kUserCredential), "");
    EXPECT_EQ(Allowed(Api("edge", role), kUserCredential), "");
  }
  EXPECT_EQ(Allowed(For("registry", "corp:ada"), kUserCredential), "");
}
TEST(AccessTest, ACredentialOfTheOrganizationIsTheRegistrysToWriteAndTheBrokersToRead) {
  const RecordId credential = {{"org", "default"}, "credential", "crd_1/value"};
  EXPECT_EQ(Allowed(Api("token_broker", "credential-admin"), credential), "get");
  EXPECT_EQ(Allowed(Api("registry", "credential-admin"), credential), "put delete list pin rebind");
}
TEST(AccessTest, BrokerKeepsItsOwnFlowsWithoutAPassport) {
  EXPECT_EQ(Allowed(Service("token_broker"), kFlow), "get put delete list lease");
}
TEST(AccessTest, BrokerNeverSeesSigningKeys) {
  EXPECT_EQ(Allowed(Service("token_broker"), kSigningKey), "");
  EXPECT_EQ(Allowed(For("token_broker", "authn"), kSigningKey), "");
}
TEST(AccessTest, RegistryWritesButNeverReads) {
  EXPECT_EQ(Allowed(Service("registry"), kServerSecret), "put delete list pin");
  EXPECT_EQ(Allowed(Service("registry"), kConnectorSecret), "");
  EXPECT_EQ(Allowed(For("registry", "corp:ada"), kConnection), "");
}
TEST(AccessTest, AuthnKeepsItsKeysAndTouchesNoTokens) {
  EXPECT_EQ(Allowed(Service("authn"), kSigningKey), "get put delete list");
  EXPECT_EQ(Allowed(For("authn", "corp:ada"), kSignIn), "");
  EXPECT_EQ(Allowed(For("authn", "corp:ada"), kConnection), "");
  EXPECT_EQ(Allowed(Service("authn"), kSignIn), "");
  EXPECT_EQ(Allowed(Service("authn"), kServerSecret), "");
}
TEST(AccessTest, EdgeAndStrangersGetNothing) {
  for (const std::string& service :
       {std::string("edge"), std::string("vault"), std::string("console"), std::string()}) {
    Caller caller = For(service, "corp:ada");
    caller.passport->roles = {"admin", "credential-admin"};
    for (const RecordId& id : {kConnection, kServerSecret, kSigningKey, kFlow}) {
      EXPECT_EQ(Allowed(caller, id), "") << service;
    }
  }
}
TEST(AccessTest, WhereTokensMayGoIsSaidByAdministratorsOnly) {
  for (const RecordId& id : {kServerBinding, kAppBinding}) {
    EXPECT_EQ(Allowed(Service("registry"), id), "delete list pin");
    EXPECT_EQ(Allowed(Api("registry", "admin"), id), "put delete list pin");
    EXPECT_EQ(Allowed(Api("registry", "credential-admin"), id), "delete list pin rebind");
    EXPECT_EQ(Allowed(Api("registry", "auditor"), id), "delete list pin");
    EXPECT_EQ(Allowed(Service("token_broker"), id), "get");
    EXPECT_EQ(Allowed(Api("token_broker", "admin"), id), "get");
    EXPECT_EQ(Allowed(Api("authn", "admin"), id), "");
  }
  EXPECT_EQ(Allowed(Api("registry", "credential-admin"), kServerSecret), "put delete list pin rebind");
  EXPECT_EQ(Allowed(Api("registry", "admin"), kServerSecret), "put delete list pin");
}
TEST(AccessTest, RolesOfACallDoNotCount) {
  for (const auto purpose : {Passport::Purpose::kCall, Passport::Purpose::kLink, Passport::Purpose::kSignIn}) {
    Caller caller = Api("registry", "admin");
    caller.passport->roles = {"admin", "credential-admin"};
    caller.passport->purpose = purpose;
    EXPECT_EQ(Allowed(caller, kAppBinding), "delete list pin");
    caller.service = "token_broker";
    EXPECT_EQ(Allowed(caller, kUserCredential), "");
    EXPECT_FALSE(CheckListOwner(caller, {"user", "corp:ada"}).ok());
    EXPECT_FALSE(CheckDeleteOwner(caller, {"user", "corp:ada"}).ok());
  }
}
TEST(AccessTest, CacheRootsOfAUserAreTheirOwn) {
  const Owner ada = {"user", "corp:ada"};
  EXPECT_THAT(CheckCacheRoots(ada, For("token_broker", "corp:ada")), IsOk());
  EXPECT_FALSE(CheckCacheRoots(ada, For("token_broker", "corp:eve")).ok());
  EXPECT_FALSE(CheckCacheRoots(ada, Service("token_broker")).ok());
  EXPECT_FALSE(CheckCacheRoots(ada, Api("token_broker", "admin")).ok());
  EXPECT_THAT(CheckCacheRoots({"org", "default"}, Service("token_broker")), IsOk());
  EXPECT_FALSE(CheckCacheRoots(VaultOwner(), Service("token_broker")).ok());
  EXPECT_FALSE(CheckCacheRoots({"system", "authn"}, Service("token_broker")).ok());
}
TEST(AccessTest, OwnerIsDestroyedByThemselvesOrAnAdmin) {
  const Owner ada = {"user", "corp:ada"};
  EXPECT_FALSE(CheckDeleteOwner(For("token_broker", "corp:root"), ada).ok());
  const Caller admin = Api("token_broker", "admin");
  EXPECT_THAT(CheckDeleteOwner(admin, ada), IsOk());
  EXPECT_FALSE(CheckDeleteOwner(admin, {"org", "default"}).ok());
  EXPECT_FALSE(CheckDeleteOwner(admin, VaultOwner()).ok());
  EXPECT_THAT(CheckDeleteOwner(For("authn", "corp:ada"), ada), IsOk());
  EXPECT_FALSE(CheckDeleteOwner(Service("authn"), ada).ok());
}
TEST(AccessTest, OwnersAreListedByThemselvesOrAnAdmin) {
  EXPECT_FALSE(CheckListOwner(Api("token_broker", "credential-admin"), {"user", "corp:ada"}).ok());
  const Caller admin = Api("token_broker", "admin");
  EXPECT_THAT(CheckListOwner(admin, {"user", "corp:ada"}), IsOk());
  EXPECT_EQ(Allowed(admin, kConnection), "") << "an administrator sees that there is a record, not what is in it";
  EXPECT_THAT(CheckListOwner(For("token_broker", "corp:ada"), {"user", "corp:ada"}), IsOk());
  EXPECT_FALSE(CheckListOwner(For("token_broker", "corp:eve"), {"user", "corp:ada"}).ok());
  EXPECT_FALSE(CheckListOwner(Service("token_broker"), {"user", "corp:ada"}).ok());
  EXPECT_FALSE(CheckListOwner(Service("token_broker"), {"system", "authn"}).ok());
  EXPECT_FALSE(CheckListOwner(Service("vault"), VaultOwner()).ok());
}
TEST(AccessTest, APlatformsPassportIsForConnectionsOnly) {
  const Caller platform = testing::Broker("corp:ada", Passport::Purpose::kPlatform);
  const Owner ada = {"user", "corp:ada"};
  EXPECT_EQ(Allowed(platform, kConnection), "get put delete list lease");
  EXPECT_EQ(Allowed(platform, kUserCredential), "");
  EXPECT_EQ(Allowed(platform, kSignIn), "") << "what the identity provider gave is for no platform";
  for (const Operation operation : {Operation::kOwe, Operation::kRename}) {
    EXPECT_FALSE(CheckAccess(platform, operation, kSignIn).ok()) << OperationName(operation);
  }
  EXPECT_EQ(Allowed(platform, {{"user", "corp:eve"}, "connection", "app_1"}), "");
  EXPECT_THAT(CheckListOwner(platform, ada, "connection"), IsOk());
  EXPECT_FALSE(CheckListOwner(platform, ada, "credential").ok());
  EXPECT_TRUE(MaySee(platform, kConnection));
  EXPECT_FALSE(MaySee(platform, kUserCredential)) << "in a list of every kind";
  EXPECT_FALSE(MaySee(platform, kSignIn));
  EXPECT_FALSE(CheckDeleteOwner(platform, ada).ok());
  EXPECT_THAT(CheckCacheRoots(ada, platform), IsOk());
  Caller roles = platform;
  roles.passport->roles = {"admin", "credential-admin"};
  EXPECT_EQ(Allowed(roles, kUserCredential), "") << "it has no roles, whatever it says";
  EXPECT_FALSE(CheckDeleteOwner(roles, ada).ok());
}
TEST(AccessTest, ASignInsPassportOnlyStoresThatSignIn) {
  const Caller sign_in = testing::Broker("corp:ada", Passport::Purpose::kSignIn);
  const Owner ada = {"user", "corp:ada"};
  EXPECT_EQ(Allowed(sign_in, kSignIn), "put");
  EXPECT_EQ(Allowed(sign_in, kConnection), "");
  EXPECT_EQ(Allowed(sign_in, {ada, "connection", "sso:other"}), "");
  EXPECT_EQ(Allowed(sign_in, {{"user", "corp:eve"}, "connection", "sso:corp"}), "");
  EXPECT_EQ(Allowed(sign_in, kUserCredential), "");
  EXPECT_FALSE(CheckListOwner(sign_in, ada).ok());
  EXPECT_FALSE(CheckDeleteOwner(sign_in, ada).ok());
  EXPECT_FALSE(CheckCacheRoots(ada, sign_in).ok());
}
TEST(AccessTest, AnEndPassportIsNobodysPassport) {
  // Not even of its own subject, who is an administrator.
  Caller word = testing::Ending({.subject = "corp:ada"});
  const Owner ada = {"user", "corp:ada"};
  EXPECT_EQ(Allowed(word, kConnection), "");
  EXPECT_EQ(Allowed(word, kUserCredential), "");
  EXPECT_EQ(Allowed(word, {{"user", "local:root"}, "connection", "app_1"}), "");
  EXPECT_FALSE(CheckCacheRoots(ada, word).ok());
  EXPECT_FALSE(CheckListOwner(word, {"user", "local:root"}).ok());
  EXPECT_FALSE(CheckDeleteOwner(word, {"user", "local:root"}).ok());
  EXPECT_THAT(CheckListOwner(word, ada), IsOk());
  EXPECT_TRUE(MaySee(word, kUserCredential));
  EXPECT_THAT(CheckDeleteOwner(word, ada), IsOk());
  EXPECT_FALSE(CheckListOwner(word, {"user", "corp:eve"}).ok());
  EXPECT_FALSE(CheckDeleteOwner(word, {"user", "corp:eve"}).ok());
  word.passport->end.app_uid = "app_1";
  EXPECT_TRUE(MaySee(word, kConnection));
  EXPECT_FALSE(MaySee(word, kSignIn)) << "of another app";
  EXPECT_FALSE(MaySee(word, kUserCredential));
  EXPECT_FALSE(CheckDeleteOwner(word, ada).ok());
  word.passport->roles = {"admin", "credential-admin"};
  EXPECT_EQ(Allowed(word, kConnection), "");
  EXPECT_EQ(Allowed(word, kUserCredential), "");
  EXPECT_FALSE(CheckDeleteOwner(word, ada).ok());
}
TEST(AccessTest, ARevocationIsTheBrokersToEndAndNobodysToRead) {
  const RecordId revocation = {RevocationOwner(), "revocation", "x"};
  EXPECT_EQ(Allowed(Service("token_broker"), revocation), "delete list");
  EXPECT_THAT(CheckKind(Service("token_broker"), Operation::kLease, revocation), IsOk()) << "for maintenance";
  for (const char* service : {"authn", "registry", "edge"}) {
    EXPECT_EQ(Allowed(Api(service, "admin"), revocation), "");
    EXPECT_FALSE(CheckKind(Service(service), Operation::kLease, revocation).ok());
  }
}
TEST(AccessTest, AConnectionIsRenamedByItsOwnerInTheBrowser) {
  using Purpose = Passport::Purpose;
  const auto may = [](const Caller& caller) { return CheckAccess(caller, Operation::kRename, kConnection).ok(); };
  EXPECT_TRUE(may(testing::Broker("corp:ada", Purpose::kApi)));
  for (const Purpose purpose : {Purpose::kCall, Purpose::kLink, Purpose::kSignIn, Purpose::kPlatform, Purpose::kEnd}) {
    EXPECT_FALSE(may(testing::Broker("corp:ada", purpose))) << PurposeName(purpose);
  }
  EXPECT_FALSE(may(Api("token_broker", "admin")));
  EXPECT_FALSE(may(Service("token_broker")));
}
TEST(AccessTest, EveryMethodHasItsCallers) { EXPECT_THAT(CallGuard::Create(VaultMethodTables()), IsOk()); }

}  // namespace
}  // namespace sallyport::vault
