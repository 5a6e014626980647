// SPDX-License-Identifier: Apache-2.0
#include "services/registry/batch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/registry/diff.h"
#include "services/registry/errors.h"
#include "services/registry/references.h"
#include "services/registry/store.h"

namespace sallyport::registry {
namespace {

absl::Status Outdated(const std::string& slug, int64_t stored, int64_t given) {
  return absl::AbortedError(absl::StrCat(slug, " is at version ", stored, ", not ", given, ": read it again"));
}

template <typename T>
absl::Status LoadKind(Transaction& tx, std::map<std::string, T>& into) {
  into.clear();
  ASSIGN_OR_RETURN(const auto stored, Store::List(tx, ResourceTraits<T>::kKind));
  for (const Store::Resource& resource : stored) {
    T& message = into[resource.slug];
    // Records in the vault go by the uid: a body that carries another one was not written here.
    if (!message.ParseFromString(resource.body) || message.uid() != resource.uid) return error::DamagedResource();
  }
  return absl::OkStatus();
}

// A new change that begins with `before` as it is stored.
template <typename T>
std::unique_ptr<Batch::Change> ChangeOf(const T& before) {
  auto change = std::make_unique<Batch::Change>();
  change->kind = ResourceTraits<T>::kKind;
  change->vault_kind = ResourceTraits<T>::kSecretKind;
  change->uid = before.uid();
  change->slug = before.slug();
  change->expected_version = before.version();
  return change;
}

}  // namespace

absl::Status Batch::Load() {
  connectors_ = parts_.options.connectors();  // Once a batch: every question costs its time-out while authn is down.
  return LoadStored();
}

absl::Status Batch::LoadStored() {
  return parts_.database.Read([&](Transaction& tx) -> absl::Status {
    RETURN_IF_ERROR(LoadKind(tx, Working<v1::McpServer>()));
    RETURN_IF_ERROR(LoadKind(tx, Working<v1::App>()));
    RETURN_IF_ERROR(LoadKind(tx, Working<v1::Credential>()));
    ASSIGN_OR_RETURN(const auto versions, SecretLedger::List(tx));
    retired_.clear();
    for (const SecretLedger::Version& version : versions) {
      if (version.state == SecretLedger::State::kRetired) retired_[version.record] = version;
    }
    return absl::OkStatus();
  });
}

ValidationContext Batch::Context() {
  ValidationContext context;
  context.upstream_networks = parts_.options.upstream_networks;
  context.oauth_networks = parts_.options.oauth_networks;
  context.app = [this](absl::string_view slug) { return Find<v1::App>(slug); };
  context.credential = [this](absl::string_view slug) { return Find<v1::Credential>(slug); };
  context.connectors = connectors_;
  context.now = now_;
  context.announced_methods = [this](const std::string& issuer) -> std::optional<std::vector<std::string>> {
    if (issuer_silent_) return std::nullopt;  // One time-out a file is enough.
    auto announced = parts_.options.issuer_auth_methods(issuer);
    if (announced.ok()) return *std::move(announced);
    issuer_silent_ = absl::IsUnavailable(announced.status()) || absl::IsDeadlineExceeded(announced.status());
    return std::nullopt;
  };
  return context;
}

RetiredVersion Batch::Retired() const {
  return [this](const std::string& record) -> std::optional<SecretLedger::Version> {
    const auto found = retired_.find(record);
    if (found == retired_.end() || found->second.until <= now_) return std::nullopt;
    return found->second;
  };
}

template <typename T>
absl::StatusOr<std::unique_ptr<Batch::Change>> Batch::Begin(const T& input, Mode mode, const std::string& prefix) {
  const auto stored = Working<T>().find(input.slug());
  if (stored == Working<T>().end()) {
    if (mode == Mode::kUpdate) {
      return absl::NotFoundError(absl::StrCat("no ", ResourceTraits<T>::kKind, " ", input.slug().substr(0, 64)));
    }
    auto change = ChangeOf(input);
    change->uid = MakeUid(ResourceTraits<T>::kUidPrefix);
    change->expected_version = 0;
    change->prefix = prefix;
    change->after = input;
    return change;
  }
  if (mode == Mode::kCreate) {
    return absl::AlreadyExistsError(absl::StrCat("slug ", input.slug().substr(0, 64), " is taken: choose another"));
  }
  auto change = ChangeOf(stored->second);
  change->prefix = prefix;
  change->after = input;
  if (input.version() != 0 && input.version() != stored->second.version()) {
    // A file that was printed and applied once names the version before: applying it again must change nothing.
    if (mode != Mode::kApply) return Outdated(input.slug(), stored->second.version(), input.version());
    change->stale_version = input.version();
  }
  T before = stored->second;
  if constexpr (requires { ResourceTraits<T>::NormalizeStored(connectors_, before); }) {
    ResourceTraits<T>::NormalizeStored(connectors_, before);
  }
  change->before_urls.emplace(before);
  change->before = std::move(before);
  return change;
}

template <typename T>
void Batch::Check(Change& change, Findings& findings) {
  const T* before = change.before ? &std::get<T>(*change.before) : nullptr;
  T& after = std::get<T>(change.after);
  after.set_uid(change.uid);
  after.set_version(change.expected_version);
  *after.mutable_created_at() = before != nullptr ? before->created_at() : ToTimestamp(now_);
  *after.mutable_updated_at() = before != nullptr ? before->updated_at() : ToTimestamp(now_);
  if constexpr (Bindable<T>) {
    after.clear_binding();
    if (before != nullptr && before->has_binding()) *after.mutable_binding() = before->binding();
  }
  if constexpr (requires { ResourceTraits<T>::Normalize(connectors_, before, after, findings); }) {
    ResourceTraits<T>::Normalize(connectors_, before, after, findings);
  }
  change.urls.emplace(after);
  if (!change.before_urls) change.before_urls.emplace();
  const RetiredVersion retired = Retired();
  const ValidationContext context = Context();
  change.plan = ResourceTraits<T>::Check(
      {before, after, *change.before_urls, *change.urls, change.uid, writer_.credential_admin, context, retired},
      findings);
}

template <typename T>
absl::Status Batch::Draft(const T& input, Mode mode, const std::string& prefix) {
  if (std::is_same_v<T, v1::Credential> && !writer_.credential_admin) {
    denials_.push_back({ResourceTraits<T>::kKind, input.slug(), "", kRoleRule, {}});
    return absl::PermissionDeniedError("only a credential-admin may write credentials");
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Change> change, Begin(input, mode, prefix));
  Findings findings;
  Check<T>(*change, findings);
  Report(*change, findings);
  change->warnings = std::move(findings.warnings);
  Working<T>()[input.slug()] = std::get<T>(change->after);
  ResolveReferences(*change);  // What changes with it stands before it.
  changes_.push_back(std::move(change));
  return absl::OkStatus();
}

void Batch::Report(const Change& change, Findings findings) {
  for (ErrorDetail::Violation& violation : findings.violations) {
    violations_.push_back({change.prefix + violation.field, std::move(violation.message)});
  }
  for (auto& [rule, fields] : findings.denied) {
    denials_.push_back({change.kind, change.slug, change.before ? change.uid : "", rule, std::move(fields)});
  }
}

absl::Status Batch::Admit(const absl::Status& drafted, std::vector<Denial>* denials) {
  const absl::Status refused = drafted.ok() ? InvalidFields(violations_) : drafted;
  if (!refused.ok()) *denials = std::move(denials_);
  return refused;
}

// Servers refer to apps and credentials by uid.
void Batch::ResolveReferences(Change& change) {
  auto* server = std::get_if<v1::McpServer>(&change.after);
  if (server == nullptr) return;
  ForEachReference(*server, [this](const Reference& reference) {
    if (reference.kind == ResourceTraits<v1::App>::kKind) {
      const v1::App* app = Find<v1::App>(reference.slug);
      *reference.uid = app == nullptr ? "" : app->uid();
    } else {
      const v1::Credential* credential = Find<v1::Credential>(reference.slug);
      *reference.uid = credential == nullptr ? "" : credential->uid();
    }
  });
  ChooseForms(*server);
  if (server->app_auth().has_oauth_authorization()) {
    AllowFirstOrigin(server->app_auth().oauth_authorization().app(), change.urls->UpstreamOrigin());
  }
}

// Whose value of a stored credential goes out, and how it is written, where the server leaves it open.
void Batch::ChooseForms(v1::McpServer& server) {
  using Stored = v1::OutboundHeader::StoredCredential;
  for (v1::OutboundHeader& header : *server.mutable_outbound_headers()) {
    if (!header.has_stored_credential()) continue;
    Stored& stored = *header.mutable_stored_credential();
    const v1::Credential* credential = Find<v1::Credential>(stored.credential());
    const bool own = credential != nullptr && credential->owner() == v1::Credential::USER;
    if (own && stored.match() == Stored::MATCH_UNSPECIFIED) stored.set_match(Stored::PER_USER);
    if (stored.form() != Stored::FORM_UNSPECIFIED) continue;
    const bool basic = credential != nullptr && credential->kind() == v1::Credential::PASSWORD &&
                       (own || !credential->username().empty()) && header.prefix().empty();
    stored.set_form(basic ? Stored::BASIC : Stored::VALUE);
  }
}

// An app without origins takes that of the first server that uses it: until then its tokens could go nowhere.
void Batch::AllowFirstOrigin(const std::string& app_slug, const std::string& origin) {
  const auto found = Working<v1::App>().find(app_slug);
  if (found == Working<v1::App>().end() || origin.empty()) return;
  v1::App& app = found->second;
  if (!app.allowed_upstream_origins().empty()) return;
  const v1::App before = app;
  app.add_allowed_upstream_origins(origin);
  for (const auto& change : changes_) {
    if (change->uid != app.uid()) continue;
    std::get<v1::App>(change->after).add_allowed_upstream_origins(origin);
    return;
  }
  auto change = ChangeOf(before);
  change->before = before;
  change->after = app;
  change->implied = true;
  change->before_urls.emplace();
  change->urls.emplace();
  changes_.push_back(std::move(change));
}

absl::Status Batch::Diff() {
  for (const auto& change : changes_) {
    const google::protobuf::Message& after = MessageOf(change->after);
    const std::unique_ptr<google::protobuf::Message> nothing(after.New());
    change->changes = DiffResources(change->before ? MessageOf(*change->before) : *nothing, after);
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
    if (change->unchanged()) continue;
    std::visit([&](auto& after) { after.set_version(change->expected_version + 1); }, change->after);
  }
  return absl::OkStatus();
}

// The drafts were checked against what was there when they were loaded; what was deleted since must not be referred to.
absl::Status Batch::CheckReferencesStillThere(Transaction& tx, Change& change) {
  auto* server = std::get_if<v1::McpServer>(&change.after);
  absl::Status status;
  if (server == nullptr) return status;
  ForEachReference(*server, [&](const Reference& reference) {
    const auto found = Store::FindBySlug(tx, reference.kind, reference.slug);
    if (!status.ok() || (found.ok() && *found && (*found)->uid == *reference.uid)) return;
    status = found.ok() ? absl::AbortedError(absl::StrCat(reference.kind, " ", reference.slug,
                                                          " was deleted meanwhile: read it again"))
                        : found.status();
  });
  return status;
}

template absl::Status Batch::Draft(const v1::McpServer&, Mode, const std::string&);
template absl::Status Batch::Draft(const v1::App&, Mode, const std::string&);
template absl::Status Batch::Draft(const v1::Credential&, Mode, const std::string&);

}  // namespace sallyport::registry
