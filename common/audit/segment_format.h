// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// Bytes and names of audit segment files, shared by writer, reader and shipper.
//   name    <boot>-<number, 8 digits>.seg
//   header  "SPAUDIT1" · u16 length, source · u16 length, boot · u64 last sequence before this file · 32 bytes hash the
//   chain continues
//           from
//   record  u32 length · serialized sallyport.audit.v1.Event · SHA-256(previous hash || event)
// Integers are big-endian.
namespace sallyport::audit_format {

inline constexpr size_t kHashSize = 32;
inline constexpr size_t kMaxEventBytes = 64 << 10;

std::string Header(const std::string& source, const std::string& boot, uint64_t last_sequence, absl::string_view chain);
// Adds a record to `out` and moves `chain` on. Allocates nothing once `out` is large enough.
void AppendRecord(absl::string_view event, std::string* chain, std::string* out);
// SHA-256(chain || event) into `chain`.
void Advance(absl::string_view event, std::string* chain);

struct SegmentFile {
  std::string path;
  std::string boot;
  uint64_t number = 0;
  int64_t bytes = 0;
};
// Boots in the order of their oldest file, numbers ascending.
std::vector<SegmentFile> ListSegments(const std::string& directory);
int64_t TotalBytes(const std::string& directory);

struct Tail {
  uint64_t last_sequence = 0;
  std::string chain;
};
// Verifies the file and cuts it behind its last good record. DATA_LOSS if not even the header is good.
absl::StatusOr<Tail> CutTail(const std::string& path);

}  // namespace sallyport::audit_format
