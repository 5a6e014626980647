// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport {
class Database;
}  // namespace sallyport

namespace sallyport::authn {

// People whose identity provider no longer renews the tokens of their sign-in: its session has ended, or they were
// disabled there. Our own session and grants outlive that, so without this memory an authorization in the same browser
// would give a grant that has no tokens behind it again. The broker finds out (Authn.EndSignIn); a sign-in whose tokens
// were stored ends it. Thread-safe.
class EndedSignIns {
 public:
  // `database` outlives this.
  explicit EndedSignIns(Database& database) : database_(database) {}

  absl::Status Mark(absl::string_view subject, absl::Time now);
  // Has the sign-in behind a session or grant made at `begun_at` ended? One that was made later is another sign-in: if
  // its tokens could not be stored, signing in once more at once would help nobody.
  absl::StatusOr<bool> Has(absl::string_view subject, absl::Time begun_at) const;
  absl::Status Clear(absl::string_view subject);
  // Drops what no session or grant can be from any more. Returns how many.
  absl::StatusOr<int> Prune(absl::Time now);

 private:
  Database& database_;
};

}  // namespace sallyport::authn
