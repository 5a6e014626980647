// SPDX-License-Identifier: Apache-2.0
#include "services/vault/access.h"

#include "absl/strings/str_cat.h"

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
    {"token_broker", "connection", kOwned | Bit(Operation::kLease) | Bit(Operation::kOwe) | Bit(Operation::kRename)},
    {"token_broker", kRevocationKind, Bit(Operation::kDelete) | Bit(Operation::kList) | Bit(Operation::kLease)},
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

absl::Status PassportRequired() { return error::Denied("records of a user need a passport", "passport_required"); }
absl::Status OfAnother() { return error::Denied("the passport is another user's", "passport_mismatch"); }
absl::Status ForSomethingElse() {
  return error::Denied("the passport was made for something else", "passport_mismatch");
}

using Purpose = Passport::Purpose;

bool IsPurpose(const Caller& caller, Purpose purpose) {
  return caller.passport.has_value() && caller.passport->purpose == purpose;
}

// The owner is there, or a platform acts for them.
bool IsOwners(const Passport& passport) {
  return passport.purpose == Purpose::kCall || passport.purpose == Purpose::kApi ||
         passport.purpose == Purpose::kLink || passport.purpose == Purpose::kPlatform;
}

absl::Status CheckOwner(const Caller& caller, const Owner& owner, bool admin_may) {
  if (!caller.passport.has_value()) {
    return PassportRequired();
  }
  if (admin_may && caller.passport->HasRole("admin")) {
    return absl::OkStatus();
  }
  if (caller.passport->subject != owner.id) {
    return OfAnother();
  }
  return IsOwners(*caller.passport) ? absl::OkStatus() : ForSomethingElse();
}

// What an administrator's word ends. It names a user, an app or both; the label is that of a connection.
bool Names(const Passport::End& end, const RecordId& id) {
  const bool connection = id.kind == "connection";
  return id.owner.type == "user" && (!end.subject.empty() || !end.app_uid.empty()) &&
         (end.subject.empty() || end.subject == id.owner.id) &&
         (end.app_uid.empty() || (connection && end.app_uid == AppOf(id))) &&
         (end.label == "*" || (connection && end.label == AccountOf(id)));
}
bool NamesAllOf(const Passport::End& end, const Owner& owner) {
  return owner.type == "user" && !owner.id.empty() && end.subject == owner.id && end.app_uid.empty() &&
         end.label == "*";
}

// What authn has the broker store when somebody has signed in.
bool IsOwnSignIn(const Passport& passport, const RecordId& id) {
  return id.kind == "connection" && passport.subject == id.owner.id &&
         id.name == absl::StrCat("sso:", passport.subject.substr(0, passport.subject.find(':')));
}

// Of a user's records, what a platform acts with: accounts at apps. Not what the identity provider gave at a sign-in.
bool IsPlatforms(const RecordId& id) { return id.kind == "connection" && !IsSignIn(id); }

absl::Status CheckUserRecord(const Caller& caller, Operation operation, const RecordId& id) {
  if (IsPurpose(caller, Purpose::kSignIn) && operation == Operation::kPut && IsOwnSignIn(*caller.passport, id)) {
    return absl::OkStatus();
  }
  if (IsPurpose(caller, Purpose::kEnd) && operation == Operation::kOwe) {
    return Names(caller.passport->end, id) ? absl::OkStatus() : ForSomethingElse();
  }
  RETURN_IF_ERROR(CheckOwner(caller, id.owner, false));
  if (caller.passport->purpose == Purpose::kPlatform && !IsPlatforms(id)) {
    return ForSomethingElse();
  }
  if (operation == Operation::kRename && caller.passport->purpose != Purpose::kApi) {
    return ForSomethingElse();
  }
  // What a call comes with must not change what later calls go out with.
  const bool written = operation == Operation::kPut || operation == Operation::kDelete;
  if (id.kind == "credential" && written && caller.passport->purpose != Purpose::kApi &&
      caller.passport->purpose != Purpose::kLink) {
    return ForSomethingElse();
  }
  return absl::OkStatus();
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
    case Operation::kOwe:
      return "owe_revocation";
    case Operation::kRename:
      return "rename";
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
  if (IsRevocation(id) && operation == Operation::kLease) {
    return error::Denied("a revocation is leased for maintenance only", "caller_not_allowed");
  }
  if (id.owner.type != "user" || MayKeepForUser(caller, operation, id)) {
    return absl::OkStatus();
  }
  return CheckUserRecord(caller, operation, id);
}

