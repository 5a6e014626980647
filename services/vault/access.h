// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "common/caller/caller.h"
#include "services/vault/record_id.h"

namespace sallyport::vault {

enum class Operation { kGet, kPut, kDelete, kList, kPin, kLease, kRebind, kCount };

// Name in the audit: "get", "put", …
const char* OperationName(Operation operation);

// May `caller` do this to this record? Deny by default, by calling service and kind. Records of a USER additionally
// need a passport whose subject is the owner; Put of a binding one of purpose api with the role admin, any Rebind one
// with the role credential-admin, and counting users one with either. PERMISSION_DENIED, reason caller_not_allowed,
// passport_required, passport_mismatch or role_missing.
absl::Status CheckAccess(const Caller& caller, Operation operation, const RecordId& id);

// The part of CheckAccess without the passport: for a lease, which alone authorises, for a lease for maintenance, which
// the record's own time does, and for listings across owners.
absl::Status CheckKind(const Caller& caller, Operation operation, const RecordId& id);
// `owner_type` "any": whoever's they are.
bool MayListKind(const Caller& caller, const std::string& owner_type, const std::string& kind);

// Whole-owner operations exist for users only. They need the owner's passport, or one of purpose api with the role
// admin.
absl::Status CheckListOwner(const Caller& caller, const Owner& owner);
absl::Status CheckDeleteOwner(const Caller& caller, const Owner& owner);
// The root of an owner's cache keys: a user's with their own passport, the organization's by the broker's identity.
absl::Status CheckCacheRoots(const Owner& owner, const Caller& caller);

// Method tables of the two gRPC services, for CallGuard.
std::map<std::string, MethodTable> VaultMethodTables();

}  // namespace sallyport::vault
