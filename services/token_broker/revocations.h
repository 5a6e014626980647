// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "services/token_broker/app_pauses.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/owed.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/providers.h"
#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Revokes at the provider what is owed (RFC 7009, refresh token first): one attempt at a time, under a lease that the
// vault gives only for what is due. Whoever makes the attempt, what comes of it is audited here: `link.revoked`, and
// `link.revocation_abandoned` for what could not be done for 7 days. Thread-safe, blocking.
class Revocations {
 public:
  // All outlive this.
  Revocations(VaultClient& vault, const ControlStream& control, Providers& providers, TokenEndpoint& endpoint,
              const AuditLog& audit, const Clock& clock);

  enum class Outcome {
    kRevoked,
    kUnsupported,  // The provider has no revocation endpoint that these tokens may go to.
    kPending,      // It will be tried again.
    kAbandoned,    // It will not.
    kGone,         // Another replica has ended it meanwhile, and only the audit says how.
  };
  // "revoked", "unsupported" or "pending": what people are told.
  static std::string NameOf(Outcome outcome);

  // `insist`: even if the provider did not answer lately and is left alone for a while.
  Outcome Attempt(const vault::v1::RecordMetadata& owed, bool insist);

  // Providers that are left alone for now.
  const AppPauses& pauses() const { return pauses_; }
  // So that counters of every app are there from the start.
  void Expect(const RegistrySnapshot& snapshot) const;

 private:
  // The client of an app that is there or ending, or of a connector.
  absl::StatusOr<Provider> ProviderOf(const std::string& app_uid);
  // As people know it; the uid of an app that is gone.
  std::string SlugOf(const std::string& app_uid) const;
  RevocationResult Ask(const vault::v1::AcquireLeaseResponse::Lease& lease, const std::string& app_uid);
  RevocationResult RevokeAt(const Provider& provider, const v1::TokenSet& tokens, const Labels& labels);
  Outcome Settle(const vault::v1::RecordMetadata& owed, const std::string& lease, RevocationResult result);
  AuditLog::Entry EntryOf(const vault::v1::RecordMetadata& owed, const std::string& type) const;
  // Audits, then forgets the record: without a lease that of this version. False if it stays.
  bool End(const vault::v1::RecordMetadata& owed, const std::string& lease, const AuditLog::Entry& entry);
  bool Abandon(const vault::v1::RecordMetadata& owed, const std::string& lease, const std::string& rule);
  void PutOff(const vault::v1::RecordMetadata& owed, const std::string& lease, const std::string& reason,
              absl::Duration age);

  VaultClient& vault_;
  const ControlStream& control_;
  Providers& providers_;
  TokenEndpoint& endpoint_;
  const AuditLog& audit_;
  const Clock& clock_;
  AppPauses pauses_;
};

}  // namespace sallyport::token_broker
