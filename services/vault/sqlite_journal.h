// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace sallyport::vault {

// Moves the write-ahead log of this SQLite file into the file and empties it, so that no page of a destroyed key stays
// behind in it. Readers that are busy keep it from being complete; what is left goes with the next checkpoint.
void TruncateSqliteJournal(const std::string& path);

}  // namespace sallyport::vault
