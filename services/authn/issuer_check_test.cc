// SPDX-License-Identifier: Apache-2.0
#include "services/authn/issuer_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/authn/authn_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

google::protobuf::RepeatedPtrField<config::v1::Connector> ConnectorsWith(const std::vector<std::string>& issuers) {
  google::protobuf::RepeatedPtrField<config::v1::Connector> connectors;
  for (const std::string& issuer : issuers) {
    auto* connector = connectors.Add();
    connector->set_id(absl::StrCat("c", connectors.size()));
    connector->mutable_oidc()->set_issuer(issuer);
  }
  return connectors;
}

std::string Check(const std::vector<std::string>& issuers, const std::vector<std::string>& networks = {}) {
  std::vector<Network> parsed;
  for (const std::string& network : networks) parsed.push_back(*Network::Parse(network));
  return std::string(
      CheckIssuerNetworks(ConnectorsWith(issuers), {parsed, EgressPolicy::PlainHttp::kLoopback}).message());
}

TEST(CheckIssuerNetworks, NamesTheIssuerInANetworkThatIsNotAllowed) {
  EXPECT_THAT(Check({"https://idp.example", "https://10.1.2.3/realm"}),
              AllOf(HasSubstr("connectors[1].oidc.issuer: "), HasSubstr("deployment.egress.oauthNetworks"),
                    Not(HasSubstr("connectors[0]"))));
  for (const char* issuer : {"https://localhost:8443", "http://localhost:8080", "http://127.0.0.1:8080",
                             "https://[::1]:8443", "https://[fd00::1]", "https://idp.localhost"}) {
    EXPECT_THAT(Check({issuer}), HasSubstr("oauthNetworks")) << issuer;
  }
  EXPECT_EQ(Check({"https://10.1.2.3/realm", "http://localhost:8080"}, {"10.0.0.0/8", "127.0.0.0/8"}), "");
}

TEST(CheckIssuerNetworks, DoesNotBlameTheNetworksForWhatNoneAllows) {
  EXPECT_THAT(Check({"https://169.254.169.254"}), AllOf(HasSubstr("oidc.issuer"), Not(HasSubstr("oauthNetworks"))));
  EXPECT_THAT(Check({"https://idp.example:25"}), AllOf(HasSubstr("oidc.issuer"), Not(HasSubstr("oauthNetworks"))));
}

TEST(CheckIssuerNetworks, IssuerThatIsOnlyComparedMayBeAnywhere) {
  auto connectors = ConnectorsWith({"https://10.1.2.3"});
  connectors[0].mutable_oidc()->set_jwks_file("/keys.json");
  EXPECT_THAT(CheckIssuerNetworks(connectors, EgressPolicy()), IsOk());
}

// Documents by URL, or a refusal of the network.
class RefusingFetcher final : public DocumentFetcher {
 public:
  absl::StatusOr<std::string> Fetch(const std::string& /*url*/, size_t /*max_bytes*/) override {
    ++fetches;
    return answer;
  }
  absl::StatusOr<std::string> answer =
      WithReason(absl::PermissionDeniedError("idp.corp is in a network that is not allowed"), "network_not_allowed");
  int fetches = 0;
};

class IssuerCheckTest : public ::testing::Test {
 protected:
  RefusingFetcher fetcher_;
  JwksCache jwks_{fetcher_};
  FakeVaultClient vault_;
  std::unique_ptr<Connectors> connectors_ = *Connectors::Create(ConnectorsWith({"https://idp.corp"}), jwks_, vault_);
  IssuerCheck check_;
};

TEST_F(IssuerCheckTest, NameThatResolvesToARefusedNetworkKeepsTheGatewayFromBeingReady) {
  EXPECT_THAT(check_.Ready(), IsOk());
  check_.Run(*connectors_, kNow);
  const absl::Status refused = check_.Ready();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable, "connectors[0].oidc.issuer"));
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("idp.corp is in a network"), HasSubstr("deployment.egress.oauthNetworks")));

  fetcher_.answer = absl::UnavailableError("down");
  check_.Run(*connectors_, kNow + absl::Seconds(30));
  EXPECT_THAT(check_.Ready(), IsOk()) << "an issuer that is down keeps nobody from signing in elsewhere";
}

TEST_F(IssuerCheckTest, IssuerThatCouldBeAskedIsNotAskedAgain) {
  fetcher_.answer = absl::UnavailableError("down");
  check_.Run(*connectors_, kNow);
  fetcher_.answer = WithReason(absl::PermissionDeniedError("private"), "network_not_allowed");
  check_.Run(*connectors_, kNow + absl::Seconds(30));
  EXPECT_THAT(check_.Ready(), IsOk()) << "whoever answers for its name must not take the gateway out of service";
  EXPECT_EQ(fetcher_.fetches, 1);
}

}  // namespace
}  // namespace sallyport::authn
