// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/fakes/fake_authn.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"

#include "common/caller/caller.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/rpc/client_address.h"
#include "tests/testing/fakes/passport.h"

namespace sallyport::testing {

FakeAuthn::FakeAuthn(const Clock& clock, std::string issuer)
    : clock_(clock), issuer_(std::move(issuer)), key_(*PrivateKey::GenerateP256()) {}

std::string FakeAuthn::Sign(const Passport& passport) const {
  return *SignPassport(passport, issuer_, key_, clock_.Now());
}

std::string FakeAuthn::SignFor(const std::string& subject, const std::vector<std::string>& roles) const {
  Passport passport;
  passport.subject = subject;
  passport.roles = roles;
  passport.purpose = roles.empty() ? Passport::Purpose::kCall : Passport::Purpose::kApi;
  return Sign(passport);
}

grpc::Status FakeAuthn::Authenticate(grpc::ServerContext* /*context*/, const authn::v1::AuthenticateRequest* request,
                                     authn::v1::AuthenticateResponse* response) {
  gate.Pass();
  MutexLock lock(mu_);
  ++calls_;
  if (!status_.ok()) return status_;
  const std::string& token = request->token();
  const bool ours = absl::StartsWith(token, "ours-");
  if (!ours && !absl::StartsWith(token, "idp-")) return {grpc::StatusCode::UNAUTHENTICATED, "no"};
  const std::string name = token.substr(token.find('-') + 1);
  if (name == "stranger") return {grpc::StatusCode::PERMISSION_DENIED, "not on the list"};
  authn::v1::Principal& principal = *response->mutable_principal();
  principal.set_subject("okta:" + name);
  principal.set_email(name + "@example.com");
  principal.set_token_kind(ours ? authn::v1::SALLYPORT : authn::v1::CONNECTOR_ACCESS);
  if (name == "evil") (*principal.mutable_claims())["email"] = "a\r\nX-Evil: 1";
  *principal.mutable_expires_at() = ToTimestamp(clock_.Now() + token_life_);
  response->set_passport("passport-" + name);
  response->set_session_id("session-" + name);
  response->set_rule("interactive.allow.everyone");
  *response->mutable_valid_until() = ToTimestamp(clock_.Now() + std::min(absl::Minutes(5), token_life_));
  return grpc::Status::OK;
}

grpc::Status FakeAuthn::GetPassport(grpc::ServerContext* /*context*/, const authn::v1::GetPassportRequest* request,
                                    authn::v1::GetPassportResponse* response) {
  MutexLock lock(mu_);
  passport_requests_.push_back(*request);
  if (absl::StrContains(request->cookie(), "session=ada") || request->api_token() == "api-ada") {
    response->set_passport("passport-ada");
    return grpc::Status::OK;
  }
  return {grpc::StatusCode::UNAUTHENTICATED, "no session"};
}

grpc::Status FakeAuthn::GetKeys(grpc::ServerContext* /*context*/, const authn::v1::GetKeysRequest* /*request*/,
                                authn::v1::GetKeysResponse* response) {
  response->set_jwks_json(JwkSet({key_.public_key()}).ToJson());
  return grpc::Status::OK;
}

grpc::Status FakeAuthn::GetEdgeKeys(grpc::ServerContext* /*context*/, const authn::v1::GetEdgeKeysRequest* /*request*/,
                                    authn::v1::GetEdgeKeysResponse* response) {
  response->add_session_tag_keys(std::string(32, 'k'));
  *response->mutable_refresh_after() = ToTimestamp(clock_.Now() + absl::Hours(24));
  return grpc::Status::OK;
}

grpc::Status FakeAuthn::GetConnector(grpc::ServerContext* /*context*/,
                                     const authn::v1::GetConnectorRequest* /*request*/,
                                     authn::v1::Connector* response) {
  *response = connector;
  return grpc::Status::OK;
}

grpc::Status FakeAuthn::ListConnectors(grpc::ServerContext* /*context*/,
                                       const authn::v1::ListConnectorsRequest* /*request*/,
                                       authn::v1::ListConnectorsResponse* response) {
  auto& users = *response->add_connectors();
  users.set_id("users");
  users.set_type("local");
  return grpc::Status::OK;
}

grpc::Status FakeAuthn::RedeemAdminToken(grpc::ServerContext* context,
                                         const authn::v1::RedeemAdminTokenRequest* /*request*/,
                                         authn::v1::RedeemAdminTokenResponse* response) {
  response->set_access_token(ClientAddressOf(*context));
  return grpc::Status::OK;
}

grpc::Status FakeAuthn::EndSignIn(grpc::ServerContext* context, const authn::v1::EndSignInRequest* /*request*/,
                                  authn::v1::EndSignInResponse* /*response*/) {
  const auto found = context->client_metadata().find(kPassportMetadata);
  if (found == context->client_metadata().end()) return {grpc::StatusCode::UNAUTHENTICATED, "no passport"};
  const auto passport = ReadFakePassport({found->second.data(), found->second.size()}, clock_.Now());
  if (!passport.ok()) return ToGrpcStatus(passport.status());
  MutexLock lock(mu_);
  if (!end_sign_in_.ok()) return ToGrpcStatus(end_sign_in_);
  if (absl::StartsWith(passport->subject, "local:")) {
    return ToGrpcStatus(WithReason(absl::FailedPreconditionError("no tokens"), "no_caller_token"));
  }
  ended_.push_back(passport->subject);
  return grpc::Status::OK;
}

void FakeAuthn::SetStatus(const grpc::Status& status) {
  MutexLock lock(mu_);
  status_ = status;
}
void FakeAuthn::SetTokenLife(absl::Duration life) {
  MutexLock lock(mu_);
  token_life_ = life;
}
void FakeAuthn::SetEndSignIn(absl::Status status) {
  MutexLock lock(mu_);
  end_sign_in_ = std::move(status);
}
std::vector<std::string> FakeAuthn::ended() const {
  MutexLock lock(mu_);
  return ended_;
}
int FakeAuthn::calls() const {
  MutexLock lock(mu_);
  return calls_;
}
std::vector<authn::v1::GetPassportRequest> FakeAuthn::passport_requests() const {
  MutexLock lock(mu_);
  return passport_requests_;
}

}  // namespace sallyport::testing
