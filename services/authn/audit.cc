// SPDX-License-Identifier: Apache-2.0
#include "services/authn/audit.h"

#include "common/text/utf8.h"

namespace sallyport::authn {
namespace {

constexpr size_t kMaxName = 256;

}  // namespace

Audit::Audit(Database& database, const Clock& clock, int64_t limit)
    : outbox_(database, clock, AuditOutbox::Options{.source = "authn", .limit = limit}) {}

void Audit::StartShipping(std::shared_ptr<grpc::Channel> registry) {
  outbox_.StartShipping(MakeAuditSink(std::move(registry)));
}

audit::v1::Event MakeEvent(const std::string& type, audit::v1::Decision decision, const std::string& subject) {
  audit::v1::Event event;
  event.set_type(type);
  event.set_decision(decision);
  event.set_subject(subject);
  return event;
}

void NameUser(absl::string_view name, absl::string_view email, audit::v1::Event& event) {
  event.set_user_name(PlainText(name, kMaxName));
  event.set_user_email(PlainText(email, kMaxName));
}

void NameUser(const Identity& user, audit::v1::Event& event) { NameUser(user.name, user.email, event); }

void NameClient(absl::string_view name, audit::v1::Event& event) {
  // The command line's name is ours, not its own.
  if (event.client_id() != kCliClientId) event.set_client_name(PlainText(name, kMaxName));
}

}  // namespace sallyport::authn
