// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/metrics.h"
#include "common/text/base64url.h"
#include "services/authn/authn_testing.h"
#include "services/authn/platforms/platform_callers.h"
#include "services/authn/platforms/platform_config.h"
#include "services/authn/platforms/platforms_testing.h"
#include "services/authn/sessions.h"
#include "tests/testing/status_matchers.h"

// Two platforms, an identity provider, a cluster, and everything authn asks about them.
namespace sallyport::authn::platforms {

inline constexpr char kUrl[] = "https://gw.example";
inline constexpr char kIssuer[] = "https://idp.example";
inline constexpr char kChatUri[] = "spiffe://example.org/ns/chat/sa/bot";
inline constexpr char kNightUri[] = "spiffe://example.org/ns/night/sa/batch";

inline registry::v1::McpServer MakeServer() {
  registry::v1::McpServer server;
  server.set_uid("srv_inter");
  server.set_slug("inter");
  server.set_version(1);
  server.mutable_agent_auth()->mutable_interactive()->mutable_allow()->add_groups("team");
  return server;
}

class PlatformCallersTest : public ::testing::Test {
 protected:
  PlatformCallersTest()
      : idp_(kIssuer),
        jwks_(fetcher_),
        database_(OpenTestDatabase(directory_, clock_)),
        keys_(vault_, absl::Hours(1)),
        tokens_(kUrl, keys_, absl::Hours(1)),
        passports_(kUrl, keys_),
        names_(TwoConnectors()),
        roles_(AdminRoles(), names_),
        stream_(grpc::CreateChannel("unix:///dev/null/none", grpc::InsecureChannelCredentials()), clock_),
        servers_(stream_, roles_, names_),
        audit_(*database_, clock_),
        sessions_(*database_, absl::Hours(12)),
        grants_(*database_),
        revocations_(*database_, nullptr),
        verifier_(kUrl, OwnKeySource(keys_)) {
    EXPECT_THAT(keys_.Refresh(clock_.Now()), ::sallyport::testing::IsOk());
    EXPECT_THAT(WriteFileAtomic(directory_.path() + "/jwks", idp_.Jwks()), ::sallyport::testing::IsOk());
    EXPECT_THAT(WriteFileAtomic(directory_.path() + "/cluster", cluster_.Jwks()), ::sallyport::testing::IsOk());
    EXPECT_THAT(stream_.Seed(SnapshotOf({MakeServer()})), ::sallyport::testing::IsOk());
    *config_.mutable_connectors() = TwoConnectors();
    config_.mutable_connectors(0)->mutable_oidc()->set_jwks_file(directory_.path() + "/jwks");
    *config_.add_kubernetes() = cluster_.Config("main");
    config_.mutable_kubernetes(0)->set_jwks_file(directory_.path() + "/cluster");
    AddChat();
    AddNight();
  }

  static google::protobuf::RepeatedPtrField<config::v1::Connector> TwoConnectors() {
    google::protobuf::RepeatedPtrField<config::v1::Connector> connectors;
    auto& corp = *connectors.Add();
    corp.set_id("corp");
    corp.mutable_oidc()->set_issuer(kIssuer);
    auto& local = *connectors.Add();
    local.set_id("local");
    static const std::string password = HashPassword(Secret(std::string("pw")));
    auto& bob = *local.mutable_local()->add_users();
    bob.set_username("bob");
    bob.set_password_hash(password);
    return connectors;
  }
  static config::v1::AuthnConfig::Roles AdminRoles() {
    config::v1::AuthnConfig::Roles roles;
    roles.add_admin_groups("admins");
    return roles;
  }
  // For users who are there.
  void AddChat() {
    auto& chat = *config_.add_platforms();
    chat.set_id("chat");
    chat.add_certificate_uris(kChatUri);
    chat.add_certificate_dns_names("chat.example.com");
    chat.add_service_accounts("main:chat/bot");
    chat.add_subject_token_audiences("api://chat");
    chat.set_rate_limit(2.5);
    chat.add_return_origins("https://chat.example.com");
    auto& team = *chat.add_grants();
    team.add_apps("mail");
    team.add_apps("calendar");
    team.add_groups("team");
    auto& one = *chat.add_grants();
    one.add_apps("code");
    one.add_users("corp:ann");
    auto& admins = *chat.add_grants();
    admins.add_apps("*");
    admins.add_groups("admins");
  }
  // For users who are not.
  void AddNight() {
    auto& night = *config_.add_platforms();
    night.set_id("night");
    night.add_certificate_uris(kNightUri);
    auto& named = *night.add_grants();
    named.add_apps("mail");
    named.add_users("corp:ann");
    named.add_users("local:bob");
    named.add_users("local:gone");
    named.set_without_user(true);
  }

