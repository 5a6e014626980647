// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "common/secret.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// What a value may be long, in bytes: with its encoding it fits a header line of common servers.
inline constexpr size_t kMaxCredentialBytes = size_t{4} << 10;

// Values of credentials of owner USER: each in the vault, under its user's own key, sealed with the origins it was
// entered for. Thread-safe, blocking.
class UserCredentials {
 public:
  // All outlive this.
  UserCredentials(const ControlStream& control, VaultClient& vault, Invalidations& invalidations, const AuditLog& audit,
                  const Clock& clock);

  struct Stored {
    Secret value;
    std::string username;
    int64_t generation = 0;
    int64_t version = 0;
    std::vector<std::string> origins;  // It was entered for.

    bool Allows(absl::string_view origin) const;
  };
  // The passport's own user's, if there is one.
  absl::StatusOr<std::optional<Stored>> Read(const std::string& credential_uid, const Passport& passport);

  struct Entry {
    const registry::v1::Credential* credential = nullptr;
    std::string subject;  // Whose.
    absl::string_view value;
    absl::string_view username;
    std::string client_address;
  };
  // In place of the value before. INVALID_ARGUMENT naming "value" or "username"; PERMISSION_DENIED reason
  // passport_mismatch or role_missing: not the caller's own, and no credential-admin.
  absl::Status Set(const Entry& entry, const Passport& by);

  // As RPCs have them; errors as in the proto.
  absl::StatusOr<v1::ListOwnCredentialsResponse> List(const Passport& passport);
  absl::StatusOr<v1::SetCredentialResponse> Set(const v1::SetCredentialRequest& request, const Passport& passport);
  absl::StatusOr<v1::ClearCredentialResponse> Clear(const v1::ClearCredentialRequest& request,
                                                    const Passport& passport);

 private:
  absl::Status Store(const Entry& entry, const Passport& by);
  // `name`: as the caller calls the credential, whose configuration may be gone.
  absl::Status Erase(const Entry& entry, const std::string& name, const Passport& by);
  absl::Status Admit(const Entry& entry, const std::string& name, const Passport& by) const;
  absl::Status Record(const char* type, const Entry& entry, const std::string& name, const Passport& by,
                      int64_t generation) const;

  const ControlStream& control_;
  VaultClient& vault_;
  Invalidations& invalidations_;
  const AuditLog& audit_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker
