// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/endings.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "common/error.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(5);
// Whoever links while their keys are destroyed is ended once more.
constexpr int kDestructions = 3;
// Of everybody's of an app: what was owed before and is told of again.
constexpr int kMostEarlier = 1'000;

// What the request is about, as a passport of purpose end names it.
absl::StatusOr<Passport::End> WhatOf(const v1::EndConnectionsRequest& request) {
  Passport::End what{.subject = request.subject(), .app_uid = request.app_uid(), .label = request.label()};
  if (what.subject.empty() && what.app_uid.empty()) {
    return InvalidField("subject", "or app_uid is required");
  }
  if (request.whole_user() && (what.subject.empty() || !what.app_uid.empty())) {
    return InvalidField("whole_user", "goes with a subject alone");
  }
  const bool of_one_app = !what.subject.empty() && !what.app_uid.empty();
  const bool every = what.label.empty() || what.label == "*";
  if (!every && (request.every_label() || !of_one_app)) {
    return InvalidField("label", "goes with subject and app_uid, and without every_label");
  }
  if (request.every_label() || !of_one_app) {
    what.label = "*";
  }
  return what;
}

bool Covers(const Passport::End& what, const ConnectionKey& key) {
  return (what.subject.empty() || what.subject == key.subject) &&
         (what.app_uid.empty() || what.app_uid == AppUidOf(key.connection)) &&
         (what.label == "*" || what.label == AccountLabelOf(key.connection));
}

ConnectionKey KeyOf(const vault::v1::RecordName& record) { return {record.owner_id(), record.name()}; }

vault::v1::ListRequest ListOf(const std::string& subject, const std::string& kind) {
  vault::v1::ListRequest request;
  request.set_owner_type(vault::v1::USER);
  request.set_owner_id(subject);
  request.set_kind(kind);
  return request;
}

struct Told {
  ConnectionKey key;
  Revocations::Outcome outcome;
};

// Each connection once, however many tokens it held: what is still to be done counts before what cannot be.
std::vector<std::pair<ConnectionKey, std::string>> Merged(const std::vector<Told>& told) {
  const std::vector<std::string> order = {"revoked", "unsupported", "pending"};
  std::vector<std::pair<ConnectionKey, std::string>> merged;
  std::map<std::string, size_t> places;
  for (const Told& one : told) {
    const std::string revocation = Revocations::NameOf(one.outcome);
    const auto [place, is_new] = places.try_emplace(one.key.ToString(), merged.size());
    if (is_new) {
      merged.emplace_back(one.key, revocation);
      continue;
    }
    std::string& former = merged[place->second].second;
    former =
        *std::max(std::find(order.begin(), order.end(), former), std::find(order.begin(), order.end(), revocation));
  }
  return merged;
}

// Attempts under way, by place; shared with the lane's tasks, which may outlast the wait for them.
class Attempts {
 public:
  void Expect() {
    MutexLock lock(mu_);
    ++left_;
  }
  void End(int place, Revocations::Outcome outcome) {
    MutexLock lock(mu_);
    --left_;
    outcomes_[place] = outcome;
    changed_.notify_all();
  }
  // By `clock` no longer than `patience`.
  std::map<int, Revocations::Outcome> Wait(const Clock& clock, absl::Duration patience) {
    const absl::Duration until = clock.Elapsed() + patience;
    MutexLock lock(mu_);
    while (left_ > 0 && clock.Elapsed() < until) {
      changed_.wait_for(mu_, std::chrono::milliseconds(20));
    }
    return outcomes_;
  }

 private:
  Mutex mu_;
  std::condition_variable_any changed_;
  int left_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<int, Revocations::Outcome> outcomes_ ABSL_GUARDED_BY(mu_);
};

using Several = std::vector<vault::v1::OweRevocationResponse::Owed>;

void Append(Several* all, Several* more) {
  all->insert(all->end(), std::make_move_iterator(more->begin()), std::make_move_iterator(more->end()));
}

}  // namespace

