// SPDX-License-Identifier: Apache-2.0
// What goes out, and what is said instead, for every kind of credential in every kind of trouble: the table of
// docs/app-authentication.md. No cell may hold another credential than its row's.
#include <array>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/token_broker/testing/client_test_base.h"

namespace sallyport::token_broker {
namespace {

constexpr char kUid[] = "srv_t";
constexpr char kMovedUrl[] = "https://moved.example.com";

// Kinds of credentials, as a person who configures calls them.
constexpr std::array<const char*, 11> kTypes = {
    "api key", "bearer",        "basic",        "literal header",    "client credentials", "service token",
    "OAuth",   "forward token", "on behalf of", "stored credential", "own credential"};

// One trouble, and the outcome for each kind: the value that goes out, "! <reason>" (a status without one: its code),
// or "link <reason>".
struct Row {
  const char* trouble;
  std::array<const char*, kTypes.size()> outcomes;
};
constexpr Row kRows[] = {
    // Nothing has gone wrong.
    {"first",
     {"s3cret", "Bearer s3cret", "Basic dTpzM2NyZXQ=", "s3cret", "Bearer client_credentials-1", "client_credentials-1",
      "Bearer at0-of-corp:ada", "at0-of-corp:ada", "token-exchange-1", "s3cret", "s3cret"}},
    // The same call a second time.
    {"again",
     {"s3cret", "Bearer s3cret", "Basic dTpzM2NyZXQ=", "s3cret", "Bearer client_credentials-1", "client_credentials-1",
      "Bearer at0-of-corp:ada", "at0-of-corp:ada", "token-exchange-1", "s3cret", "s3cret"}},
    // The same a day later.
    {"ended",
     {"s3cret", "Bearer s3cret", "Basic dTpzM2NyZXQ=", "s3cret", "Bearer client_credentials-2", "client_credentials-2",
      "Bearer refresh_token-1", "refresh_token-1", "token-exchange-3", "s3cret", "s3cret"}},
    // The upstream refused what the call before went out with.
    {"refused",
     {"! credential_refused", "! credential_refused", "! credential_refused", "! credential_refused",
      "Bearer client_credentials-2", "client_credentials-2", "Bearer refresh_token-1", "refresh_token-1",
      "token-exchange-2", "! credential_refused", "link NEEDS_REAUTH"}},
    // And what it went out with then.
    {"refused twice",
     {"! credential_refused", "! credential_refused", "! credential_refused", "! credential_refused",
      "! credential_refused", "! credential_refused", "! renewed_token_refused", "! no_caller_token",
      "! credential_refused", "! credential_refused", "link NEEDS_REAUTH"}},
    // At the first call, or when what there was has ended.
    {"provider down",
     {"s3cret", "Bearer s3cret", "Basic dTpzM2NyZXQ=", "s3cret", "! provider_unavailable", "! provider_unavailable",
      "! provider_unavailable", "! provider_unavailable", "! provider_unavailable", "s3cret", "s3cret"}},
    // The same.
    {"provider says no",
     {"s3cret", "Bearer s3cret", "Basic dTpzM2NyZXQ=", "s3cret", "! token_refused", "! token_refused",
      "link NEEDS_REAUTH", "! sign_in_ended", "! token_refused", "s3cret", "s3cret"}},
    // The same: the person has to agree there first, or to prove more.
    {"provider wants the person",
     {"s3cret", "Bearer s3cret", "Basic dTpzM2NyZXQ=", "s3cret", "! interaction_required", "! interaction_required",
      "link NEEDS_REAUTH", "! sign_in_ended", "link NEEDS_CONSENT", "s3cret", "s3cret"}},
    // Nothing is stored: of the organization, of the account, of the sign-in.
    {"missing",
     {"! credential_missing", "! credential_missing", "! credential_missing", "! credential_missing",
      "! credential_missing", "! credential_missing", "link NOT_LINKED", "! sign_in_ended", "! sign_in_ended",
      "! credential_missing", "link NOT_LINKED"}},
    // At the first call.
    {"vault down",
     {"! UNAVAILABLE", "! UNAVAILABLE", "! UNAVAILABLE", "! UNAVAILABLE", "! UNAVAILABLE", "! UNAVAILABLE",
      "! UNAVAILABLE", "! UNAVAILABLE", "! UNAVAILABLE", "! UNAVAILABLE", "! UNAVAILABLE"}},
    // At the second. What the edge keeps goes on besides.
    {"vault down, known",
     {"s3cret", "Bearer s3cret", "Basic dTpzM2NyZXQ=", "s3cret", "Bearer client_credentials-1", "client_credentials-1",
      "Bearer at0-of-corp:ada", "! UNAVAILABLE", "! UNAVAILABLE", "s3cret", "! UNAVAILABLE"}},
    // The configuration was edited to send it elsewhere.
    {"moved",
     {"! origin_not_allowed", "! origin_not_allowed", "! origin_not_allowed", "! origin_not_allowed",
      "! origin_not_allowed", "! origin_not_allowed", "! origin_not_allowed", "! origin_not_allowed",
      "! origin_not_allowed", "! origin_not_allowed", "link NEEDS_REAUTH"}},
};

class FailureTableTest : public testing::ClientTestBase {
 protected:
  // One server with one credential of this kind, and what is stored for it.
  void Configure(const std::string& type, bool stored) {
    const bool user = type == "OAuth" || type == "forward token" || type == "on behalf of" || type == "own credential";
    server_ = NewServer(kUid, /*interactive=*/user);
    server_->mutable_app_auth()->mutable_passthrough();
    passport_ = user ? PassportOf("corp:ada", kUid) : "";
    peers_.authn.connector.set_token_endpoint(provider_.Url("/idp/token"));
    peers_.authn.connector.set_client_id("rp");
    if (type == "api key") {
      auto* key = server_->mutable_app_auth()->mutable_api_key();
      key->set_name("X-API-Key");
      Keep(key->mutable_value(), "app_auth.api_key.value", stored, kOrigin);
    } else if (type == "bearer") {
      Keep(server_->mutable_app_auth()->mutable_bearer()->mutable_token(), "app_auth.bearer.token", stored, kOrigin);
    } else if (type == "basic") {
      auto* basic = server_->mutable_app_auth()->mutable_basic();
      basic->set_username("u");
      Keep(basic->mutable_password(), "app_auth.basic.password", stored, kOrigin);
    } else if (type == "client credentials") {
      auto* client = server_->mutable_app_auth()->mutable_client_credentials();
      client->set_token_url(provider_.Url("/token"));
      FillClient("app_auth.client_credentials.client_secret", stored, client);
    } else if (type == "OAuth") {
      server_->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
      if (stored) PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
    } else {
      ConfigureHeader(type, stored);
    }
  }
  void ConfigureHeader(const std::string& type, bool stored) {
    registry::v1::OutboundHeader* header = server_->add_outbound_headers();
    header->set_name("X-T");
    if (type == "literal header") {
      Keep(header->mutable_literal()->mutable_secret_value(), "outbound_headers.x-t.literal.secret_value", stored,
           kOrigin);
    } else if (type == "service token") {
      auto* client = header->mutable_oauth2_service_token();
      client->set_token_url(provider_.Url("/token"));
      FillClient("outbound_headers.x-t.oauth2_service_token.client_secret", stored, client);
    } else if (type == "forward token" || type == "on behalf of") {
      if (stored) PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
      if (type == "forward token") {
        Bind(kUid, {kOrigin});
        header->mutable_forward_caller_token();
        return;
      }
      auto* exchange = header->mutable_on_behalf_of();
      exchange->set_exchange_url(provider_.Url("/token"));
      FillClient("outbound_headers.x-t.on_behalf_of.client_secret", true, exchange);
    } else {
      peers_.registry.Change([this](auto& snapshot) { credential_ = snapshot.add_credentials(); });
      credential_->set_uid("crd_t");
      credential_->set_slug("key");
      credential_->set_kind(registry::v1::Credential::API_KEY);
      credential_->add_allowed_upstream_origins(kOrigin);
      auto* uses = header->mutable_stored_credential();
      uses->set_credential_uid("crd_t");
      if (type == "own credential") {
        credential_->set_owner(registry::v1::Credential::USER);
        uses->set_match(registry::v1::OutboundHeader::StoredCredential::PER_USER);
        own_ = stored;
        return;
      }
      PutSecret("credential", stored ? "crd_t/value" : "crd_t/other", "s3cret", {kOrigin});
      Refer(credential_->mutable_value(), "crd_t/value");
    }
  }
  template <typename Client>
  void FillClient(const std::string& path, bool stored, Client* client) {
    client->set_client_id("me");
    Keep(client->mutable_client_secret(), path, stored, Url::Parse(provider_.Url("/"))->origin());
    Bind(kUid, {kOrigin});
  }
  void Keep(common::v1::Secret* secret, const std::string& path, bool stored, const std::string& origin) {
    const std::string record = absl::StrCat(kUid, "/", path);
    if (stored) PutSecret("server_secret", record, "s3cret", {origin});
    Refer(secret, record);
  }
  static void Refer(common::v1::Secret* secret, const std::string& record) {
    secret->set_set(true);
    secret->set_version(1);
    secret->set_vault_record(record);
  }
  void EnterOwn() {
    if (!own_) return;
    Passport passport;
    passport.subject = "corp:ada";
    passport.purpose = Passport::Purpose::kApi;
    v1::SetCredentialRequest request;
    request.set_credential("key");
    request.mutable_value()->set_value("s3cret");
    v1::SetCredentialResponse response;
    const auto stub = v1::TokenBroker::NewStub(brokers_.back()->InProcessChannel("edge"));
    const auto context = MakeClientContext(absl::Seconds(30), peers_.authn.Sign(passport));
    EXPECT_TRUE(stub->SetCredential(context.get(), request, &response).ok());
  }

