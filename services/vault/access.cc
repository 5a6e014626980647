// SPDX-License-Identifier: Apache-2.0
#include "services/vault/access.h"

#include "absl/strings/match.h"

#include "common/status_macros.h"
#include "services/vault/errors.h"

namespace sallyport::vault {
namespace {

constexpr unsigned Bit(Operation operation) { return 1u << static_cast<unsigned>(operation); }
constexpr unsigned kOwned =
    Bit(Operation::kGet) | Bit(Operation::kPut) | Bit(Operation::kDelete) | Bit(Operation::kList);
constexpr unsigned kWriteOnly =
    Bit(Operation::kPut) | Bit(Operation::kDelete) | Bit(Operation::kList) | Bit(Operation::kPin);

struct Grant {
  const char* service;
  const char* kind;
  unsigned operations;
  const char* name_prefix;
};
constexpr Grant kGrants[] = {
    {"token_broker", "connection", kOwned | Bit(Operation::kLease), ""},
    {"token_broker", "link_flow", kOwned | Bit(Operation::kLease), ""},
    {"token_broker", "broker_key", kOwned | Bit(Operation::kLease), ""},
    {"token_broker", "server_secret", Bit(Operation::kGet), ""},
    {"token_broker", "app_secret", Bit(Operation::kGet), ""},
    {"token_broker", "credential", Bit(Operation::kGet), ""},
    {"token_broker", "connector_secret", Bit(Operation::kGet), ""},
    {"authn", "signing_key", kOwned, ""},
    {"authn", "session_key", kOwned, ""},
    {"authn", "connector_secret", kOwned, ""},
    {"authn", "connection", Bit(Operation::kPut), "sso:"},
    {"registry", "server_secret", kWriteOnly, ""},
    {"registry", "app_secret", kWriteOnly, ""},
    {"registry", "credential", kWriteOnly, ""},
};

absl::Status CheckMaintenance(const Caller& caller, Operation operation, const RecordId& id) {
  const Passport& passport = *caller.passport;
  const bool revoke = passport.purpose == Passport::Purpose::kMaintenanceRevoke;
  const bool fits =
      operation == Operation::kGet || operation == Operation::kLease || (revoke && operation == Operation::kDelete);
  if (caller.service != "token_broker" || !fits || passport.record != PassportRecord(id)) {
    return error::Denied("the maintenance passport is not for this", "passport_mismatch");
  }
  return absl::OkStatus();
}

bool IsMaintenance(const Passport& passport) {
  return passport.purpose == Passport::Purpose::kMaintenanceRefresh ||
         passport.purpose == Passport::Purpose::kMaintenanceRevoke;
}

}  // namespace

const char* OperationName(Operation operation) {
  switch (operation) {
    case Operation::kGet:
      return "get";
    case Operation::kPut:
      return "put";
    case Operation::kDelete:
      return "delete";
    case Operation::kList:
      return "list";
    case Operation::kPin:
      return "pin";
    case Operation::kLease:
      return "lease";
  }
  return "unknown";
}

absl::Status CheckKind(const Caller& caller, Operation operation, const RecordId& id) {
  for (const Grant& grant : kGrants) {
    if (caller.service == grant.service && id.kind == grant.kind && (grant.operations & Bit(operation)) != 0 &&
        absl::StartsWith(id.name, grant.name_prefix)) {
      return absl::OkStatus();
    }
  }
  return error::Denied("this service may not do this to records of this kind", "caller_not_allowed");
}

absl::Status CheckAccess(const Caller& caller, Operation operation, const RecordId& id) {
  RETURN_IF_ERROR(CheckKind(caller, operation, id));
  if (id.owner.type != "user") {
    return absl::OkStatus();
  }
  if (!caller.passport.has_value()) {
    return error::Denied("records of a user need a passport", "passport_required");
  }
  if (caller.passport->subject != id.owner.id) {
    return error::Denied("the passport is another user's", "passport_mismatch");
  }
  if (IsMaintenance(*caller.passport)) {
    return CheckMaintenance(caller, operation, id);
  }
  return absl::OkStatus();
}

bool MayListKind(const Caller& caller, const std::string& kind) {
  for (const Grant& grant : kGrants) {
    if (caller.service == grant.service && kind == grant.kind && (grant.operations & Bit(Operation::kList)) != 0) {
      return true;
    }
  }
  return false;
}

absl::Status CheckListOwner(const Caller& caller, const Owner& owner) {
  if (owner == VaultOwner() || (owner.type == "system" && owner.id != caller.service)) {
    return error::Denied("these records are another service's", "caller_not_allowed");
  }
  if (owner.type != "user") {
    return absl::OkStatus();
  }
  if (!caller.passport.has_value()) {
    return error::Denied("records of a user need a passport", "passport_required");
  }
  const bool allowed =
      !IsMaintenance(*caller.passport) && (caller.passport->subject == owner.id || caller.passport->HasRole("admin"));
  return allowed ? absl::OkStatus() : error::Denied("the passport is another user's", "passport_mismatch");
}

absl::Status CheckDeleteOwner(const Caller& caller, const Owner& owner) {
  if (owner.type != "user") {
    return error::Denied("only a user's records can be destroyed as a whole", "caller_not_allowed");
  }
  if (!caller.passport.has_value()) {
    return error::Denied("destroying a user's records needs a passport", "passport_required");
  }
  const Passport& passport = *caller.passport;
  const bool allowed = !IsMaintenance(passport) && (passport.subject == owner.id || passport.HasRole("admin"));
  return allowed ? absl::OkStatus() : error::Denied("the passport is another user's", "passport_mismatch");
}

std::map<std::string, MethodTable> VaultMethodTables() {
  const std::set<std::string> keepers = {"token_broker", "authn", "registry"};
  const std::set<std::string> broker = {"token_broker"};
  const std::set<std::string> edge = {"edge"};
  return {
      {"sallyport.vault.v1.Vault",
       {{"Put", keepers},
        {"Get", {"token_broker", "authn"}},
        {"List", keepers},
        {"Delete", keepers},
        {"Pin", {"registry"}},
        {"AcquireLease", broker},
        {"Release", broker},
        {"PutStatus", broker},
        {"ListDue", broker},
        {"DeleteOwner", {"token_broker", "authn"}},
        {"GetCacheRoots", broker}}},
      {"sallyport.vault.v1.VaultAdmin", {{"GetStatus", edge}, {"RotateTerm", edge}, {"Rewrap", edge}, {"Seal", edge}}}};
}

}  // namespace sallyport::vault