bool MayListKind(const Caller& caller, const std::string& owner_type, const std::string& kind) {
  for (const Grant& grant : kGrants) {
    if (IsGranted(grant, caller, Operation::kList, kind, owner_type)) {
      return true;
    }
  }
  return false;
}

absl::Status CheckListOwner(const Caller& caller, const Owner& owner, const std::string& kind) {
  if (owner == VaultOwner() || (owner.type == "system" && owner.id != caller.service)) {
    return error::Denied("these records are another service's", "caller_not_allowed");
  }
  if (owner.type != "user") {
    return absl::OkStatus();
  }
  if (IsPurpose(caller, Purpose::kEnd)) {
    return caller.passport->end.subject == owner.id ? absl::OkStatus() : ForSomethingElse();
  }
  RETURN_IF_ERROR(CheckOwner(caller, owner, true));
  const bool others = !kind.empty() && kind != "connection";
  return IsPurpose(caller, Purpose::kPlatform) && others ? ForSomethingElse() : absl::OkStatus();
}

bool MaySee(const Caller& caller, const RecordId& id) {
  if (!MayListKind(caller, id.owner.type, id.kind)) {
    return false;
  }
  if (id.owner.type != "user") {
    return true;
  }
  if (IsPurpose(caller, Purpose::kEnd)) {
    return Names(caller.passport->end, id);
  }
  return !IsPurpose(caller, Purpose::kPlatform) || IsPlatforms(id);
}

absl::Status CheckDeleteOwner(const Caller& caller, const Owner& owner) {
  if (owner.type != "user") {
    return error::Denied("only a user's records can be destroyed as a whole", "caller_not_allowed");
  }
  if (IsPurpose(caller, Purpose::kEnd)) {
    return NamesAllOf(caller.passport->end, owner) ? absl::OkStatus() : ForSomethingElse();
  }
  RETURN_IF_ERROR(CheckOwner(caller, owner, true));
  return IsPurpose(caller, Purpose::kPlatform) ? ForSomethingElse() : absl::OkStatus();
}

absl::Status CheckOweOwner(const Caller& caller, const Owner& owner) {
  if (!caller.passport.has_value()) {
    return PassportRequired();
  }
  return IsPurpose(caller, Purpose::kEnd) && NamesAllOf(caller.passport->end, owner) ? absl::OkStatus()
                                                                                     : ForSomethingElse();
}

absl::Status CheckOweApp(const Caller& caller, const std::string& app_uid) {
  if (!caller.passport.has_value()) {
    return error::Denied("to end connections of an app that has a binding takes a passport", "passport_required");
  }
  const Passport::End& end = caller.passport->end;
  return IsPurpose(caller, Purpose::kEnd) && end.subject.empty() && !app_uid.empty() && end.app_uid == app_uid &&
                 end.label == "*"
             ? absl::OkStatus()
             : ForSomethingElse();
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
            {"OweRevocation", broker},
            {"Rename", broker},
            {"DeleteOwner", {"token_broker", "authn"}},
            {"GetCacheRoots", broker},
            {"CountUsers", {"registry"}}}},
          {"sallyport.vault.v1.VaultAdmin",
           {{"GetStatus", edge}, {"RotateTerm", edge}, {"Rewrap", edge}, {"DestroyTerm", edge}, {"Seal", edge}}}};
}

}  // namespace sallyport::vault
