// SPDX-License-Identifier: Apache-2.0
#include "services/registry/draft.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "common/jose/assertion_key.h"
#include "common/proto_time.h"

namespace sallyport::registry {
namespace {

constexpr size_t kMaxSecretBytes = 32 << 10;

struct OldSecret {
  common::v1::Secret secret;
  SecretReach reach;
  bool of_type = true;
};
using OldSecrets = std::map<std::string, OldSecret>;

OldSecrets SecretsOf(const google::protobuf::Message* message, const SecretMove& move) {
  OldSecrets secrets;
  if (message == nullptr) return secrets;
  std::unique_ptr<google::protobuf::Message> copy(message->New());
  copy->CopyFrom(*message);
  ForEachSecret(*copy, [&](const SecretField& field) {
    if (field.secret->set()) secrets[field.path] = {*field.secret, move.before(field), field.of_type};
  });
  return secrets;
}

void SetReference(const SecretLedger::Version& version, common::v1::Secret& secret) {
  secret.Clear();
  secret.set_set(true);
  secret.set_version(version.version);
  secret.set_vault_record(version.record);
  secret.set_public_jwk(version.public_jwk);
  *secret.mutable_updated_at() = ToTimestamp(version.updated_at);
}

// Tokens that go to fewer places than before are carried nowhere.
bool IsMoved(const SecretReach& before, const SecretReach& after) {
  return before.origins != after.origins ||
         !std::includes(before.onward.begin(), before.onward.end(), after.onward.begin(), after.onward.end());
}

void CheckValue(const SecretField& field, Findings& findings) {
  const std::string& value = field.secret->value();
  if (value.empty()) findings.Refuse(field.json_path, "is empty: leave it out to keep the stored value, or set clear");
  if (value.size() > kMaxSecretBytes) findings.Refuse(field.json_path, "exceeds 32 KiB");
  if (field.private_key || field.client_certificate) return;
  if (!IsTrimmedFieldValue(value)) {
    findings.Refuse(field.json_path,
                    "holds line breaks, control characters or surrounding blanks: is it pasted whole?");
  }
}

class Planner {
 public:
  Planner(const std::string& uid, const SecretMove& move, OldSecrets old, const RetiredVersion& retired,
          Findings& findings)
      : uid_(uid), move_(move), old_(std::move(old)), retired_(retired), findings_(findings) {}

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
    for (const auto& [path, old] : old_) (old.of_type ? plan_.retire : plan_.erase).push_back(Describe(path, old));
    return std::move(plan_);
  }

 private:
  std::string RecordOf(const std::string& path) const { return absl::StrCat(uid_, "/", path); }

  SecretLedger::Version Describe(const std::string& path, const OldSecret& old) const {
    SecretLedger::Version version;
    version.record = RecordOf(path);
    version.version = old.secret.version();
    version.origins = old.reach.origins;
    version.onward = old.reach.onward;
    version.public_jwk = old.secret.public_jwk();
    version.updated_at = FromTimestamp(old.secret.updated_at());
    return version;
  }

  void Give(const SecretField& field) {
    CheckValue(field, findings_);
    if (field.presence == SecretField::Presence::kUnused) {
      findings_.Refuse(field.json_path, field.private_key
                                            ? "goes with clientAuth PRIVATE_KEY_JWT only: leave it out, or set that"
                                            : "is never sent with clientAuth PRIVATE_KEY_JWT: leave it out");
    }
    Put(field, field.secret->value());
  }

  void Put(const SecretField& field, const std::string& value) {
    const auto before = old_.extract(field.path);
    SecretPlan::Put put{field.path,
                        field.json_path,
                        RecordOf(field.path),
                        value,
                        before.empty() ? 0 : before.mapped().secret.version(),
                        move_.after(field),
                        ""};
    if (field.private_key && !value.empty()) {
      const absl::StatusOr<AssertionKey> key = AssertionKey::FromPem(Secret(value));
      if (!key.ok()) {
        findings_.Refuse(field.json_path, key.status().message());
      } else {
        put.public_jwk = key->PublicJwk();
      }
    }
    plan_.puts.push_back(std::move(put));
    if (before.empty()) return field.secret->Clear();
    // Version and time of what is there, until the vault says it changed.
    SetReference(Describe(field.path, before.mapped()), *field.secret);
  }

  void Clear(const SecretField& field) {
    if (!field.secret->clear()) findings_.Refuse(absl::StrCat(field.json_path, ".clear"), "must be true when given");
    if (field.presence == SecretField::Presence::kRequired)
      findings_.Refuse(field.json_path, "is required and cannot be cleared");
    if (const auto before = old_.extract(field.path); !before.empty()) {
      plan_.erase.push_back(Describe(field.path, before.mapped()));
    }
    field.secret->Clear();
    if (field.presence == SecretField::Presence::kGenerated) Generate(field);
  }

  void Keep(const SecretField& field) {
    field.secret->Clear();
    if (field.presence == SecretField::Presence::kUnused) return;  // What is stored is of a former choice.
    if (const auto before = old_.extract(field.path); !before.empty()) {
      const SecretLedger::Version stored = Describe(field.path, before.mapped());
      if (IsMoved(before.mapped().reach, move_.after(field))) Move(field, stored);
      return SetReference(stored, *field.secret);
    }
    if (const auto former = retired_(RecordOf(field.path)); former) {
      if (SecretReach{former->origins, former->onward} != move_.after(field)) Move(field, *former);
      SetReference(*former, *field.secret);
      plan_.resumed.push_back(*former);
      return;
    }
    if (field.presence == SecretField::Presence::kGenerated) return Generate(field);
    if (field.presence == SecretField::Presence::kRequired)
      findings_.Refuse(field.json_path, "is required: give its value");
  }

  void Generate(const SecretField& field) {
    const absl::StatusOr<Secret> pem = AssertionKey::GeneratePem();
    if (!pem.ok()) return findings_.Refuse(field.json_path, "no key could be made: give one");
    Put(field, std::string(pem->Expose()));
  }

  void Move(const SecretField& field, const SecretLedger::Version& stored) {
    const MoveRule rule = move_.rule(field);
    const SecretReach after = move_.after(field);
    if (rule.outcome == MoveRule::kRebind) {
      plan_.rebind.push_back(stored);
      plan_.rebind.back().origins = after.origins;
      plan_.rebind.back().onward = after.onward;
      return;
    }
    const std::string& moved = stored.origins != after.origins || rule.onward.empty() ? rule.field : rule.onward;
    findings_.Deny(kOriginRule, field.json_path,
                   absl::StrCat("was entered for another origin than ", moved,
                                " now names: give it again, so that it cannot be carried elsewhere"));
    findings_.Deny(kOriginRule, moved,
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
  Planner planner(uid, move, SecretsOf(before, move), retired, findings);
  ForEachSecret(after, [&](const SecretField& field) { planner.Visit(field); });
  return planner.Finish();
}

}  // namespace sallyport::registry
