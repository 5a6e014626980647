// SPDX-License-Identifier: Apache-2.0
#include "common/caller/caller.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <grpc/grpc_security_constants.h>

#include "common/error.h"
#include "common/status_macros.h"
#include "sallyport/common/v1/options.pb.h"

namespace sallyport {
namespace {

absl::string_view View(const grpc::string_ref& ref) { return {ref.data(), ref.size()}; }

// What the access option asks of the passport, beside that it verifies.
absl::Status CheckAccess(common::v1::Access access, const std::optional<Passport>& passport) {
  using Purpose = Passport::Purpose;
  std::vector<absl::string_view> roles;
  switch (access) {
    case common::v1::ACCESS_ANYONE:
    case common::v1::ACCESS_PLATFORM:
    case common::v1::ACCESS_INTERNAL:
      return absl::OkStatus();
    case common::v1::ACCESS_USER:
      break;
    case common::v1::ACCESS_AUDITOR:
      roles = {"auditor", "credential-admin", "admin"};
      break;
    case common::v1::ACCESS_ADMIN:
      roles = {"admin"};
      break;
    case common::v1::ACCESS_CREDENTIAL_ADMIN:
      roles = {"credential-admin"};
      break;
    default:
      return absl::PermissionDeniedError("the method has no known access option");
  }
  if (!passport.has_value()) {
    return absl::UnauthenticatedError("sign in first: the method needs a user's passport");
  }
  if (roles.empty()) {
    const bool usable = passport->purpose == Purpose::kApi || passport->purpose == Purpose::kCall;
    return usable
               ? absl::OkStatus()
               : WithReason(absl::PermissionDeniedError("this passport was made for another purpose"), "wrong_purpose");
  }
  // A role is power over the deployment: it counts only where the user came to the API on purpose, never in the course
  // of a call.
  if (passport->purpose != Purpose::kApi) {
    return WithReason(absl::PermissionDeniedError("this passport was made for another purpose"), "wrong_purpose");
  }
  if (std::none_of(roles.begin(), roles.end(), [&](absl::string_view role) { return passport->HasRole(role); })) {
    return WithReason(absl::PermissionDeniedError(absl::StrCat("needs the role ", roles.back())), "role_missing");
  }
  return absl::OkStatus();
}

// Null if none came.
absl::StatusOr<std::optional<absl::string_view>> PassportIn(const grpc::ServerContextBase& context) {
  const auto [first, last] = context.client_metadata().equal_range(kPassportMetadata);
  if (first == last) {
    return std::optional<absl::string_view>();
  }
  if (std::next(first) != last) {
    return absl::UnauthenticatedError("more than one passport is attached");
  }
  return std::optional<absl::string_view>(View(first->second));
}

}  // namespace

absl::StatusOr<std::string> MtlsPeer::ServiceOf(const grpc::ServerContextBase& context) const {
  const auto auth = context.auth_context();
  if (auth == nullptr || !auth->IsPeerAuthenticated()) {
    return absl::UnauthenticatedError("the peer has no client certificate");
  }
  // gRPC sets peer_spiffe_id only for exactly one URI SAN of that form; both are counted, should that ever change.
  const std::vector<grpc::string_ref> ids = auth->FindPropertyValues(GRPC_PEER_SPIFFE_ID_PROPERTY_NAME);
  const std::vector<grpc::string_ref> uris = auth->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME);
  if (ids.size() != 1 || uris.size() != 1) {
    return absl::UnauthenticatedError("the peer's certificate must have exactly one URI SAN, a SPIFFE id");
  }
  absl::string_view service = View(ids[0]);
  if (!absl::ConsumePrefix(&service, absl::StrCat("spiffe://", trust_domain_, "/")) || service.empty() ||
      service.find('/') != absl::string_view::npos) {
    return absl::UnauthenticatedError(absl::StrCat("the peer is not of the trust domain ", trust_domain_));
  }
  return std::string(service);
}

absl::StatusOr<CallGuard> CallGuard::Create(const std::map<std::string, MethodTable>& tables) {
  CallGuard guard;
  for (const auto& [service_name, table] : tables) {
    const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service_name);
    if (service == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat("no service ", service_name, " is linked in"));
    }
    for (const auto& [method_name, callers] : table) {
      if (service->FindMethodByName(method_name) == nullptr) {
        return absl::FailedPreconditionError(absl::StrCat(service_name, " has no method ", method_name));
      }
    }
    for (int i = 0; i < service->method_count(); ++i) {
      const google::protobuf::MethodDescriptor& method = *service->method(i);
      const std::string full_name = absl::StrCat(service_name, "/", method.name());
      const auto entry = table.find(method.name());
      if (entry == table.end()) {
        return absl::FailedPreconditionError(absl::StrCat(full_name, " is missing from the table of callers"));
      }
      const common::v1::Access access = method.options().GetExtension(common::v1::access);
      if (!method.options().HasExtension(common::v1::access) || access == common::v1::ACCESS_UNSPECIFIED) {
        return absl::FailedPreconditionError(absl::StrCat(full_name, " declares no access option"));
      }
      guard.rules_[full_name] = Rule{entry->second, access};
    }
  }
  return guard;
}

absl::StatusOr<Caller> CallGuard::Check(absl::string_view full_method, const grpc::ServerContextBase& context,
                                        const PeerIdentity& peer, const PassportVerifier* verifier,
                                        absl::Time now) const {
  const auto rule = rules_.find(full_method);
  if (rule == rules_.end()) {
    return absl::PermissionDeniedError(absl::StrCat("no rule for ", full_method));
  }
  Caller caller;
  ASSIGN_OR_RETURN(caller.service, peer.ServiceOf(context));
  if (rule->second.services.count(caller.service) == 0) {
    return WithReason(
        absl::PermissionDeniedError(absl::StrCat("the service ", caller.service, " may not call ", full_method)),
        "service_not_allowed");
  }
  ASSIGN_OR_RETURN(const std::optional<absl::string_view> jwt, PassportIn(context));
  if (jwt.has_value()) {
    if (verifier == nullptr) {
      return absl::UnauthenticatedError("this service takes no passports");
    }
    ASSIGN_OR_RETURN(caller.passport, verifier->Verify(*jwt, now));
  }
  RETURN_IF_ERROR(CheckAccess(static_cast<common::v1::Access>(rule->second.access), caller.passport));
  return caller;
}

}  // namespace sallyport
