// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <sys/types.h>

#include "common/secret.h"

namespace sallyport {

inline constexpr size_t kMaxFileSize = size_t{16} << 20;

// NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT (not a regular file, or larger than `max_size`), UNAVAILABLE (I/O
// error). Messages name the path.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_size = kMaxFileSize);

// ReadFile after CheckPrivate, without one trailing newline. INVALID_ARGUMENT if nothing is left.
absl::StatusOr<Secret> ReadSecretFile(const std::string& path, size_t max_size = 64 << 10);

// FAILED_PRECONDITION if users other than owner and group can read the file, or anyone but the owner can write it, or
// the owner is neither root nor this process.
absl::Status CheckPrivate(const std::string& path);

// Replaces the file as a whole: written beside it, synced, renamed over it, directory synced. A crash leaves the old or
// the new content. RESOURCE_EXHAUSTED when the disk is full.
absl::Status WriteFileAtomic(const std::string& path, absl::string_view content, mode_t mode = 0600);

// Creates the directory and its parents; those that exist are left as they are. INVALID_ARGUMENT if it is no directory.
absl::Status MakeDirectories(const std::string& path, mode_t mode = 0700);

// OK also when there was none.
absl::Status RemoveFile(const std::string& path);

}  // namespace sallyport
