// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

#include "common/caller/caller.h"
#include "services/vault/store.h"

// What the parts of Vault note beside their work.
namespace sallyport::vault {

// A user's own connection, read for a call of theirs or by a platform for them. Looking at one's list of accounts is
// none: it would put off the end of those that nobody uses.
bool IsUse(const Caller& caller, const RecordId& id);
// Not noted within a day.
bool IsUseToNote(const RecordRow& row, absl::Time now);

// Metrics.
void CountDamaged(int count);
void CountOwed(int count);

}  // namespace sallyport::vault
