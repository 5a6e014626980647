// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

#include "common/caller/caller.h"
#include "services/vault/store.h"

// What the parts of Vault note beside their work.
namespace sallyport::vault {

// A user's own connection, read by them or by what acts for them.
bool IsUse(const Caller& caller, const RecordId& id);
// Not noted within a day.
bool IsUseToNote(const RecordRow& row, absl::Time now);

// Metrics.
void CountDamaged(int count);
void CountOwed(int count);

}  // namespace sallyport::vault