  // One call, in short.
  std::string Call(const std::vector<v1::ResolveCredentialsRequest::RefusedPiece>& refused = {}) {
    v1::ResolveCredentialsRequest request;
    request.set_upstream_origin(moved_ ? kMovedUrl : kOrigin);
    request.mutable_refused_pieces()->Assign(refused.begin(), refused.end());
    const auto response = Ask(kUid, passport_, request);
    if (!response.ok()) {
      const std::string reason = ReasonOf(response.status());
      return absl::StrCat("! ", reason.empty() ? absl::StatusCodeToString(response.status().code()) : reason);
    }
    if (response->has_link()) return "link " + v1::LinkRequired::Reason_Name(response->link().reason());
    EXPECT_EQ(response->pieces_size(), 1);
    last_ = response->pieces(0);
    return last_.value();
  }
  std::string CallAfterRefusal() {
    v1::ResolveCredentialsRequest::RefusedPiece refused;
    refused.set_piece(last_.piece());
    refused.set_generation(last_.generation());
    refused.set_version(last_.version());
    // As the edge: it asks again only where there is something to be had anew.
    return last_.renewable() || !last_.connection().empty() ? Call({refused}) : "! credential_refused";
  }
  void Wait(absl::Duration duration) {
    clock_for_all_.Advance(duration);
    if (!passport_.empty()) passport_ = PassportOf("corp:ada", kUid);
  }
  void ProviderAnswers(int status, const std::string& body) {
    provider_.SetHandler([status, body](const testing::HttpProvider::Request&) -> testing::HttpProvider::Response {
      return {status, body, "application/json", ""};
    });
  }

