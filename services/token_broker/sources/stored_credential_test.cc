// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/stored_credential.h"

#include <future>

#include "common/error.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

class StoredCredentialTest : public testing::BrokerTestBase {
 protected:
  StoredCredentialTest() : BrokerTestBase(clock_for_all_) {
    registry::v1::McpServer* server = AddServer("srv_s", "stored");
    server->mutable_agent_auth()->mutable_passthrough();
    server->mutable_app_auth()->mutable_passthrough();
    header_ = server->add_outbound_headers();
    header_->set_name("X-Key");
    header_->mutable_stored_credential()->set_credential_uid("crd_1");
    peers_.registry.Change([this](auto& snapshot) { credential_ = snapshot.add_credentials(); });
    credential_->set_uid("crd_1");
    credential_->set_slug("key");
    credential_->set_kind(registry::v1::Credential::API_KEY);
    credential_->add_allowed_upstream_origins(kOrigin);
    Enter("v4lue", {kOrigin});
  }
  void Enter(const std::string& value, const std::vector<std::string>& origins) {
    PutSecret("credential", "crd_1/value", value, origins);
    credential_->mutable_value()->set_set(true);
    credential_->mutable_value()->set_version(credential_->value().version() + 1);
    credential_->mutable_value()->set_vault_record("crd_1/value");
  }
  std::string Value() {
    if (brokers_.empty()) StartBroker();
    v1::ResolveCredentialsRequest request;
    request.set_server_uid("srv_s");
    const auto response = Resolve(*brokers_.back(), request, "");
    if (!response.ok()) return ReasonOf(response.status());
    return response->pieces_size() == 1 ? response->pieces(0).value() : "?";
  }

  FakeClock clock_for_all_{absl::Now()};
  registry::v1::OutboundHeader* header_;
  registry::v1::Credential* credential_ = nullptr;
};

TEST_F(StoredCredentialTest, GoesOutAsItIs) { EXPECT_EQ(Value(), "v4lue"); }

TEST_F(StoredCredentialTest, GoesOutWithItsPrefix) {
  header_->set_prefix("Token ");
  EXPECT_EQ(Value(), "Token v4lue");
}

TEST_F(StoredCredentialTest, GoesOutWithItsUserName) {
  credential_->set_username("Aladdin");
  Enter("open sesame", {kOrigin});
  header_->mutable_stored_credential()->set_form(registry::v1::OutboundHeader::StoredCredential::BASIC);
  EXPECT_EQ(Value(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");  // RFC 7617 section 2.
}

TEST_F(StoredCredentialTest, WithoutItsUserNameNothingGoesOut) {
  header_->mutable_stored_credential()->set_form(registry::v1::OutboundHeader::StoredCredential::BASIC);
  EXPECT_EQ(Value(), "credential_missing");
}

TEST_F(StoredCredentialTest, OfAnotherOwnerTakesNobodysPlace) {
  credential_->set_owner(registry::v1::Credential::USER);
  EXPECT_EQ(Value(), "credential_missing");
}

TEST_F(StoredCredentialTest, ThatIsGoneOrEmptyIsMissing) {
  credential_->clear_value();
  EXPECT_EQ(Value(), "credential_missing");
  brokers_.clear();
  header_->mutable_stored_credential()->set_credential_uid("crd_2");
  EXPECT_EQ(Value(), "credential_missing");
}

TEST_F(StoredCredentialTest, GoesOnlyWhereItsConfigurationAndItsSealSay) {
  credential_->set_allowed_upstream_origins(0, "https://other.example.com");
  EXPECT_EQ(Value(), "origin_not_allowed");
  brokers_.clear();
  credential_->set_allowed_upstream_origins(0, kOrigin);
  Enter("v4lue", {"https://other.example.com"});
  EXPECT_EQ(Value(), "origin_not_allowed") << "whatever the configuration says";
}

// The edge has heard of a change that has not come here yet.
TEST_F(StoredCredentialTest, ABrokerThatIsBehindWaitsForTheCredential) {
  StartBroker();
  v1::ResolveCredentialsRequest request;
  request.set_server_uid("srv_s");
  request.set_credentials_revision(1'000'000);
  auto answer = std::async(std::launch::async, [&] { return Resolve(*brokers_.back(), request, ""); });
  while (answer.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready)
    clock_for_all_.Advance(absl::Seconds(1));
  const auto response = answer.get();
  EXPECT_THAT(response, StatusIs(Code::kUnavailable));
  EXPECT_EQ(ReasonOf(response.status()), "config_behind");
}

}  // namespace
}  // namespace sallyport::token_broker
