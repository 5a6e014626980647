// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/fakes/fake_platforms.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/proto_time.h"

namespace sallyport::testing {
namespace {

grpc::Status Refused(absl::Status status, absl::string_view reason) {
  return ToGrpcStatus(WithReason(std::move(status), reason));
}

template <typename List>
bool Has(const List& list, const std::string& one) {
  return std::find(list.begin(), list.end(), one) != list.end();
}

}  // namespace

// By the certificate, by the token, or by both if they are the same platform's.
const FakePlatforms::Platform* FakePlatforms::Find(const authn::v1::AuthenticatePlatformRequest& request) const {
  const bool certificate = !request.certificate_uris().empty() || !request.certificate_dns_names().empty();
  for (const Platform& platform : platforms_) {
    const bool named = std::any_of(request.certificate_uris().begin(), request.certificate_uris().end(),
                                   [&](const std::string& uri) { return Has(platform.uris, uri); }) ||
                       std::any_of(request.certificate_dns_names().begin(), request.certificate_dns_names().end(),
                                   [&](const std::string& name) { return Has(platform.dns_names, name); });
    const bool by_token =
        request.service_account_token().empty() || Has(platform.tokens, request.service_account_token());
    if (certificate ? named && by_token : by_token && !request.service_account_token().empty()) return &platform;
  }
  return nullptr;
}

grpc::Status FakePlatforms::AuthenticatePlatform(grpc::ServerContext* /*context*/,
                                                 const authn::v1::AuthenticatePlatformRequest* request,
                                                 authn::v1::AuthenticatePlatformResponse* response) {
  gate.Pass();
  MutexLock lock(mu_);
  ++calls_;
  if (down_) return {grpc::StatusCode::UNAVAILABLE, "down"};
  const Platform* platform = Find(*request);
  if (platform == nullptr) return Refused(absl::UnauthenticatedError("no such platform"), "platform_unknown");
  Passport passport;
  if (request->has_subject_token()) {
    const std::vector<std::string> parts = absl::StrSplit(request->subject_token(), '.');
    if (parts.size() != 3 || parts[0] != "token") {
      return Refused(absl::UnauthenticatedError("the signature is wrong"), "subject_token_invalid");
    }
    passport.subject = absl::StrCat("corp:", parts[1]);
    passport.session_id = absl::StrCat("session-", parts[1]);
  } else {
    passport.subject = request->subject();
  }
  const bool granted = (request->has_subject_token() || platform->without_user) && !Has(refused_, passport.subject);
  if (!granted) return Refused(absl::PermissionDeniedError("no grant covers this user"), "platform_not_granted");
  response->set_platform(platform->id);
  passport.purpose = Passport::Purpose::kPlatform;
  passport.actor = platform->id;
  passport.apps = platform->apps;
  response->set_passport(authn_.Sign(passport));
  response->mutable_principal()->set_subject(passport.subject);
  response->set_session_id(passport.session_id);
  *response->mutable_valid_until() = ToTimestamp(clock_.Now() + platform->valid_for);
  response->mutable_apps()->Assign(platform->apps.begin(), platform->apps.end());
  response->set_rate_limit(platform->rate_limit);
  response->set_rate_burst(platform->rate_burst);
  response->mutable_return_origins()->Assign(platform->return_origins.begin(), platform->return_origins.end());
  if (twist_ != nullptr) twist_(*response);
  return grpc::Status::OK;
}

void FakePlatforms::Put(const Platform& platform) {
  MutexLock lock(mu_);
  std::erase_if(platforms_, [&](const Platform& other) { return other.id == platform.id; });
  platforms_.push_back(platform);
}
void FakePlatforms::Refuse(const std::string& subject) {
  MutexLock lock(mu_);
  refused_.push_back(subject);
}
void FakePlatforms::SetDown(bool down) {
  MutexLock lock(mu_);
  down_ = down;
}
void FakePlatforms::SetTwist(std::function<void(authn::v1::AuthenticatePlatformResponse&)> twist) {
  MutexLock lock(mu_);
  twist_ = std::move(twist);
}
int FakePlatforms::calls() const {
  MutexLock lock(mu_);
  return calls_;
}

}  // namespace sallyport::testing
