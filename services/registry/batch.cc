// SPDX-License-Identifier: Apache-2.0
#include "services/registry/batch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/registry/config_event.h"
#include "services/registry/diff.h"
#include "services/registry/errors.h"
#include "services/registry/group_names.h"

namespace sallyport::registry {
namespace {

constexpr absl::Duration kKeepRetired = absl::Hours(24 * 30);

// Where each kind's secrets may go, and the fields that say so.
std::string SecretOrigin(const v1::McpServer& server) { return OriginOf(server.upstream_url()); }
std::string SecretOrigin(const v1::App& app) {
  return absl::StrCat(OriginOf(app.issuer()), " ", OriginOf(app.token_url()), " ", OriginOf(app.revocation_url()));
}
std::string SecretOrigin(const v1::Credential& /*credential*/) { return ""; }
std::string OriginField(const v1::McpServer& /*before*/, const v1::McpServer& /*after*/) { return "upstreamUrl"; }
std::string OriginField(const v1::App& before, const v1::App& after) {
  if (OriginOf(before.token_url()) != OriginOf(after.token_url())) return "tokenUrl";
  return OriginOf(before.issuer()) != OriginOf(after.issuer()) ? "issuer" : "revocationUrl";
}
std::string OriginField(const v1::Credential& /*before*/, const v1::Credential& /*after*/) {
  return "allowedUpstreamOrigins";
}

void CheckResource(const v1::McpServer& server, const ValidationContext& context, Findings& findings) {
  ValidateMcpServer(server, context, findings);
}
void CheckResource(const v1::App& app, const ValidationContext& context, Findings& findings) {
  ValidateApp(app, context, findings);
}
void CheckResource(const v1::Credential& credential, const ValidationContext& /*context*/, Findings& findings) {
  ValidateCredential(credential, findings);
}

template <typename T>
void CheckOrigins(const T& before, const T& after, bool credential_admin, Findings& findings) {
  const auto text = [](const T& resource) { return absl::StrJoin(resource.allowed_upstream_origins(), " "); };
  if (text(before) != text(after) && !credential_admin) {
    findings.Deny(kRoleRule, "allowedUpstreamOrigins", "only a credential-admin may say where a credential goes");
  }
}
void CheckOrigins(const v1::McpServer& /*before*/, const v1::McpServer& /*after*/, bool /*credential_admin*/,
                  Findings& /*findings*/) {}

// The codes and tokens of a public client are good for whoever receives them: no secret that somebody would have to
// enter again binds them to where they go, so a role does.
void CheckEndpoints(const v1::App& before, const v1::App& after, bool has_secret, Findings& findings) {
  const bool was_public = !before.client_secret().set() || before.client_auth() == v1::NONE;
  const bool is_public = !has_secret || after.client_auth() == v1::NONE;
  if (!was_public && !is_public) return;
  const auto check = [&findings](const std::string& was, const std::string& is, absl::string_view field) {
    if (was == is) return;
    findings.Deny(kRoleRule, field,
                  "only a credential-admin may change it: without a client secret the app's codes and tokens are good "
                  "for whoever receives them");
  };
  check(before.issuer(), after.issuer(), "issuer");
  check(before.authorization_url(), after.authorization_url(), "authorizationUrl");
  check(before.token_url(), after.token_url(), "tokenUrl");
  check(before.revocation_url(), after.revocation_url(), "revocationUrl");
  // Otherwise any word would do as the secret that is to be entered again.
  if (!is_public) {
    findings.Deny(
        kRoleRule, "clientSecret",
        "only a credential-admin may give one to an app that had none: what the app holds is good without it");
  }
}

// What an app's secret has to do with its other fields; known once its secrets are planned.
void CheckClient(const v1::App* before, const v1::App& after, const SecretPlan& plan, bool credential_admin,
                 Findings& findings) {
  const bool has_secret = after.client_secret().set() || !plan.puts.empty();
  ValidateAppClient(after, has_secret, findings);
  if (before != nullptr && !credential_admin) CheckEndpoints(*before, after, has_secret, findings);
}
template <typename T>
void CheckClient(const T* /*before*/, const T& /*after*/, const SecretPlan& /*plan*/, bool /*credential_admin*/,
                 Findings& /*findings*/) {}

// A file that does not list an app's origins keeps them: most were filled in by the app's first server, and a second
// apply of the same file must not take them away.
void KeepOrigins(const v1::App& before, v1::App& after) {
  if (after.allowed_upstream_origins().empty()) {
    *after.mutable_allowed_upstream_origins() = before.allowed_upstream_origins();
  }
}
template <typename T>
void KeepOrigins(const T& /*before*/, T& /*after*/) {}

template <typename T>
absl::Status Parse(const std::vector<Store::Resource>& stored, std::map<std::string, T>& into) {
  for (const Store::Resource& resource : stored) {
    if (!into[resource.slug].ParseFromString(resource.body)) return error::DamagedResource();
  }
  return absl::OkStatus();
}

void Normalize(const std::optional<Connectors>& connectors, v1::McpServer& server, Findings& findings) {
  if (!server.has_enabled()) server.set_enabled(true);
  QualifyGroups(connectors, server, findings);
}
template <typename T>
void Normalize(const std::optional<Connectors>& /*connectors*/, T& /*resource*/, Findings& /*findings*/) {}

// What was stored by an earlier release, in today's form: so that another spelling alone is no change.
void NormalizeStored(const std::optional<Connectors>& connectors, v1::McpServer& server) {
  QualifyStoredGroups(connectors, server);
}
template <typename T>
void NormalizeStored(const std::optional<Connectors>& /*connectors*/, T& /*resource*/) {}

absl::Status Outdated(const std::string& slug, int64_t stored, int64_t given) {
  return absl::AbortedError(absl::StrCat(slug, " is at version ", stored, ", not ", given, ": read it again"));
}

void SetVersion(google::protobuf::Message& message, int64_t version) {
  const auto* field = message.GetDescriptor()->FindFieldByName("version");
  message.GetReflection()->SetInt64(&message, field, version);
}

}  // namespace

template <>
std::map<std::string, v1::McpServer>& Batch::Working() {
  return servers_;
}
template <>
std::map<std::string, v1::App>& Batch::Working() {
  return apps_;
}
template <>
std::map<std::string, v1::Credential>& Batch::Working() {
  return credentials_;
}

absl::Status Batch::Load() {
  connectors_ = catalog_.options_.connectors();  // Once a batch: every question costs its time-out while authn is down.
  return catalog_.database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto servers, Store::List(tx, ResourceTraits<v1::McpServer>::kKind));
    RETURN_IF_ERROR(Parse(servers, servers_));
    ASSIGN_OR_RETURN(const auto apps, Store::List(tx, ResourceTraits<v1::App>::kKind));
    RETURN_IF_ERROR(Parse(apps, apps_));
    ASSIGN_OR_RETURN(const auto credentials, Store::List(tx, ResourceTraits<v1::Credential>::kKind));
    RETURN_IF_ERROR(Parse(credentials, credentials_));
    ASSIGN_OR_RETURN(const auto retired, Store::AllRetired(tx));
    for (const Store::Retired& secret : retired) retired_[secret.record] = secret;
    return absl::OkStatus();
  });
}

template <typename T>
void Batch::Prepare(T& after, Change& change, Findings& findings) {
  const auto* before = dynamic_cast<const T*>(change.before.get());
  after.set_uid(change.uid);
  after.set_version(change.expected_version);
  *after.mutable_created_at() = before != nullptr ? before->created_at() : ToTimestamp(now_);
  *after.mutable_updated_at() = before != nullptr ? before->updated_at() : ToTimestamp(now_);
  Normalize(connectors_, after, findings);

  ValidationContext context;
  context.upstream_networks = catalog_.options_.upstream_networks;
  context.oauth_networks = catalog_.options_.oauth_networks;
  context.app = [this](absl::string_view slug) -> const v1::App* {
    const auto app = apps_.find(std::string(slug));
    return app == apps_.end() ? nullptr : &app->second;
  };
  context.connectors = connectors_;
  const T nothing;
  if (before != nullptr) KeepOrigins(*before, after);
  CheckResource(after, context, findings);
  CheckOrigins(before != nullptr ? *before : nothing, after, writer_.credential_admin, findings);
  change.plan = PlanSecrets(
      before, after, change.uid,
      [](const google::protobuf::Message& resource) { return SecretOrigin(dynamic_cast<const T&>(resource)); },
      OriginField(before != nullptr ? *before : nothing, after),
      [this](const std::string& record) {
        const auto retired = retired_.find(record);
        const bool kept = retired != retired_.end() && retired->second.until > now_;
        return kept ? std::optional<Store::Retired>(retired->second) : std::nullopt;
      },
      findings);
  CheckClient(before, after, change.plan, writer_.credential_admin, findings);
  if (findings.violations.empty()) CompareWithIssuer(before, after, findings);
}