  std::string Outcome(const std::string& type, const std::string& trouble) {
    Configure(type, /*stored=*/trouble != "missing");
    StartBroker();
    EnterOwn();
    if (trouble == "moved") {
      // Whoever can write the registry's database.
      moved_ = true;
      brokers_.clear();
      server_->set_upstream_url(absl::StrCat(kMovedUrl, "/mcp"));
      app_->add_allowed_upstream_origins(kMovedUrl);
      if (credential_ != nullptr) credential_->add_allowed_upstream_origins(kMovedUrl);
      StartBroker();
    }
    const bool provider_down = absl::StartsWith(trouble, "provider");
    // An account and a sign-in have something to begin with: the provider is asked when that has ended.
    if (provider_down && (type == "OAuth" || type == "forward token")) Wait(absl::Hours(2));
    if (trouble == "provider down") ProviderAnswers(503, "");
    if (trouble == "provider says no") ProviderAnswers(400, R"({"error":"invalid_grant"})");
    if (trouble == "provider wants the person") ProviderAnswers(400, R"({"error":"interaction_required"})");
    if (trouble == "vault down") peers_.vault.Fail(absl::UnavailableError("down"));
    const std::string first = Call();
    if (trouble == "again") return Call();
    if (trouble == "ended") {
      Wait(absl::Hours(24));
      return Call();
    }
    if (trouble == "refused") return CallAfterRefusal();
    if (trouble == "refused twice") {
      const std::string second = CallAfterRefusal();
      return absl::StartsWith(second, "!") || absl::StartsWith(second, "link") ? second : CallAfterRefusal();
    }
    if (trouble == "vault down, known") {
      peers_.vault.Fail(absl::UnavailableError("down"));
      return Call();
    }
    return first;
  }

  registry::v1::McpServer* server_ = nullptr;
  registry::v1::Credential* credential_ = nullptr;
  std::string passport_;
  bool own_ = false;
  bool moved_ = false;
  v1::ResolveCredentialsResponse::Piece last_;
};

class FailureTableRow : public FailureTableTest, public ::testing::WithParamInterface<std::tuple<Row, size_t>> {};

TEST_P(FailureTableRow, SaysThisAndNothingElse) {
  const auto& [row, column] = GetParam();
  EXPECT_EQ(Outcome(kTypes.at(column), row.trouble), row.outcomes.at(column))
      << row.trouble << ", " << kTypes.at(column);
}
INSTANTIATE_TEST_SUITE_P(All, FailureTableRow,
                         ::testing::Combine(::testing::ValuesIn(kRows), ::testing::Range(size_t{0}, kTypes.size())));

}  // namespace
}  // namespace sallyport::token_broker
