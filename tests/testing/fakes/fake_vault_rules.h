// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/status_macros.h"
#include "sallyport/vault/v1/vault.pb.h"

// What is well-formed, and how the vault says no: for the files of FakeVault.
namespace sallyport::testing::vault_rules {

using google::protobuf::RepeatedPtrField;
using vault::v1::RecordName;

inline constexpr absl::Duration kDefaultTtl = absl::Seconds(30);
inline constexpr absl::Duration kAskAgain = absl::Milliseconds(200);
inline constexpr absl::Duration kFlowGrace = absl::Hours(1);
inline constexpr absl::Duration kEndedLeaseKept = absl::Hours(1);
inline constexpr absl::Duration kOpenLeaseKept = absl::Hours(24 * 30);
inline constexpr size_t kSidesKept = 8;
inline constexpr int kMaxOrigins = 64;
inline constexpr int kMaxAdopted = 200;
inline constexpr absl::Duration kUseNoted = absl::Hours(24);
inline constexpr absl::Duration kDamagedPutOff = absl::Hours(24);
inline constexpr absl::Duration kMaxClaim = absl::Minutes(5);
inline constexpr int64_t kMaxDueCounted = 100'000;
// How long ListDue tells nobody of a revocation that whoever owed it asks for next.
inline constexpr absl::Duration kAwaited = absl::Seconds(10);
// How long after a lease has lapsed its answer may be on its way.
inline constexpr absl::Duration kLate = absl::Minutes(2);
// Connections that one OweRevocation ends.
inline constexpr size_t kOwedPart = 50;

struct KindRule {
  const char* kind;
  vault::v1::OwnerType owner_type;
  const char* owner_id;  // Null: any.
};
inline constexpr KindRule kKinds[] = {
    {"connection", vault::v1::USER, nullptr},          {"credential", vault::v1::USER, nullptr},
    {"link_flow", vault::v1::SYSTEM, "token_broker"},  {"broker_key", vault::v1::SYSTEM, "token_broker"},
    {"server_secret", vault::v1::ORG, "default"},      {"app_secret", vault::v1::ORG, "default"},
    {"credential", vault::v1::ORG, "default"},         {"server_binding", vault::v1::ORG, "default"},
    {"app_binding", vault::v1::ORG, "default"},        {"connector_secret", vault::v1::SYSTEM, "authn"},
    {"signing_key", vault::v1::SYSTEM, "authn"},       {"session_key", vault::v1::SYSTEM, "authn"},
    {"revocation", vault::v1::SYSTEM, "token_broker"},
};

inline const std::map<std::string, std::set<std::string>> kCallers = {
    {"Put", {"token_broker", "authn", "registry"}},
    {"Get", {"token_broker", "authn"}},
    {"List", {"token_broker", "authn", "registry"}},
    {"Delete", {"token_broker", "authn", "registry"}},
    {"Pin", {"registry"}},
    {"Rebind", {"registry"}},
    {"Adopt", {"registry"}},
    {"AcquireLease", {"token_broker"}},
    {"Release", {"token_broker"}},
    {"PutStatus", {"token_broker"}},
    {"ListDue", {"token_broker"}},
    {"OweRevocation", {"token_broker"}},
    {"Rename", {"token_broker"}},
    {"DeleteOwner", {"token_broker", "authn"}},
    {"GetCacheRoots", {"token_broker"}},
    {"CountUsers", {"registry"}},
};

inline absl::Status NotFound() { return absl::NotFoundError("no such record or version"); }
inline absl::Status Aborted(absl::string_view message, absl::string_view reason) {
  return WithReason(absl::AbortedError(message), reason);
}
inline absl::Status Denied(absl::string_view message, absl::string_view reason) {
  return WithReason(absl::PermissionDeniedError(message), reason);
}
inline absl::Status VersionConflict() { return Aborted("expected_version is not the head", "version_conflict"); }
inline absl::Status LeaseUnknown() { return Aborted("no such lease on this record", "lease_unknown"); }
inline absl::Status TagMismatch() {
  return WithReason(absl::DataLossError("the record does not open under its own identity"), "tag_mismatch");
}
inline absl::Status PassportRequired() { return Denied("records of a user need a passport", "passport_required"); }
inline absl::Status ForSomethingElse() {
  return Denied("the passport was made for something else", "passport_mismatch");
}
inline absl::Status ServiceMayNot() { return Denied("this service may not do this", "caller_not_allowed"); }

inline bool NeedsUser(const std::string& state) { return state == "NEEDS_REAUTH" || state == "NEEDS_INTERACTION"; }
inline bool IsBinding(const std::string& kind) { return kind == "server_binding" || kind == "app_binding"; }
inline bool IsSent(const std::string& kind) {
  return kind == "server_secret" || kind == "app_secret" || kind == "credential" || kind == "connector_secret";
}
inline size_t VersionsKept(const RecordName& name) {
  if (name.kind() == "credential" && name.owner_type() == vault::v1::USER) return 1;
  return IsBinding(name.kind()) ? 0 : name.kind() == "connection" ? 2 : 10;
}
inline std::string AppOf(const RecordName& connection) {
  return connection.name().substr(0, connection.name().find('/'));
}
inline std::string AccountOf(const RecordName& connection) {
  const size_t slash = connection.name().find('/');
  return slash == std::string::npos ? "" : connection.name().substr(slash + 1);
}
// What a platform acts with, of a user's records.
inline bool IsPlatforms(const RecordName& name) {
  return name.kind() == "connection" && !name.name().starts_with("sso:");
}
inline std::string KeyOf(const RecordName& name) {
  return absl::StrCat(name.owner_type(), "\n", name.owner_id(), "\n", name.kind(), "\n", name.name());
}

inline absl::Status CheckOwnerName(vault::v1::OwnerType type, const std::string& id) {
  if (id.empty()) return InvalidField("owner_id", "is required");
  const bool known = type == vault::v1::USER || type == vault::v1::ORG || type == vault::v1::SYSTEM;
  return known ? absl::OkStatus() : InvalidField("owner_type", "must be USER, ORG or SYSTEM");
}
inline absl::Status CheckName(const RecordName& name) {
  RETURN_IF_ERROR(CheckOwnerName(name.owner_type(), name.owner_id()));
  if (name.name().empty()) return InvalidField("record.name", "is required");
  const bool fits = std::any_of(std::begin(kKinds), std::end(kKinds), [&](const KindRule& rule) {
    return name.kind() == rule.kind && name.owner_type() == rule.owner_type &&
           (rule.owner_id == nullptr || name.owner_id() == rule.owner_id);
  });
  return fits ? absl::OkStatus() : InvalidField("record.kind", "is unknown or does not belong to this owner");
}
inline absl::Status CheckOrigins(const RepeatedPtrField<std::string>& origins) {
  if (origins.size() > kMaxOrigins) return InvalidField("origins", "are more than 64");
  for (const std::string& origin : origins) {
    const auto url = Url::Parse(origin);
    if (!url.ok() || url->origin() != origin) return InvalidField("origins", "must be origins");
  }
  return absl::OkStatus();
}
inline absl::Status CheckState(const std::string& state) {
  const bool fits = std::all_of(state.begin(), state.end(), [](char c) { return (c >= 'A' && c <= 'Z') || c == '_'; });
  return fits ? absl::OkStatus() : InvalidField("state", "must be upper case letters and '_'");
}
inline absl::Status CheckPut(const vault::v1::PutRequest& request) {
  RETURN_IF_ERROR(CheckName(request.record()));
  if (request.has_compare_version() && !request.only_if_changed()) {
    return InvalidField("compare_version", "needs only_if_changed");
  }
  if (!request.lease().empty() &&
      (request.has_expected_version() || request.keep_generation() || request.only_if_changed() || request.pin())) {
    return InvalidField("lease", "cannot be combined with what a Put without a lease takes");
  }
  if (request.owe_if_linked_again() && request.lease().empty()) {
    return InvalidField("owe_if_linked_again", "needs a lease");
  }
  RETURN_IF_ERROR(CheckOrigins(request.origins()));
  return CheckState(request.state());
}
inline bool IsPartial(const vault::v1::DeleteRequest& request) {
  return request.has_through_version() || !request.labels().empty();
}

}  // namespace sallyport::testing::vault_rules