void Batch::CompareWithIssuer(const v1::App* before, const v1::App& after, Findings& findings) {
  const bool set_now =
      before == nullptr || before->issuer() != after.issuer() || before->client_auth() != after.client_auth();
  if (!set_now || after.issuer().empty() || after.client_auth() == v1::CLIENT_AUTH_UNSPECIFIED || issuer_silent_)
    return;
  const auto announced = catalog_.options_.issuer_auth_methods(after.issuer());
  if (announced.ok()) return WarnOfClientAuth(after, *announced, findings);
  issuer_silent_ = absl::IsUnavailable(announced.status()) || absl::IsDeadlineExceeded(announced.status());
}

template <typename T>
absl::Status Batch::Draft(const T& input, Mode mode, const std::string& prefix) {
  Denial denial{ResourceTraits<T>::kKind, input.slug()};
  if (std::is_same_v<T, v1::Credential> && !writer_.credential_admin) {
    denial.rule = kRoleRule;
    denials_.push_back(std::move(denial));
    return absl::PermissionDeniedError("only a credential-admin may write credentials");
  }
  std::map<std::string, T>& working = Working<T>();
  const auto stored = working.find(input.slug());
  if (stored == working.end() && mode == Mode::kUpdate) {
    return absl::NotFoundError(absl::StrCat("no ", ResourceTraits<T>::kKind, " ", input.slug().substr(0, 64)));
  }
  if (stored != working.end() && mode == Mode::kCreate) {
    return absl::AlreadyExistsError(absl::StrCat("slug ", input.slug().substr(0, 64), " is taken: choose another"));
  }
  auto change = std::make_unique<Change>();
  change->kind = std::string(ResourceTraits<T>::kKind);
  change->vault_kind = std::string(ResourceTraits<T>::kSecretKind);
  change->slug = input.slug();
  change->prefix = prefix;
  auto after = std::make_unique<T>(input);
  if (stored != working.end()) {
    if (input.version() != 0 && input.version() != stored->second.version()) {
      // A file that was printed and applied once names the version before: applying it again must change nothing.
      if (mode != Mode::kApply) return Outdated(input.slug(), stored->second.version(), input.version());
      change->stale_version = input.version();
    }
    auto before = std::make_unique<T>(stored->second);
    NormalizeStored(connectors_, *before);
    change->before = std::move(before);
    change->uid = stored->second.uid();
    change->expected_version = stored->second.version();
  } else {
    change->uid = MakeUid(ResourceTraits<T>::kUidPrefix);
  }
  Findings findings;
  Prepare(*after, *change, findings);
  for (ErrorDetail::Violation& violation : findings.violations) {
    violations_.push_back({prefix + violation.field, std::move(violation.message)});
  }
  for (auto& [rule, fields] : findings.denied) {
    denial.uid = change->before ? change->uid : "";
    denial.rule = rule;
    denial.fields = std::move(fields);
    denials_.push_back(denial);
  }
  change->warnings = std::move(findings.warnings);
  working[input.slug()] = *after;
  if constexpr (std::is_same_v<T, v1::McpServer>) {
    if (after->app_auth().has_oauth_authorization()) {
      auto* oauth = after->mutable_app_auth()->mutable_oauth_authorization();
      const auto app = apps_.find(oauth->app());
      oauth->set_app_uid(app == apps_.end() ? "" : app->second.uid());
      AllowFirstOrigin(*after);
    }
  }
  change->after = std::move(after);
  changes_.push_back(std::move(change));
  return absl::OkStatus();
}

absl::Status Batch::Admit(const absl::Status& drafted, bool dry_run) {
  const absl::Status refused = drafted.ok() ? InvalidFields(violations_) : drafted;
  if (refused.ok()) return refused;
  for (Denial& denial : denials_) {
    denial.dry_run = dry_run;
    catalog_.RecordDenial(denial, writer_);
  }
  return refused;
}

// An app without origins takes that of the first server that uses it: until then its tokens could go nowhere.
void Batch::AllowFirstOrigin(const v1::McpServer& server) {
  const auto app = apps_.find(server.app_auth().oauth_authorization().app());
  const std::string origin = OriginOf(server.upstream_url());
  if (app == apps_.end() || !app->second.allowed_upstream_origins().empty() || origin.empty()) return;
  app->second.add_allowed_upstream_origins(origin);
  for (const auto& change : changes_) {
    if (change->uid == app->second.uid()) {
      dynamic_cast<v1::App&>(*change->after).add_allowed_upstream_origins(origin);
      return;
    }
  }
  auto change = std::make_unique<Change>();
  change->kind = std::string(ResourceTraits<v1::App>::kKind);
  change->vault_kind = std::string(ResourceTraits<v1::App>::kSecretKind);
  change->slug = app->second.slug();
  change->uid = app->second.uid();
  change->expected_version = app->second.version();
  auto before = std::make_unique<v1::App>(app->second);
  before->clear_allowed_upstream_origins();
  change->before = std::move(before);
  change->after = std::make_unique<v1::App>(app->second);
  change->implied = true;
  changes_.push_back(std::move(change));
}

