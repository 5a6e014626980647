// SPDX-License-Identifier: Apache-2.0
#include "services/registry/draft.h"

#include <map>

#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "common/proto_time.h"

namespace sallyport::registry {
namespace {

constexpr size_t kMaxSecretBytes = 32 << 10;

struct OldSecret {
  common::v1::Secret secret;
  std::string origin;
};

std::map<std::string, OldSecret> SecretsOf(const google::protobuf::Message* message, const OriginOfSecret& origin) {
  std::map<std::string, OldSecret> secrets;
  if (message == nullptr) return secrets;
  std::unique_ptr<google::protobuf::Message> copy(message->New());
  copy->CopyFrom(*message);
  ForEachSecret(*copy, [&](const SecretField& field) {
    if (field.secret->set()) secrets[field.path] = {*field.secret, origin(*message)};
  });
  return secrets;
}

void SetReference(const std::string& record, int64_t version, absl::Time updated_at, common::v1::Secret& secret) {
  secret.Clear();
  secret.set_set(true);
  secret.set_version(version);
  secret.set_vault_record(record);
  *secret.mutable_updated_at() = ToTimestamp(updated_at);
}

absl::Time UpdatedAt(const common::v1::Secret& secret) { return FromTimestamp(secret.updated_at()); }

void CheckValue(const SecretField& field, Findings& findings) {
  const std::string& value = field.secret->value();
  if (value.empty()) findings.Refuse(field.json_path, "is empty: leave it out to keep the stored value, or set clear");
  if (value.size() > kMaxSecretBytes) findings.Refuse(field.json_path, "exceeds 32 KiB");
  if (!IsTrimmedFieldValue(value)) {
    findings.Refuse(field.json_path,
                    "holds line breaks, control characters or surrounding blanks: is it pasted whole?");
  }
}

class Planner {
 public:
  Planner(const std::string& uid, std::string new_origin, std::string origin_fields, Findings& findings)
      : uid_(uid), new_origin_(std::move(new_origin)), origin_fields_(std::move(origin_fields)), findings_(findings) {}

  void Visit(const SecretField& field, std::map<std::string, OldSecret>& old,
             const std::function<std::optional<Store::Retired>(const std::string&)>& retired) {
    const std::string record = absl::StrCat(uid_, "/", field.path);
    const auto before = old.find(field.path);
    switch (field.secret->input_case()) {
      case common::v1::Secret::kValue:
        CheckValue(field, findings_);
        plan_.puts.push_back({field.path, field.json_path, record, field.secret->value(),
                              before == old.end() ? 0 : before->second.secret.version()});
        if (before != old.end()) {  // Version and time of what is there, until the vault says it changed.
          const common::v1::Secret kept = before->second.secret;
          SetReference(record, kept.version(), UpdatedAt(kept), *field.secret);
          old.erase(before);
        } else {
          field.secret->Clear();
        }
        return;
      case common::v1::Secret::kClear:
        if (!field.secret->clear())
          findings_.Refuse(absl::StrCat(field.json_path, ".clear"), "must be true when given");
        if (field.required) findings_.Refuse(field.json_path, "is required and cannot be cleared");
        if (before != old.end()) {
          plan_.erase.push_back(Describe(record, before->second));
          old.erase(before);
        }
        field.secret->Clear();
        return;
      case common::v1::Secret::INPUT_NOT_SET:
        return Keep(field, record, old, retired);
    }
  }

  // What nothing refers to any more.
  SecretPlan Finish(const std::map<std::string, OldSecret>& left) {
    for (const auto& [path, secret] : left) plan_.retire.push_back(Describe(absl::StrCat(uid_, "/", path), secret));
    return std::move(plan_);
  }

 private:
  static SecretPlan::Old Describe(const std::string& record, const OldSecret& old) {
    return {record, old.secret.version(), UpdatedAt(old.secret), old.origin};
  }

  void Keep(const SecretField& field, const std::string& record, std::map<std::string, OldSecret>& old,
            const std::function<std::optional<Store::Retired>(const std::string&)>& retired) {
    field.secret->Clear();
    if (const auto before = old.find(field.path); before != old.end()) {
      if (before->second.origin != new_origin_) RefuseMove(field);
      SetReference(record, before->second.secret.version(), UpdatedAt(before->second.secret), *field.secret);
      old.erase(before);
      return;
    }
    if (const auto former = retired(record); former) {
      if (former->origin != new_origin_) RefuseMove(field);
      SetReference(record, former->version, former->updated_at, *field.secret);
      plan_.resumed.push_back({record, former->version, former->updated_at, former->origin});
      return;
    }
    if (field.required) findings_.Refuse(field.json_path, "is required: give its value");
  }

  void RefuseMove(const SecretField& field) {
    findings_.Deny(kOriginRule, field.json_path,
                   absl::StrCat("was entered for another origin than ", origin_fields_,
                                " now names: give it again, so that it cannot be carried elsewhere"));
    findings_.Deny(kOriginRule, origin_fields_,
                   absl::StrCat("moves to another origin: give ", field.json_path, " again with it"));
  }

  const std::string& uid_;
  const std::string new_origin_;
  const std::string origin_fields_;
  Findings& findings_;
  SecretPlan plan_;
};

}  // namespace

SecretPlan PlanSecrets(const google::protobuf::Message* before, google::protobuf::Message& after,
                       const std::string& uid, const OriginOfSecret& origin, const std::string& origin_fields,
                       const std::function<std::optional<Store::Retired>(const std::string& record)>& retired,
                       Findings& findings) {
  std::map<std::string, OldSecret> old = SecretsOf(before, origin);
  Planner planner(uid, origin(after), origin_fields, findings);
  ForEachSecret(after, [&](const SecretField& field) { planner.Visit(field, old, retired); });
  return planner.Finish(old);
}

}  // namespace sallyport::registry