Endings::Endings(const ControlStream& control, VaultClient& vault, TokenCache& cache, Invalidations& invalidations,
                 EndedSubjects& ended_subjects, Revocations& revocations, DueLane& lane, const AuditLog& audit,
                 const Clock& clock)
    : control_(control),
      vault_(vault),
      cache_(cache),
      invalidations_(invalidations),
      ended_subjects_(ended_subjects),
      revocations_(revocations),
      lane_(lane),
      audit_(audit),
      clock_(clock) {}

absl::StatusOr<v1::EndConnectionsResponse> Endings::End(const v1::EndConnectionsRequest& request,
                                                        const Passport& passport) {
  ASSIGN_OR_RETURN(const Passport::End what, WhatOf(request));
  const bool named = passport.purpose == Passport::Purpose::kEnd && passport.end == what;
  AuditLog::Entry entry{.type = "connections.ended", .subject = passport.subject};
  entry.decision = named ? audit::v1::DECISION_ALLOWED : audit::v1::DECISION_DENIED;
  entry.rule = !named ? "passport_mismatch" : request.whole_user() ? "whole_user" : "connections";
  entry.details = {{"user", what.subject}, {"app", what.app_uid}, {"account", what.label}};
  RETURN_IF_ERROR(audit_.Record(entry));
  if (!named) {
    return error::PassportMismatch();
  }
  if (request.whole_user()) {
    // Before anything ends: a link that is in flight ends itself when it comes back.
    ended_subjects_.Add(what.subject, passport.issued_at);
    invalidations_.Ended(what.subject, passport.issued_at, clock_.Now());
  }
  Foretell(what, passport);
  v1::EndConnectionsResponse response;
  ASSIGN_OR_RETURN(Page page, OweAndTell(what, passport));
  for (int i = 0; request.whole_user() && !page.more && i < kDestructions; ++i) {
    ASSIGN_OR_RETURN(Page meanwhile, Destroy(what.subject, passport, &response));
    RETURN_IF_ERROR(Tell(meanwhile, passport));
    Append(&page.owed, &meanwhile.owed);
    ASSIGN_OR_RETURN(Page late, OweAndTell(what, passport));
    page.more = late.more || (!late.owed.empty() && i + 1 == kDestructions);
    const bool destroyed = late.owed.empty();
    Append(&page.owed, &late.owed);
    if (destroyed) {
      response.set_keys_destroyed(true);
      break;
    }
  }
  RETURN_IF_ERROR(Await(page, what, &response));
  response.set_more(page.more);
  return response;
}

void Endings::Foretell(const Passport::End& what, const Passport& passport) {
  if (what.subject.empty()) {
    return;
  }
  const absl::StatusOr<std::vector<vault::v1::RecordMetadata>> found = Find(what, passport);
  if (!found.ok()) {
    return;  // What cannot be listed can be ended all the same, perhaps.
  }
  std::vector<Invalidations::Entry> entries;
  for (const vault::v1::RecordMetadata& metadata : *found) {
    entries.push_back({KeyOf(metadata.record()), metadata.generation() + 1});
  }
  invalidations_.Connections(entries, clock_.Now());
}

absl::StatusOr<Endings::Page> Endings::OweAndTell(const Passport::End& what, const Passport& passport) {
  ASSIGN_OR_RETURN(Page page, Owe(what, passport));
  RETURN_IF_ERROR(Tell(page, passport));
  RETURN_IF_ERROR(page.status);
  return page;
}

absl::StatusOr<std::vector<vault::v1::RecordMetadata>> Endings::Find(const Passport::End& what,
                                                                     const Passport& passport) {
  vault::v1::ListRequest list = ListOf(what.subject, "connection");
  list.set_name_prefix(what.app_uid);
  ASSIGN_OR_RETURN(const vault::v1::ListResponse connections, vault_.List(list, passport.jwt));
  std::vector<vault::v1::RecordMetadata> found;
  for (const vault::v1::RecordMetadata& metadata : connections.records()) {
    if (metadata.head() != 0 && Covers(what, KeyOf(metadata.record()))) {
      found.push_back(metadata);
    }
  }
  return found;
}

absl::StatusOr<Endings::Page> Endings::Owe(const Passport::End& what, const Passport& passport) {
  vault::v1::OweRevocationRequest request;
  if (what.app_uid.empty()) {
    request.set_owner_id(what.subject);
    return OweAll(request, passport);
  }
  if (what.subject.empty()) {
    request.set_app_uid(what.app_uid);
    return OweAll(request, passport);
  }
  if (what.label == "*") {
    return OweEach(what, passport);
  }
  *request.mutable_record() = ConnectionRecord(what.subject, ConnectionName(what.app_uid, what.label));
  return OweAll(request, passport);
}

absl::StatusOr<Endings::Page> Endings::OweAll(const vault::v1::OweRevocationRequest& request,
                                              const Passport& passport) {
  absl::StatusOr<vault::v1::OweRevocationResponse> response = vault_.OweRevocation(request, passport.jwt);
  if (absl::IsNotFound(response.status())) {
    return Page();
  }
  RETURN_IF_ERROR(response.status());
  Page page{.owed = {}, .more = response->more()};
  page.owed.assign(std::make_move_iterator(response->mutable_owed()->begin()),
                   std::make_move_iterator(response->mutable_owed()->end()));
  return page;
}

absl::StatusOr<Endings::Page> Endings::OweEach(const Passport::End& what, const Passport& passport) {
  ASSIGN_OR_RETURN(const std::vector<vault::v1::RecordMetadata> found, Find(what, passport));
  Page page;
  for (const vault::v1::RecordMetadata& metadata : found) {
    vault::v1::OweRevocationRequest request;
    *request.mutable_record() = metadata.record();
    absl::StatusOr<Page> one = OweAll(request, passport);
    if (!one.ok()) {
      page.status = one.status();
      break;
    }
    std::move(one->owed.begin(), one->owed.end(), std::back_inserter(page.owed));
  }
  return page;
}

absl::Status Endings::Tell(const Page& page, const Passport& passport) {
  std::vector<Invalidations::Entry> entries;
  for (const Owed& owed : page.owed) {
    entries.push_back({KeyOf(owed.connection()), owed.generation()});
  }
  invalidations_.Connections(entries, clock_.Now());
  std::vector<AuditLog::Entry> records;
  for (const Invalidations::Entry& ended : entries) {
    const v1::EndedConnection described = Describe(ended.key);
    AuditLog::Entry entry{.type = "link.disconnected", .subject = ended.key.subject};
    entry.credentials = {UseOf(described.app_uid(), ended.generation, 0)};
    entry.details = {{"app", described.app_slug().empty() ? described.app_uid() : described.app_slug()},
                     {"by", passport.subject}};
    if (!described.label().empty()) {
      entry.details.emplace_back("account", described.label());
    }
    records.push_back(std::move(entry));
  }
  return audit_.RecordAll(records);
}

absl::StatusOr<Endings::Page> Endings::Destroy(const std::string& subject, const Passport& passport,
                                               v1::EndConnectionsResponse* response) {
  // They go with the keys; counted before, and told of after.
  ASSIGN_OR_RETURN(const vault::v1::ListResponse credentials, vault_.List(ListOf(subject, "credential"), passport.jwt));
  vault::v1::DeleteOwnerRequest destroy;
  destroy.set_owner_type(vault::v1::USER);
  destroy.set_owner_id(subject);
  ASSIGN_OR_RETURN(vault::v1::DeleteOwnerResponse destroyed, vault_.DeleteOwner(destroy, passport.jwt));
  response->set_credentials_erased(response->credentials_erased() + credentials.records_size());
  std::vector<Invalidations::Entry> entries;
  for (const vault::v1::RecordMetadata& credential : credentials.records()) {
    entries.push_back({KeyOf(credential.record()), credential.generation() + 1});
  }
  invalidations_.Connections(entries, clock_.Now());
  cache_.InvalidateSubject(subject);
  Page page;
  page.owed.assign(std::make_move_iterator(destroyed.mutable_owed()->begin()),
                   std::make_move_iterator(destroyed.mutable_owed()->end()));
  return page;
}