absl::Status Batch::Diff() {
  for (const auto& change : changes_) {
    std::unique_ptr<google::protobuf::Message> nothing(change->after->New());
    change->changes = DiffResources(change->before ? *change->before : *nothing, *change->after);
    bool differs = !change->changes.empty();
    // A value given in a dry run: whether it differs, only the vault knows, and it is not asked before a real write.
    for (const SecretPlan::Put& put : change->plan.puts) {
      const bool listed = std::any_of(change->changes.begin(), change->changes.end(),
                                      [&](const auto& entry) { return entry.field() == put.json_path; });
      if (listed) continue;
      v1::ApplyResponse::FieldChange entry;
      // Where there is none yet, it certainly differs.
      const bool first = put.base == 0;
      entry.set_field(put.json_path);
      entry.set_before(first ? "" : "(secret)");
      entry.set_after(first ? "(secret)" : "(secret, compared when applied)");
      change->changes.push_back(std::move(entry));
      differs = differs || first;
    }
    if (differs && change->stale_version != 0) {
      return Outdated(change->slug, change->expected_version, change->stale_version);
    }
  }
  return absl::OkStatus();
}

absl::Status Batch::Preview() {
  RETURN_IF_ERROR(Diff());
  for (const auto& change : changes_) {
    if (!change->unchanged()) SetVersion(*change->after, change->expected_version + 1);
  }
  return absl::OkStatus();
}

absl::Status Batch::AnnounceSecrets() {
  write_ = RandomToken("", 16);
  for (const auto& change : changes_) {
    for (const SecretPlan::Put& put : change->plan.puts) announced_.push_back({write_, put.record, change->vault_kind});
  }
  if (announced_.empty()) return absl::OkStatus();
  return catalog_.database_.Write([&](Transaction& tx) { return Store::BeginSecretWrites(tx, announced_, now_); });
}

absl::Status Batch::PutSecrets(Change& change) {
  std::map<std::string, SecretVault::Stored> stored;
  for (const SecretPlan::Put& put : change.plan.puts) {
    ASSIGN_OR_RETURN(stored[put.path], catalog_.vault_.Put(change.vault_kind, put.record, {put.value, put.base, write_},
                                                           writer_.passport));
  }
  ForEachSecret(*change.after, [&](const SecretField& field) {
    const auto entry = stored.find(field.path);
    if (entry == stored.end()) return;
    const std::string record = absl::StrCat(change.uid, "/", field.path);
    change.entered.emplace_back(record, entry->second.version);
    const int64_t old_version = field.secret->version();
    if (field.secret->set() && old_version == entry->second.version) return;
    if (field.secret->set()) change.replaced.push_back({record, change.vault_kind, old_version});
    field.secret->Clear();
    field.secret->set_set(true);
    field.secret->set_version(entry->second.version);
    field.secret->set_vault_record(record);
    *field.secret->mutable_updated_at() = ToTimestamp(now_);
  });
  change.plan.puts.clear();  // The values are in the vault now; the diff goes by versions.
  return absl::OkStatus();
}

// The drafts were checked against what was there when they were loaded; an app deleted since must not be referred to.
absl::Status Batch::CheckAppStillThere(Transaction& tx, const Change& change) {
  const auto* server = dynamic_cast<const v1::McpServer*>(change.after.get());
  if (server == nullptr || !server->app_auth().has_oauth_authorization()) return absl::OkStatus();
  const auto& oauth = server->app_auth().oauth_authorization();
  ASSIGN_OR_RETURN(const auto app, Store::FindBySlug(tx, ResourceTraits<v1::App>::kKind, oauth.app()));
  if (app && app->uid == oauth.app_uid()) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat("app ", oauth.app(), " was deleted meanwhile: read it again"));
}

