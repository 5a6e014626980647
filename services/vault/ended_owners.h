// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "common/sql/sql.h"
#include "services/vault/record_id.h"

// Users of whom everything was ended, for as long as a passport of before may come.
namespace sallyport::vault {

// `ended_at`: by authn's clock, as passports say when they were made; `now` by the store's. What is noted late takes
// nothing back.
absl::Status NoteEnded(Transaction& tx, const Owner& owner, absl::Time ended_at, absl::Time now);

// The passport is of `owner`, and was made before everything of theirs was ended or in that second.
absl::StatusOr<bool> IsOfBeforeEnd(Transaction& tx, const Owner& owner, const std::optional<Passport>& passport);

}  // namespace sallyport::vault
