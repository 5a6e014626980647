// SPDX-License-Identifier: Apache-2.0
#include "services/authn/audit.h"

namespace sallyport::authn {

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

}  // namespace sallyport::authn