absl::Status Batch::Save(Transaction& tx, Change& change) {
  RETURN_IF_ERROR(Store::Save(tx, change.kind,
                              {change.uid, change.slug, change.expected_version + 1, change.after->SerializeAsString()},
                              change.expected_version));
  for (const SecretPlan::Old& old : change.plan.retire) {
    RETURN_IF_ERROR(Store::Retire(
        tx, {old.record, change.vault_kind, old.version, old.updated_at, old.origin, now_ + kKeepRetired}));
  }
  // Erased after the commit; should that fail, housekeeping finds them here.
  for (const SecretPlan::Old& old : change.plan.erase) {
    RETURN_IF_ERROR(
        Store::Retire(tx, {old.record, change.vault_kind, old.version, old.updated_at, old.origin, Store::kErasing}));
  }
  for (const auto& [record, version] : change.entered) RETURN_IF_ERROR(Store::Supersede(tx, record, version));
  for (const Store::Replaced& replaced : change.replaced) RETURN_IF_ERROR(Store::ListReplaced(tx, replaced));
  // Whatever is referred to again must not be erased when its retirement ends, and cannot be once that has begun.
  for (const SecretPlan::Old& old : change.plan.resumed) {
    RETURN_IF_ERROR(Store::Resume(tx, old.record, old.version));
  }

  audit::v1::Event event =
      ConfigEvent(change.before ? "config.updated" : "config.created", {change.kind, change.uid, change.slug}, writer_);
  event.set_decision(audit::v1::DECISION_ALLOWED);
  event.set_rule(change.implied ? "first_origin" : "admin");
  auto& details = *event.mutable_details();
  details["version"] = absl::StrCat(change.expected_version + 1);
  std::vector<std::string> fields;
  for (const auto& entry : change.changes) fields.push_back(entry.field());
  details["fields"] = JoinFields(fields);
  return catalog_.audit_.Append(tx, std::move(event));
}

void Batch::CleanUp(const Change& change) {
  const auto report = [&](const absl::Status& status, const std::string& record) {
    if (!status.ok()) Log(LogLevel::kWarning, "secret_cleanup_failed", {{"record", record}, {"status", status}});
  };
  report(catalog_.Unpin(change.replaced, writer_.passport), "replaced");
  std::vector<Store::Retired> erase;
  for (const SecretPlan::Old& old : change.plan.erase) erase.push_back({old.record, change.vault_kind, old.version});
  for (const auto& [record, version] : change.entered) {
    const auto former = retired_.find(record);
    if (former != retired_.end() && former->second.version < version) erase.push_back(former->second);
  }
  report(catalog_.Erase(erase, writer_.passport), "cleared");
}

// This write is certain not to be stored: what it has put into the vault, and nobody else's, goes. Where the vault does
// not answer now, housekeeping goes on.
void Batch::Withdraw(bool vault_may_still_store) {
  if (announced_.empty()) return;
  absl::Status status = catalog_.database_.Write([&](Transaction& tx) { return Store::GiveUpSecretWrite(tx, write_); });
  status.Update(catalog_.TakeBack(announced_, writer_.passport, vault_may_still_store));
  if (!status.ok()) Log(LogLevel::kWarning, "secret_cleanup_failed", {{"status", status}});
}

absl::Status Batch::Commit() {
  RETURN_IF_ERROR(Diff());  // Before the vault is troubled.
  RETURN_IF_ERROR(AnnounceSecrets());
  for (const auto& change : changes_) {
    if (absl::Status put = PutSecrets(*change); !put.ok()) {
      Withdraw(true);
      return put;
    }
  }
  if (absl::Status outdated = Diff(); !outdated.ok()) {
    Withdraw(false);
    return outdated;
  }
  for (const auto& change : changes_) {
    if (change->unchanged()) continue;
    SetVersion(*change->after, change->expected_version + 1);
    const auto* updated = change->after->GetDescriptor()->FindFieldByName("updated_at");
    change->after->GetReflection()->MutableMessage(change->after.get(), updated)->CopyFrom(ToTimestamp(now_));
  }
  const absl::Status written = catalog_.database_.Write([&](Transaction& tx) -> absl::Status {
    if (!announced_.empty()) RETURN_IF_ERROR(Store::SettleSecretWrites(tx, write_, announced_.size()));
    for (const auto& change : changes_) {
      if (!change->unchanged()) RETURN_IF_ERROR(Save(tx, *change));
    }
    for (const auto& change : changes_) RETURN_IF_ERROR(CheckAppStillThere(tx, *change));
    return absl::OkStatus();
  });
  // After another UNAVAILABLE it may be there all the same; housekeeping finds out.
  const bool lost =
      absl::IsAborted(written) || absl::IsAlreadyExists(written) || ReasonOf(written) == "audit_unavailable";
  if (lost) Withdraw(false);
  RETURN_IF_ERROR(written);
  catalog_.audit_.Kick();
  for (const auto& change : changes_) CleanUp(*change);
  return absl::OkStatus();
}

template absl::Status Batch::Draft(const v1::McpServer&, Mode, const std::string&);
template absl::Status Batch::Draft(const v1::App&, Mode, const std::string&);
template absl::Status Batch::Draft(const v1::Credential&, Mode, const std::string&);

}  // namespace sallyport::registry
