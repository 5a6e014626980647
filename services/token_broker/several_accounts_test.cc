// SPDX-License-Identifier: Apache-2.0
// Several accounts of one app.
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/http/url.h"
#include "services/token_broker/testing/linked_accounts_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

class SeveralAccountsTest : public testing::LinkedAccountsTestBase {};

TEST_F(SeveralAccountsTest, CallChoosesItsAccountByLabel) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  const web::v1::WebResponse page = Browse(broker, "GET", "/connect/gh?account=work", Browser());
  EXPECT_THAT(page.body(), HasSubstr("GitHub account &quot;work&quot;"));
  EXPECT_EQ(HeaderOf(Link(broker, "hubot", "work"), "location"), "/connect/gh/done?account=work");

  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot");
  EXPECT_EQ(Goes(broker, "home"), "[home]") << "what is not linked is asked for under its label";
  EXPECT_EQ(Goes(broker, "work", "corp:eve"), "[work]") << "labels are each user's own";
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot") << "from the cache";
  EXPECT_EQ(peers_.registry.invalidations().back().key(), "corp:ada\napp_gh\nwork");
}

TEST_F(SeveralAccountsTest, ServerChoosesTheAccountWhereTheCallDoesNot) {
  registry::v1::McpServer* server = AddServer("srv_work", "work");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
  server->mutable_app_auth()->mutable_oauth_authorization()->set_account("work");
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  v1::ResolveCredentialsRequest request;
  request.set_server_uid("srv_work");
  const std::string ada = peers_.authn.Sign(CallPassport("corp:ada", "srv_work"));
  ASSERT_OK_AND_ASSIGN(auto response, Resolve(broker, request, ada));
  EXPECT_EQ(response.link().account(), "work");
  Passport user = Session("ses_1");
  user.link_server_uids = {"srv_work"};
  EXPECT_THAT(Browse(broker, "GET", "/connect/work", Browser(user)).body(), HasSubstr("&quot;work&quot;"));
  EXPECT_THAT(Browse(broker, "GET", "/connect/work?account=", Browser(user)).body(),
              Not(HasSubstr("&quot;work&quot;")));

  Link(broker, "hubot", "work");
  ASSERT_OK_AND_ASSIGN(response, Resolve(broker, request, ada));
  EXPECT_EQ(response.pieces(0).value(), "Bearer at-hubot");
}

TEST_F(SeveralAccountsTest, OneAccountMayHaveTwoLabels) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Link(broker, "octocat").status(), 302);
  EXPECT_EQ(Link(broker, "octocat", "work").status(), 302);
  EXPECT_EQ(Stored("work").account().id(), Stored().account().id());
}

TEST_F(SeveralAccountsTest, CallbacksOfTwoTabsComeHomeToTheirOwnLabels) {
  TokenBrokerServer& broker = StartBroker();
  const std::string first = Leave(broker);
  const std::string second = Leave(broker, "work");

  Return(broker, second, "hubot");
  Return(broker, first, "octocat");

  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot");
  EXPECT_EQ(Return(broker, second, "octocat").status(), 400) << "used";
}

TEST_F(SeveralAccountsTest, FormOfOneLabelBeginsNoLinkOfAnother) {
  TokenBrokerServer& broker = StartBroker();
  const std::string csrf = Csrf(Browse(broker, "GET", "/connect/gh", Browser()));
  EXPECT_EQ(Browse(broker, "POST", "/connect/gh", Browser(), absl::StrCat("account=work&csrf=", PercentEncode(csrf)))
                .status(),
            403);
}

