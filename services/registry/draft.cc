// SPDX-License-Identifier: Apache-2.0
#include "services/registry/draft.h"

#include <map>

#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "common/proto_time.h"

namespace sallyport::registry {
namespace {

constexpr size_t kMaxSecretBytes = 32 << 10;

using OldSecrets = std::map<std::string, common::v1::Secret>;

OldSecrets SecretsOf(const google::protobuf::Message* message) {
  OldSecrets secrets;
  if (message == nullptr) return secrets;
  std::unique_ptr<google::protobuf::Message> copy(message->New());
  copy->CopyFrom(*message);
  ForEachSecret(*copy, [&](const SecretField& field) {
    if (field.secret->set()) secrets[field.path] = *field.secret;
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
  Planner(const std::string& uid, const SecretMove& move, OldSecrets old, const RetiredVersion& retired,
          Findings& findings)
      : uid_(uid), move_(move), old_(std::move(old)), retired_(retired), findings_(findings) {
    plan_.origins = move.after;
  }

  void Visit(const SecretField& field) {
    switch (field.secret->input_case()) {
      case common::v1::Secret::kValue:
        return Give(field);
      case common::v1::Secret::kClear:
        return Clear(field);
      case common::v1::Secret::INPUT_NOT_SET:
        return Keep(field);
    }
  }

  // What nothing refers to any more.
  SecretPlan Finish() {
    for (const auto& [path, secret] : old_) plan_.retire.push_back(Describe(path, secret));
    return std::move(plan_);
  }

 private:
  std::string RecordOf(const std::string& path) const { return absl::StrCat(uid_, "/", path); }

  SecretLedger::Version Describe(const std::string& path, const common::v1::Secret& secret) const {
    SecretLedger::Version version;
    version.record = RecordOf(path);
    version.version = secret.version();
    version.origins = move_.before;
    version.updated_at = UpdatedAt(secret);
    return version;
  }

  void Give(const SecretField& field) {
    CheckValue(field, findings_);
    const std::string record = RecordOf(field.path);
    const auto before = old_.extract(field.path);
    plan_.puts.push_back(
        {field.path, field.json_path, record, field.secret->value(), before.empty() ? 0 : before.mapped().version()});
    if (before.empty()) return field.secret->Clear();
    // Version and time of what is there, until the vault says it changed.
    SetReference(record, before.mapped().version(), UpdatedAt(before.mapped()), *field.secret);
  }

  void Clear(const SecretField& field) {
    if (!field.secret->clear()) findings_.Refuse(absl::StrCat(field.json_path, ".clear"), "must be true when given");
    if (field.required) findings_.Refuse(field.json_path, "is required and cannot be cleared");
    if (const auto before = old_.extract(field.path); !before.empty()) {
      plan_.erase.push_back(Describe(field.path, before.mapped()));
    }
    field.secret->Clear();
  }

  void Keep(const SecretField& field) {
    field.secret->Clear();
    const std::string record = RecordOf(field.path);
    if (const auto before = old_.extract(field.path); !before.empty()) {
      const common::v1::Secret& stored = before.mapped();
      if (move_.before != move_.after) Move(field, Describe(field.path, stored));
      return SetReference(record, stored.version(), UpdatedAt(stored), *field.secret);
    }
    if (const auto former = retired_(record); former) {
      if (former->origins != move_.after) Move(field, *former);
      SetReference(record, former->version, former->updated_at, *field.secret);
      plan_.resumed.push_back(*former);
      return;
    }
    if (field.required) findings_.Refuse(field.json_path, "is required: give its value");
  }

  void Move(const SecretField& field, const SecretLedger::Version& stored) {
    if (move_.rule.outcome == MoveRule::kRebind) return plan_.rebind.push_back(stored);
    findings_.Deny(kOriginRule, field.json_path,
                   absl::StrCat("was entered for another origin than ", move_.rule.fields,
                                " now names: give it again, so that it cannot be carried elsewhere"));
    findings_.Deny(kOriginRule, move_.rule.fields,
                   absl::StrCat("moves to another origin: give ", field.json_path, " again with it"));
  }

  const std::string& uid_;
  const SecretMove& move_;
  OldSecrets old_;
  const RetiredVersion& retired_;
  Findings& findings_;
  SecretPlan plan_;
};

}  // namespace

SecretPlan PlanSecrets(const google::protobuf::Message* before, google::protobuf::Message& after,
                       const std::string& uid, const SecretMove& move, const RetiredVersion& retired,
                       Findings& findings) {
  Planner planner(uid, move, SecretsOf(before), retired, findings);
  ForEachSecret(after, [&](const SecretField& field) { planner.Visit(field); });
  return planner.Finish();
}

}  // namespace sallyport::registry
