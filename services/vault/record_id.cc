// SPDX-License-Identifier: Apache-2.0
#include "services/vault/record_id.h"

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/status_macros.h"

namespace sallyport::vault {
namespace {

constexpr char kOrganization[] = "default";

struct KindRule {
  const char* kind;
  const char* owner_type;
  const char* owner_id;  // Null: any.
};
constexpr KindRule kKinds[] = {
    {"connection", "user", nullptr},
    {"link_flow", "system", "token_broker"},
    {"broker_key", "system", "token_broker"},
    {"server_secret", "org", kOrganization},
    {"app_secret", "org", kOrganization},
    {"credential", "org", kOrganization},
    {"credential", "user", nullptr},
    {"server_binding", "org", kOrganization},
    {"app_binding", "org", kOrganization},
    {"connector_secret", "system", "authn"},
    {"signing_key", "system", "authn"},
    {"session_key", "system", "authn"},
    {kRevocationKind, "system", "token_broker"},
};

absl::Status CheckText(const std::string& field, const std::string& text) {
  if (text.empty()) {
    return InvalidField(field, "is required");
  }
  if (text.size() > kMaxNameBytes) {
    return InvalidField(field, absl::StrCat("is longer than ", kMaxNameBytes, " bytes"));
  }
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return InvalidField(field, "has control characters");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Owner> ParseOwner(v1::OwnerType type, const std::string& id) {
  RETURN_IF_ERROR(CheckText("owner_id", id));
  switch (type) {
    case v1::USER:
      return Owner{"user", id};
    case v1::ORG:
      return Owner{"org", id};
    case v1::SYSTEM:
      return Owner{"system", id};
    default:
      return InvalidField("owner_type", "must be USER, ORG or SYSTEM");
  }
}

absl::StatusOr<RecordId> ParseRecordName(const v1::RecordName& name) {
  RecordId id;
  ASSIGN_OR_RETURN(id.owner, ParseOwner(name.owner_type(), name.owner_id()));
  RETURN_IF_ERROR(CheckText("record.kind", name.kind()));
  RETURN_IF_ERROR(CheckText("record.name", name.name()));
  id.kind = name.kind();
  id.name = name.name();
  bool known = false;
  for (const KindRule& rule : kKinds) {
    if (id.kind != rule.kind) {
      continue;
    }
    known = true;
    if (id.owner.type == rule.owner_type && (rule.owner_id == nullptr || id.owner.id == rule.owner_id)) {
      return id;
    }
  }
  return known ? InvalidField("record.owner_type", "this kind does not belong to such an owner")
               : InvalidField("record.kind", "is unknown");
}

v1::RecordName ToProto(const RecordId& id) {
  v1::RecordName name;
  name.set_owner_type(id.owner.type == "user" ? v1::USER : id.owner.type == "org" ? v1::ORG : v1::SYSTEM);
  name.set_owner_id(id.owner.id);
  name.set_kind(id.kind);
  name.set_name(id.name);
  return name;
}

std::string AppOf(const RecordId& connection) { return connection.name.substr(0, connection.name.find('/')); }

std::string AccountOf(const RecordId& connection) {
  const size_t slash = connection.name.find('/');
  return slash == std::string::npos ? "" : connection.name.substr(slash + 1);
}

int VersionsKept(const RecordId& id) {
  if (id.kind == "server_binding" || id.kind == "app_binding") {
    return 0;  // But the head: whoever edits the configuration must not find a former one that said more.
  }
  if (id.kind == "credential" && id.owner.type == "user") {
    return 1;  // What somebody has replaced or mistyped is of no use to anybody.
  }
  return id.kind == "connection" ? 2 : 10;
}

}  // namespace sallyport::vault