  void Make() {
    ASSERT_THAT(ValidatePlatforms(config_), ::sallyport::testing::IsOk());
    connectors_ = *Connectors::Create(config_.connectors(), jwks_, vault_);
    authenticator_ = std::make_unique<Authenticator>(
        Authenticator::Parts{servers_, *connectors_, jwks_, tokens_, grants_, revocations_, roles_, passports_});
    auto made =
        PlatformCallers::Create(config_, LoopbackAllowed(),
                                {{*authenticator_, tokens_, servers_, *connectors_, revocations_}, passports_, audit_});
    ASSERT_THAT(made, ::sallyport::testing::IsOk());
    callers_ = *std::move(made);
  }

  static v1::AuthenticatePlatformRequest ByCertificate(const std::string& uri) {
    v1::AuthenticatePlatformRequest request;
    request.add_certificate_uris(uri);
    return request;
  }
  static v1::AuthenticatePlatformRequest ByAccount(const std::string& token) {
    v1::AuthenticatePlatformRequest request;
    request.set_service_account_token(token);
    return request;
  }
  static v1::AuthenticatePlatformRequest For(v1::AuthenticatePlatformRequest request, const std::string& token) {
    request.set_subject_token(token);
    return request;
  }
  static v1::AuthenticatePlatformRequest Naming(v1::AuthenticatePlatformRequest request, const std::string& subject) {
    request.set_subject(subject);
    return request;
  }
  absl::StatusOr<v1::AuthenticatePlatformResponse> Call(const v1::AuthenticatePlatformRequest& request) {
    return callers_->Authenticate(request, clock_.Now());
  }
  // A token of Ann's that the identity provider issued for the chat.
  std::string AnnsToken(const nlohmann::json& change = nlohmann::json::object(), absl::string_view typ = "at+jwt") {
    nlohmann::json claims = {{"aud", "api://chat"}};
    claims.update(change);
    return idp_.Token(clock_.Now(), claims, typ);
  }
  // What was wrong, as the caller reads it.
  std::string Said(const v1::AuthenticatePlatformRequest& request) {
    const absl::Status status = Call(request).status();
    return absl::StrCat(ReasonOf(status), " | ", status.message());
  }

  // A token of ours, and its grant.
  std::string OurToken(Grant* out = nullptr) {
    Identity ann;
    ann.subject = "corp:ann";
    ann.connector = "corp";
    ann.issuer = kIssuer;
    ann.email = "ann@x.example";
    ann.groups = {"team"};
    const std::string verifier(43, 'v');
    CodeBinding binding;
    binding.client_id = "client";
    binding.redirect_uri = "http://127.0.0.1/cb";
    binding.code_challenge = Base64UrlEncode(Sha256(verifier));
    binding.resource = tokens_.McpAudience("inter");
    binding.server_uid = "srv_inter";
    binding.scope = "mcp";
    binding.session_id = sessions_.Create(ann, "", clock_.Now())->session.id;
    auto code = grants_.IssueCode(ann, binding, "", clock_.Now());
    EXPECT_THAT(code, ::sallyport::testing::IsOk());
    Grants::Redemption redemption;
    redemption.client_id = "client";
    redemption.redirect_uri = binding.redirect_uri;
    redemption.code_verifier = verifier;
    std::string revoked;
    auto redeemed = grants_.RedeemCode(code->Expose(), redemption, true, clock_.Now(), &revoked);
    EXPECT_THAT(redeemed, ::sallyport::testing::IsOk());
    if (out != nullptr) {
      *out = redeemed->grant;
    }
    return tokens_.MintMcp({"corp:ann", "client", redeemed->grant.id, "inter", "srv_inter"}, clock_.Now())->token;
  }
  std::vector<audit::v1::Event> Events() {
    std::vector<audit::v1::Event> events;
    AuditOutbox outbox(*database_, clock_, {.source = "authn"});
    while (true) {
      const auto shipped = outbox.ShipOnce([&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
        events.insert(events.end(), batch.events().begin(), batch.events().end());
        return batch.events(batch.events_size() - 1).sequence();
      });
      if (!shipped.ok() || *shipped == 0) {
        return events;
      }
    }
  }
  static double Count(const std::string& platform, const std::string& outcome) {
    return MetricCounter("sallyport_authn_platform_requests_total", "", {{"platform", platform}, {"outcome", outcome}})
        .Value();
  }

  FakeClock clock_;
  TempDirectory directory_;
  TestIssuer idp_;
  TestCluster cluster_;
  FakeFetcher fetcher_;
  JwksCache jwks_;
  FakeVaultClient vault_;
  std::unique_ptr<Database> database_;
  SigningKeys keys_;
  AccessTokens tokens_;
  Passports passports_;
  GroupNames names_;
  RolePolicy roles_;
  ControlStream stream_;
  Servers servers_;
  Audit audit_;
  Sessions sessions_;
  Grants grants_;
  Revocations revocations_;
  PassportVerifier verifier_;
  config::v1::AuthnConfig config_;
  std::unique_ptr<Connectors> connectors_;
  std::unique_ptr<Authenticator> authenticator_;
  std::unique_ptr<PlatformCallers> callers_;
};

}  // namespace sallyport::authn::platforms
