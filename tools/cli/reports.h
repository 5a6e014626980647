// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "tools/cli/api_client.h"

namespace sallyport::cli {

struct AuditQuery {
  std::string type;
  std::string subject;
  std::string server;  // Slug.
  std::string since;   // As ParseSince.
  int limit = 50;
  bool json = false;  // One event a line.
};

// "2026-01-02T03:04:05Z", or how long ago: "30m", "24h", "7d". INVALID_ARGUMENT otherwise.
absl::StatusOr<absl::Time> ParseSince(absl::string_view text, absl::Time now);

// Newest first.
absl::Status PrintAudit(ApiClient& api, const AuditQuery& query, const Terminal& terminal);
// Whose names the audit forgets; one of the two.
struct ErasedNames {
  std::string subject;
  std::string client_id;
};
absl::Status EraseNames(ApiClient& api, const ErasedNames& whose, const Terminal& terminal);
absl::Status PrintWhoAmI(ApiClient& api, const Terminal& terminal);

absl::Status PrintVaultStatus(ApiClient& api, const Terminal& terminal);
absl::Status RotateVault(ApiClient& api, const Terminal& terminal);
// Until nothing is left under an older term.
absl::Status RewrapVault(ApiClient& api, const Terminal& terminal);
absl::Status DestroyVaultTerm(ApiClient& api, int32_t term, const Terminal& terminal);
absl::Status SealVault(ApiClient& api, const Terminal& terminal);

}  // namespace sallyport::cli