absl::Status Endings::Await(const Page& page, const Passport::End& what, v1::EndConnectionsResponse* response) {
  std::vector<Told> told;
  std::set<std::string> asked;
  const auto attempts = std::make_shared<Attempts>();
  for (const Owed& owed : page.owed) {
    const int place = static_cast<int>(told.size());
    told.push_back({KeyOf(owed.connection()), Revocations::Outcome::kPending});
    if (!owed.has_revocation()) {
      // It held no token, or one that nobody can revoke any more.
      told.back().outcome = owed.damaged() ? Revocations::Outcome::kUnsupported : Revocations::Outcome::kRevoked;
      continue;
    }
    const std::string app_uid = AppUidOf(told.back().key.connection);
    // The first of each app asks a provider that did not answer lately, too.
    const bool insist = asked.insert(app_uid).second;
    attempts->Expect();
    const bool posted =
        lane_.Post(app_uid, [attempts, place, insist, revocation = owed.revocation(), &revocations = revocations_] {
          attempts->End(place, revocations.Attempt(revocation, insist));
        });
    if (!posted) {
      attempts->End(place, Revocations::Outcome::kPending);
    }
  }
  for (const auto& [place, outcome] : attempts->Wait(clock_, kPatience)) {
    told[static_cast<size_t>(place)].outcome = outcome;
  }
  if (!page.more) {
    ASSIGN_OR_RETURN(const std::vector<ConnectionKey> earlier, Earlier(what, page));
    for (const ConnectionKey& key : earlier) {
      told.push_back({key, Revocations::Outcome::kPending});
    }
  }
  for (const auto& [key, revocation] : Merged(told)) {
    *response->add_ended() = Describe(key);
    response->mutable_ended(response->ended_size() - 1)->set_revocation(revocation);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ConnectionKey>> Endings::Earlier(const Passport::End& what, const Page& page) {
  std::set<std::string> told;
  for (const Owed& owed : page.owed) {
    told.insert(owed.revocation().record().name());
  }
  ASSIGN_OR_RETURN(const std::vector<vault::v1::RecordMetadata> owed,
                   what.subject.empty() ? OwedOfApp(vault_, what.app_uid, kMostEarlier) : OwedBy(vault_, what.subject));
  std::vector<ConnectionKey> earlier;
  std::vector<Invalidations::Entry> entries;
  for (const vault::v1::RecordMetadata& one : owed) {
    const ConnectionKey key = ConnectionOf(one);
    if (told.count(one.record().name()) > 0 || !Covers(what, key)) {
      continue;
    }
    entries.push_back({key, GenerationOf(one) + 1});
    if (!what.subject.empty()) {
      earlier.push_back(key);
    }
  }
  invalidations_.Connections(entries, clock_.Now());
  return earlier;
}

v1::EndedConnection Endings::Describe(const ConnectionKey& key) const {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  v1::EndedConnection ended;
  ended.set_subject(key.subject);
  ended.set_app_uid(AppUidOf(key.connection));
  ended.set_label(AccountLabelOf(key.connection));
  const registry::v1::App* app = snapshot->AppByUid(ended.app_uid());
  if (app == nullptr) {
    app = snapshot->EndingAppByUid(ended.app_uid());
  }
  if (app != nullptr) {
    ended.set_app_slug(app->slug());
  } else if (KindOf(ended.app_uid()) == ConnectionKind::kSignIn) {
    ended.set_app_slug(ended.app_uid());
  }
  return ended;
}

}  // namespace sallyport::token_broker
