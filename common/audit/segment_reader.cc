// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

#include "common/audit/segment.h"
#include "common/audit/segment_format.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

using audit_format::kHashSize;

template <typename Int>
Int BigEndian(absl::string_view bytes) {
  Int value = 0;
  for (const char c : bytes) {
    value = static_cast<Int>((value << 8) | static_cast<unsigned char>(c));
  }
  return value;
}

}  // namespace

struct AuditSegmentReader::State {
  std::string path;
  int fd = -1;
  int64_t offset = 0;
  std::string source;
  std::string boot;
  uint64_t last_before = 0;
  std::string chain;
  std::string buffer;

  ~State() {
    if (fd >= 0) {
      close(fd);
    }
  }

  // OUT_OF_RANGE if the file ends before `size` bytes at `at`.
  absl::Status ReadAt(int64_t at, size_t size) {
    buffer.resize(size);
    size_t done = 0;
    while (done < size) {
      const ssize_t n = pread(fd, buffer.data() + done, size - done, at + static_cast<int64_t>(done));
      if (n < 0 && errno == EINTR) {
        continue;
      }
      if (n < 0) {
        return absl::UnavailableError(absl::StrCat("cannot read ", path, ": ", strerror(errno)));
      }
      if (n == 0) {
        return absl::OutOfRangeError("the end");
      }
      done += static_cast<size_t>(n);
    }
    return absl::OkStatus();
  }

  absl::Status ReadText(std::string* text) {
    RETURN_IF_ERROR(ReadAt(offset, 2));
    const size_t size = BigEndian<uint16_t>(buffer);
    RETURN_IF_ERROR(ReadAt(offset + 2, size));
    *text = buffer;
    offset += 2 + static_cast<int64_t>(size);
    return absl::OkStatus();
  }

  absl::Status ReadHeader() {
    RETURN_IF_ERROR(ReadAt(0, 8));
    if (buffer != "SPAUDIT1") {
      return absl::DataLossError("not an audit segment");
    }
    offset = 8;
    RETURN_IF_ERROR(ReadText(&source));
    RETURN_IF_ERROR(ReadText(&boot));
    RETURN_IF_ERROR(ReadAt(offset, 8 + kHashSize));
    last_before = BigEndian<uint64_t>(absl::string_view(buffer).substr(0, 8));
    chain = buffer.substr(8);
    offset += static_cast<int64_t>(8 + kHashSize);
    return absl::OkStatus();
  }
};

absl::StatusOr<std::unique_ptr<AuditSegmentReader>> AuditSegmentReader::Open(const std::string& path) {
  auto reader = std::unique_ptr<AuditSegmentReader>(new AuditSegmentReader);
  reader->state_ = std::make_unique<State>();
  State& state = *reader->state_;
  state.path = path;
  state.fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (state.fd < 0) {
    return absl::UnavailableError(absl::StrCat("cannot open ", path, ": ", strerror(errno)));
  }
  if (const absl::Status header = state.ReadHeader(); !header.ok()) {
    return absl::DataLossError(absl::StrCat(path, " has no whole header"));
  }
  return reader;
}

AuditSegmentReader::~AuditSegmentReader() = default;

const std::string& AuditSegmentReader::source() const { return state_->source; }
const std::string& AuditSegmentReader::boot() const { return state_->boot; }
uint64_t AuditSegmentReader::last_sequence_before() const { return state_->last_before; }
int64_t AuditSegmentReader::offset() const { return state_->offset; }
std::string AuditSegmentReader::chain() const { return state_->chain; }

absl::Status AuditSegmentReader::Seek(int64_t offset, absl::string_view chain) {
  if (offset < state_->offset || chain.size() != kHashSize) {
    return absl::InvalidArgumentError("not a position in this file");
  }
  state_->offset = offset;
  state_->chain = std::string(chain);
  return absl::OkStatus();
}

absl::Status AuditSegmentReader::Next(std::string* event) {
  State& state = *state_;
  RETURN_IF_ERROR(state.ReadAt(state.offset, 4));
  const size_t size = BigEndian<uint32_t>(state.buffer);
  if (size > audit_format::kMaxEventBytes) {
    return absl::DataLossError(absl::StrCat(state.path, " is damaged at ", state.offset));
  }
  RETURN_IF_ERROR(state.ReadAt(state.offset + 4, size + kHashSize));
  std::string next_chain = state.chain;
  audit_format::Advance(absl::string_view(state.buffer).substr(0, size), &next_chain);
  if (next_chain != absl::string_view(state.buffer).substr(size)) {
    return absl::DataLossError(absl::StrCat(state.path, " was altered at ", state.offset));
  }
  event->assign(state.buffer, 0, size);
  state.chain = std::move(next_chain);
  state.offset += static_cast<int64_t>(4 + size + kHashSize);
  return absl::OkStatus();
}

}  // namespace sallyport
