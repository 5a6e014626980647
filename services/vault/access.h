// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "common/caller/caller.h"
#include "services/vault/record_id.h"

namespace sallyport::vault {

enum class Operation { kGet, kPut, kDelete, kList, kPin, kLease, kRebind, kCount, kOwe, kRename };

// Name in the audit: "get", "put", …
const char* OperationName(Operation operation);

// May `caller` do this to this record? Deny by default, by calling service and kind. Records of a USER additionally
// need a passport of the owner's; Put of a binding one of purpose api with the role admin, any Rebind one with the role
// credential-admin, and counting users one with either. PERMISSION_DENIED, reason caller_not_allowed,
// passport_required, passport_mismatch or role_missing.
//
// A passport is the owner's if they are its subject and it is of purpose call, api or link. One of purpose platform
// counts for their connections only, without those of sign-ins (sso:<connector>), and one of purpose sign_in for the
// Put of that sign-in's connection. The subject of one of purpose end is an administrator: it counts for what it names,
// in the methods that take it.
absl::Status CheckAccess(const Caller& caller, Operation operation, const RecordId& id);

// The part of CheckAccess without the passport: for a lease, which alone authorises, for a lease for maintenance, which
// the record's own time does, and for listings across owners.
absl::Status CheckKind(const Caller& caller, Operation operation, const RecordId& id);
// `owner_type` "any": whoever's they are.
bool MayListKind(const Caller& caller, const std::string& owner_type, const std::string& kind);

// Whole-owner operations exist for users only. They need the owner's passport, one of purpose api with the role admin,
// or one of purpose end that names the user. Kind "": every kind.
absl::Status CheckListOwner(const Caller& caller, const Owner& owner, const std::string& kind = "");
// Whether this record is among those that a caller who may list may see.
bool MaySee(const Caller& caller, const RecordId& id);
absl::Status CheckDeleteOwner(const Caller& caller, const Owner& owner);
// To owe the revocations of all of a user's connections, and of everybody's of an app, a passport of purpose end must
// name just these.
absl::Status CheckOweOwner(const Caller& caller, const Owner& owner);
absl::Status CheckOweApp(const Caller& caller, const std::string& app_uid);
// The root of an owner's cache keys: a user's with their own passport, the organization's by the broker's identity.
absl::Status CheckCacheRoots(const Owner& owner, const Caller& caller);

// Method tables of the two gRPC services, for CallGuard.
std::map<std::string, MethodTable> VaultMethodTables();

}  // namespace sallyport::vault