TEST_F(SeveralAccountsTest, LabelsThatAreNoneAreRefusedEverywhere) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");  // Waits.
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  for (const std::string& label : {std::string("a/b"), std::string("a\nb"), std::string("a\0b", 3), std::string("~"),
                                   std::string(65, 'x'), std::string("*"), std::string("\xc3\xbc")}) {
    EXPECT_EQ(Goes(broker, label), "INVALID_ARGUMENT") << label;
    for (const char* page : {"", "/done", "/confirm"}) {
      EXPECT_EQ(Browse(broker, "GET", absl::StrCat("/connect/gh", page, "?account=", PercentEncode(label)), Browser())
                    .status(),
                400)
          << label;
    }
    v1::StartLinkRequest start;
    start.set_server_uid(kServer);
    start.set_app_uid(kApp);
    start.set_account(label);
    v1::StartLinkResponse started;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
    EXPECT_EQ(stub->StartLink(context.get(), start, &started).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(SeveralAccountsTest, AccountIsChosenOnlyWhereThereIsOne) {
  registry::v1::McpServer* server = AddServer("srv_free", "free");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_passthrough();
  v1::ResolveCredentialsRequest request;
  request.set_server_uid("srv_free");
  request.set_account("work");
  EXPECT_THAT(Resolve(StartBroker(), request, peers_.authn.Sign(CallPassport("corp:ada", "srv_free"))),
              StatusIs(Code::kInvalidArgument));
}

TEST_F(SeveralAccountsTest, LinkOfACallIsForTheAccountItChose) {
  TokenBrokerServer& broker = StartBroker();
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::StartLinkRequest start;
  start.set_server_uid(kServer);
  start.set_app_uid(kApp);
  start.set_account("work");
  start.mutable_call()->set_method("tools/call");
  v1::StartLinkResponse started;
  {
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
    ASSERT_TRUE(stub->StartLink(context.get(), start, &started).ok());
  }
  EXPECT_THAT(started.url(), HasSubstr("&account=work"));
  EXPECT_EQ(started.message(), "Connect your GitHub account \"work\" to continue.");
  const auto linked = [&] {
    v1::ResumeLinkRequest resume;
    resume.set_server_uid(kServer);
    *resume.mutable_call() = start.call();
    resume.set_request_state(started.request_state());
    v1::ResumeLinkResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
    EXPECT_TRUE(stub->ResumeLink(context.get(), resume, &response).ok());
    return response.linked();
  };
  Link(broker, "octocat");
  EXPECT_FALSE(linked()) << "the default account is another";
  Link(broker, "hubot", "work");
  EXPECT_TRUE(linked());
}

TEST_F(SeveralAccountsTest, ListNamesLabelsAndAccountsAndNothingThatWaits) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot", "work");
  Link(broker, "mallory");  // Waits to be confirmed.
  Passport api = CallPassport();
  api.purpose = Passport::Purpose::kApi;
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::ListConnectionsResponse list;
  const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(api));
  ASSERT_TRUE(stub->ListConnections(context.get(), {}, &list).ok());

  std::set<std::string> seen;
  for (const v1::Connection& one : list.connections()) {
    seen.insert(absl::StrCat(one.app_slug(), "/", one.label(), "=", one.account_name()));
  }
  EXPECT_THAT(seen, ElementsAre("github/=octocat", "github/work=hubot"));
}

TEST_F(SeveralAccountsTest, RenamedAccountGoesByItsNewLabelOnly) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot", "work");
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  const auto rename = [&](const std::string& from, const std::string& to, Passport passport) {
    v1::RenameConnectionRequest request;
    request.set_app_slug("github");
    request.set_label(from);
    request.set_new_label(to);
    v1::RenameConnectionResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(passport));
    return FromGrpcStatus(stub->RenameConnection(context.get(), request, &response));
  };
  Passport api = CallPassport();
  api.purpose = Passport::Purpose::kApi;
  Passport eve = api;
  eve.subject = "corp:eve";
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot");

  EXPECT_THAT(rename("work", "", api), StatusIs(Code::kAlreadyExists));
  EXPECT_THAT(rename("work", "a/b", api), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(rename("~", "mine", api), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(rename("work", "work", api), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(rename("home", "mine", api), StatusIs(Code::kNotFound));
  EXPECT_THAT(rename("work", "mine", eve), StatusIs(Code::kNotFound)) << "another user's";
  EXPECT_THAT(rename("work", "mine", CallPassport()), StatusIs(Code::kPermissionDenied)) << "no call does that";
  EXPECT_THAT(rename("work", "mine", api), StatusIs(Code::kOk));

  EXPECT_EQ(Goes(broker, "work"), "[work]");
  EXPECT_EQ(Goes(broker, "mine"), "Bearer at-hubot");
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  std::set<std::string> told;
  for (const auto& invalidation : peers_.registry.invalidations()) told.insert(invalidation.key());
  EXPECT_EQ(told.count("corp:ada\napp_gh\nwork"), 1U);
  EXPECT_EQ(told.count("corp:ada\napp_gh\nmine"), 1U);
  EXPECT_TRUE(peers_.audit.Await("link.renamed", ""));
}

}  // namespace
}  // namespace sallyport::token_broker
