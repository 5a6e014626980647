// SPDX-License-Identifier: Apache-2.0
#include "services/vault/access.h"

#include "common/status_macros.h"
#include "services/vault/errors.h"

namespace sallyport::vault {
namespace {

constexpr unsigned Bit(Operation operation) { return 1u << static_cast<unsigned>(operation); }
constexpr unsigned kOwned =
    Bit(Operation::kGet) | Bit(Operation::kPut) | Bit(Operation::kDelete) | Bit(Operation::kList);
constexpr unsigned kWriteOnly =
    Bit(Operation::kPut) | Bit(Operation::kDelete) | Bit(Operation::kList) | Bit(Operation::kPin);
constexpr unsigned kBindable = kWriteOnly | Bit(Operation::kRebind);

struct Grant {
  const char* service;
  const char* kind;
  unsigned operations;
  const char* owner_type = nullptr;  // Null: of any owner that has the kind.
};
constexpr Grant kGrants[] = {
    {"token_broker", "connection", kOwned | Bit(Operation::kLease)},
    {"token_broker", "link_flow", kOwned | Bit(Operation::kLease)},
    {"token_broker", "broker_key", kOwned | Bit(Operation::kLease)},
    {"token_broker", "server_secret", Bit(Operation::kGet)},
    {"token_broker", "app_secret", Bit(Operation::kGet)},
    {"token_broker", "credential", Bit(Operation::kGet), "org"},
    {"token_broker", "credential", kOwned, "user"},
    {"token_broker", "server_binding", Bit(Operation::kGet)},
    {"token_broker", "app_binding", Bit(Operation::kGet)},
    {"token_broker", "connector_secret", Bit(Operation::kGet)},
    {"authn", "signing_key", kOwned},
    {"authn", "session_key", kOwned},
    {"authn", "connector_secret", kOwned},
    {"registry", "server_secret", kBindable},
    {"registry", "app_secret", kBindable},
    {"registry", "credential", kBindable, "org"},
    {"registry", "server_binding", kBindable},
    {"registry", "app_binding", kBindable},
    {"registry", "connection", Bit(Operation::kCount), "user"},
    {"registry", "credential", Bit(Operation::kCount), "user"},
};

bool IsGranted(const Grant& grant, const Caller& caller, Operation operation, const std::string& kind,
               const std::string& owner_type) {
  return caller.service == grant.service && kind == grant.kind && (grant.operations & Bit(operation)) != 0 &&
         (grant.owner_type == nullptr || owner_type == grant.owner_type);
}

// What a credential-admin may do to a user's own credential: enter it for them, and end it. Nobody reads it for them.
bool MayKeepForUser(const Caller& caller, Operation operation, const RecordId& id) {
  return id.kind == "credential" && (operation == Operation::kPut || operation == Operation::kDelete) &&
         caller.passport.has_value() && caller.passport->HasRole("credential-admin");
}

absl::Status CheckRole(const Caller& caller, absl::string_view role) {
  if (!caller.passport.has_value()) {
    return error::Denied("saying where tokens may go needs a passport", "passport_required");
  }
  return caller.passport->HasRole(role)
             ? absl::OkStatus()
             : error::Denied("saying where tokens may go needs an administrator's passport", "role_missing");
}

// Whoever may change what users connect to may learn how many that is for.
absl::Status CheckCounter(const Caller& caller) {
  if (!caller.passport.has_value()) {
    return error::Denied("counting users needs a passport", "passport_required");
  }
  return caller.passport->HasRole("admin") || caller.passport->HasRole("credential-admin")
             ? absl::OkStatus()
             : error::Denied("counting users needs an administrator's passport", "role_missing");
}

absl::Status CheckOwner(const Caller& caller, const Owner& owner, bool admin_may) {
  if (!caller.passport.has_value()) {
    return error::Denied("records of a user need a passport", "passport_required");
  }
  const bool allowed = caller.passport->subject == owner.id || (admin_may && caller.passport->HasRole("admin"));
  return allowed ? absl::OkStatus() : error::Denied("the passport is another user's", "passport_mismatch");
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
    case Operation::kRebind:
      return "rebind";
    case Operation::kCount:
      return "count";
  }
  return "unknown";
}

absl::Status CheckKind(const Caller& caller, Operation operation, const RecordId& id) {
  for (const Grant& grant : kGrants) {
    if (IsGranted(grant, caller, operation, id.kind, id.owner.type)) {
      return absl::OkStatus();
    }
  }
  return error::Denied("this service may not do this to records of this kind", "caller_not_allowed");
}

absl::Status CheckAccess(const Caller& caller, Operation operation, const RecordId& id) {
  RETURN_IF_ERROR(CheckKind(caller, operation, id));
  if (operation == Operation::kRebind) {
    return CheckRole(caller, "credential-admin");
  }
  if (operation == Operation::kCount) {
    return CheckCounter(caller);
  }
  if (operation == Operation::kPut && IsBinding(id)) {
    return CheckRole(caller, "admin");
  }
  if (id.owner.type != "user" || MayKeepForUser(caller, operation, id)) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(CheckOwner(caller, id.owner, false));
  // What a call comes with must not change what later calls go out with.
  const bool written = operation == Operation::kPut || operation == Operation::kDelete;
  if (id.kind == "credential" && written && caller.passport->purpose != Passport::Purpose::kApi &&
      caller.passport->purpose != Passport::Purpose::kLink) {
    return error::Denied("the passport was made for something else", "passport_mismatch");
  }
  return absl::OkStatus();
}

bool MayListKind(const Caller& caller, const std::string& owner_type, const std::string& kind) {
  for (const Grant& grant : kGrants) {
    if (IsGranted(grant, caller, Operation::kList, kind, owner_type)) {
      return true;
    }
  }
  return false;
}

absl::Status CheckListOwner(const Caller& caller, const Owner& owner) {
  if (owner == VaultOwner() || (owner.type == "system" && owner.id != caller.service)) {
    return error::Denied("these records are another service's", "caller_not_allowed");
  }
  return owner.type == "user" ? CheckOwner(caller, owner, true) : absl::OkStatus();
}

absl::Status CheckDeleteOwner(const Caller& caller, const Owner& owner) {
  if (owner.type != "user") {
    return error::Denied("only a user's records can be destroyed as a whole", "caller_not_allowed");
  }
  return CheckOwner(caller, owner, true);
}

absl::Status CheckCacheRoots(const Owner& owner, const Caller& caller) {
  if (owner.type == "system") {
    return error::Denied("nothing of a service's own is cached", "caller_not_allowed");
  }
  return owner.type == "user" ? CheckOwner(caller, owner, false) : absl::OkStatus();
}

std::map<std::string, MethodTable> VaultMethodTables() {
  const std::set<std::string> keepers = {"token_broker", "authn", "registry"};
  const std::set<std::string> broker = {"token_broker"};
  const std::set<std::string> edge = {"edge"};
  return {{"sallyport.vault.v1.Vault",
           {{"Put", keepers},
            {"Get", {"token_broker", "authn"}},
            {"List", keepers},
            {"Delete", keepers},
            {"Pin", {"registry"}},
            {"Rebind", {"registry"}},
            {"Adopt", {"registry"}},
            {"AcquireLease", broker},
            {"Release", broker},
            {"PutStatus", broker},
            {"ListDue", broker},
            {"DeleteOwner", {"token_broker", "authn"}},
            {"GetCacheRoots", broker},
            {"CountUsers", {"registry"}}}},
          {"sallyport.vault.v1.VaultAdmin",
           {{"GetStatus", edge}, {"RotateTerm", edge}, {"Rewrap", edge}, {"DestroyTerm", edge}, {"Seal", edge}}}};
}

}  // namespace sallyport::vault
