// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/renamer.h"

#include <string>

#include "common/error.h"
#include "common/status_macros.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

constexpr int kAttempts = 3;

absl::Status NotConnected() { return absl::NotFoundError("label: this account is not connected"); }

}  // namespace

absl::StatusOr<v1::RenameConnectionResponse> Renamer::Rename(const v1::RenameConnectionRequest& request,
                                                             const Passport& passport) {
  if (passport.purpose != Passport::Purpose::kApi) {
    return error::PassportMismatch();
  }
  RETURN_IF_ERROR(CheckAccountLabel("label", request.label()));
  RETURN_IF_ERROR(CheckAccountLabel("new_label", request.new_label()));
  if (request.label() == request.new_label()) {
    return InvalidField("new_label", "is the label that the account has");
  }
  const registry::v1::App* app = control_.snapshot()->AppBySlug(request.app_slug());
  if (app == nullptr) {
    return absl::NotFoundError("app_slug: no such app");
  }
  const ConnectionKey from = {passport.subject, ConnectionName(app->uid(), request.label())};
  const ConnectionKey to = {passport.subject, ConnectionName(app->uid(), request.new_label())};
  absl::Status moved = Move(from, to, passport);
  for (int attempt = 1; attempt < kAttempts && absl::IsAborted(moved) && ReasonOf(moved) != "leased"; ++attempt) {
    moved = Move(from, to, passport);  // It was renewed between the look and the move.
  }
  if (absl::IsNotFound(moved)) {
    return NotConnected();
  }
  if (absl::IsAlreadyExists(moved)) {
    return absl::AlreadyExistsError("new_label: another account has this label; disconnect or rename that first");
  }
  if (absl::IsAborted(moved)) {
    return WithRetryAfter(absl::UnavailableError("the connection is being renewed; try again"), absl::Seconds(2));
  }
  RETURN_IF_ERROR(moved);
  AuditLog::Entry entry{.type = "link.renamed", .subject = passport.subject};
  entry.details = {{"app", app->slug()}, {"account", request.label()}, {"new_account", request.new_label()}};
  RETURN_IF_ERROR(audit_.Record(entry));
  return v1::RenameConnectionResponse();
}

absl::Status Renamer::Move(const ConnectionKey& from, const ConnectionKey& to, const Passport& passport) {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(from.subject, from.connection);
  ASSIGN_OR_RETURN(const vault::v1::GetResponse record, vault_.Get(get, passport.jwt));
  if (StateOf(record.metadata()) == ConnectionView::State::kAbsent) {
    return NotConnected();
  }
  vault::v1::RenameRequest rename;
  *rename.mutable_record() = get.record();
  rename.set_new_name(to.connection);
  rename.set_expected_version(record.version());
  *rename.mutable_labels() = record.metadata().labels();
  ASSIGN_OR_RETURN(const vault::v1::RenameResponse renamed, vault_.Rename(rename, passport.jwt));
  const absl::Time now = clock_.Now();
  // What is left under the former name is a tombstone, of the next generation there.
  invalidations_.Connection(from, record.metadata().generation() + 1, now);
  invalidations_.Connection(to, renamed.generation(), now);
  return absl::OkStatus();
}

}  // namespace sallyport::token_broker
