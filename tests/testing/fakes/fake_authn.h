// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/jose/jwk.h"
#include "common/mutex.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "tests/testing/fakes/gate.h"

namespace sallyport::testing {

// Authn as its peers see it; tests/contract holds it to the real one. Token "ours-<name>" is a token of sallyport's,
// "idp-<name>" the identity provider's own, and both are of subject "okta:<name>"; others are refused. The name
// "stranger" is known and not admitted. Passports that Authenticate and GetPassport give are "passport-<name>"; Sign
// makes real ones. Thread-safe.
class FakeAuthn : public authn::v1::Authn::Service {
 public:
  // `issuer` is the public URL.
  explicit FakeAuthn(const Clock& clock, std::string issuer = "https://gw.example.com");

  // A passport that verifies with the keys of GetKeys; the other: `subject`'s, with roles one of purpose api.
  std::string Sign(const Passport& passport) const;
  std::string SignFor(const std::string& subject, const std::vector<std::string>& roles = {}) const;

  grpc::Status Authenticate(grpc::ServerContext* context, const authn::v1::AuthenticateRequest* request,
                            authn::v1::AuthenticateResponse* response) override;
  // For the cookie "session=ada" and the API token "api-ada".
  grpc::Status GetPassport(grpc::ServerContext* context, const authn::v1::GetPassportRequest* request,
                           authn::v1::GetPassportResponse* response) override;
  grpc::Status GetKeys(grpc::ServerContext* context, const authn::v1::GetKeysRequest* request,
                       authn::v1::GetKeysResponse* response) override;
  grpc::Status GetEdgeKeys(grpc::ServerContext* context, const authn::v1::GetEdgeKeysRequest* request,
                           authn::v1::GetEdgeKeysResponse* response) override;
  grpc::Status GetConnector(grpc::ServerContext* context, const authn::v1::GetConnectorRequest* request,
                            authn::v1::Connector* response) override;
  // Connector "users", of local accounts.
  grpc::Status ListConnectors(grpc::ServerContext* context, const authn::v1::ListConnectorsRequest* request,
                              authn::v1::ListConnectorsResponse* response) override;
  // Gives the client's address back in place of a token.
  grpc::Status RedeemAdminToken(grpc::ServerContext* context, const authn::v1::RedeemAdminTokenRequest* request,
                                authn::v1::RedeemAdminTokenResponse* response) override;
  // Local accounts have no tokens that could end.
  grpc::Status EndSignIn(grpc::ServerContext* context, const authn::v1::EndSignInRequest* request,
                         authn::v1::EndSignInResponse* response) override;

  // What Authenticate answers from now on.
  void SetStatus(const grpc::Status& status);
  void SetTokenLife(absl::Duration life);
  // What EndSignIn answers from now on.
  void SetEndSignIn(absl::Status status);
  // Subjects whose sign-in has ended.
  std::vector<std::string> ended() const;
  // Of Authenticate.
  int calls() const;
  std::vector<authn::v1::GetPassportRequest> passport_requests() const;

  // Before Authenticate.
  Gate gate;
  // What GetConnector answers. Set before the first call.
  authn::v1::Connector connector;

 private:
  const Clock& clock_;
  const std::string issuer_;
  const PrivateKey key_;
  mutable Mutex mu_;
  std::vector<authn::v1::GetPassportRequest> passport_requests_ ABSL_GUARDED_BY(mu_);
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  absl::Duration token_life_ ABSL_GUARDED_BY(mu_) = absl::Hours(1);
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status end_sign_in_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> ended_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::testing
