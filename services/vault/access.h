// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "common/caller/caller.h"
#include "services/vault/record_id.h"

namespace sallyport::vault {

enum class Operation { kGet, kPut, kDelete, kList, kPin, kLease };

// Name in the audit: "get", "put", …
const char* OperationName(Operation operation);

// May `caller` do this to this record? Deny by default, by calling service and kind; records of a USER additionally
// need a passport whose subject is the owner, or (token_broker only) a maintenance passport that names the record.
// PERMISSION_DENIED, reason caller_not_allowed, passport_required or passport_mismatch.
absl::Status CheckAccess(const Caller& caller, Operation operation, const RecordId& id);

// The part of CheckAccess without the passport: for a lease, which alone authorises, and for listings across owners.
absl::Status CheckKind(const Caller& caller, Operation operation, const RecordId& id);
bool MayListKind(const Caller& caller, const std::string& kind);

// Whole-owner operations exist for users only. Listing needs the owner's passport; deleting that or one with the role
// admin.
absl::Status CheckListOwner(const Caller& caller, const Owner& owner);
absl::Status CheckDeleteOwner(const Caller& caller, const Owner& owner);

// Method tables of the two gRPC services, for CallGuard.
std::map<std::string, MethodTable> VaultMethodTables();

}  // namespace sallyport::vault
