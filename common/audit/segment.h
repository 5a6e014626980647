// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/clock.h"
#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport {

// Audit events in append-only files of a directory, hash-chained, until AuditShipper has moved them to the registry.
//
// Files: <boot>-<number>.seg (common/audit/segment_format.h); `lock`; `sequence`, a shared page, so that kill -9 does
// not lose the count. Sequences begin at 1 with every boot and have no gaps: what is missing becomes an event of type
// "lost" whose `sequence` is lost_to.
//
// Open cuts an incomplete or altered tail and writes the "lost" event of a boot that ended without Close. One process
// at a time uses a directory. Thread-safe.
class AuditSegments {
 public:
  static constexpr int64_t kDefaultMaxBytes = int64_t{1} << 30;
  struct Options {
    std::string directory;  // Created (0700) when absent.
    std::string source;     // "edge/<replica>"
    int64_t segment_bytes = 8 << 20;
    // Unshipped bytes at which appending is refused.
    int64_t max_bytes = kDefaultMaxBytes;
  };
  // A configured Options::max_bytes: the default when 0; INVALID_ARGUMENT naming `field` when below 64 MiB.
  static absl::StatusOr<int64_t> MaxBytesFrom(int64_t configured, absl::string_view field);
  static constexpr int kSlots = 62;

  // FAILED_PRECONDITION if another process uses the directory, UNAVAILABLE for I/O errors.
  static absl::StatusOr<std::unique_ptr<AuditSegments>> Open(const Options& options, const Clock& clock);
  ~AuditSegments();

  // Random, 22 characters.
  const std::string& boot() const;
  const std::string& directory() const;

  // Synced mode: fills source, boot, sequence (and `at` if absent), writes, and returns once the event is on disk
  // (fdatasync; concurrent callers share one). UNAVAILABLE if it could not be written, RESOURCE_EXHAUSTED over
  // max_bytes; then the decision it records must not be carried out.
  absl::Status Append(audit::v1::Event event);
  // The same of several, in their order, with one sync: all of them are written, or none.
  absl::Status AppendAll(const std::vector<audit::v1::Event>& events);

  // Deferred mode, beside the synced one. TakeOn counts an event that WriteTaken will write soon: should the process
  // die before, it is recorded as lost. Never waits for the disk.
  void TakeOn();
  // Fills in what Append does and writes all of these, or none, which have been taken on; not synced. Errors as Append.
  absl::Status WriteTaken(const std::vector<audit::v1::Event>& events);

  // Batched mode, for those who use no other. A thread that takes on an event adds 1 to its own slot at once (counts
  // survive a crash); the flusher numbers events as it drains them: the first ever is 1, and the sum of all slots is
  // the highest number there can be.
  std::atomic<uint64_t>& given_out(int slot);
  // Writes events first..last: each as varint length and serialized Event (source, boot and sequence filled in by the
  // caller). No fdatasync. A jump from the last number written records the gap as lost. INVALID_ARGUMENT if the batch
  // does not hold last-first+1 events or goes back; UNAVAILABLE or RESOURCE_EXHAUSTED if it could not be written: the
  // numbers are then gone, and recorded as lost by the next call.
  absl::Status AppendSerialized(absl::string_view batch, uint64_t first, uint64_t last);
  // The highest number written or recorded as lost.
  uint64_t last_sequence() const;

  // Syncs and ends cleanly; appending fails from now on. The destructor does it too.
  absl::Status Close();

 private:
  AuditSegments() = default;
  struct State;
  std::unique_ptr<State> state_;
};

// Reads one segment file. For the shipper and for verification.
class AuditSegmentReader {
 public:
  // DATA_LOSS if the header is bad.
  static absl::StatusOr<std::unique_ptr<AuditSegmentReader>> Open(const std::string& path);
  ~AuditSegmentReader();
  const std::string& source() const;
  const std::string& boot() const;
  uint64_t last_sequence_before() const;
  // Continues after an offset that offset() gave, with the chain hash chain() gave there.
  absl::Status Seek(int64_t offset, absl::string_view chain);
  // The next event (serialized). OUT_OF_RANGE at the end or before a record that is not complete yet; DATA_LOSS if the
  // chain is broken.
  absl::Status Next(std::string* event);
  int64_t offset() const;
  // 32 bytes.
  std::string chain() const;

 private:
  AuditSegmentReader() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport
