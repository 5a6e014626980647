// SPDX-License-Identifier: Apache-2.0
#include "services/edge/snapshot_file.h"

#include "common/files.h"
#include "common/json_log.h"
#include "common/status_macros.h"

namespace sallyport::edge {
namespace {
constexpr size_t kMaxBytes = 256 << 20;
}

SnapshotFile::SnapshotFile(std::string path) : path_(std::move(path)), thread_([this] { Run(); }) {}

SnapshotFile::~SnapshotFile() {
  {
    MutexLock lock(mu_);
    stopped_ = true;
    wake_.notify_all();
  }
  thread_.join();
}

absl::Status SnapshotFile::Load(ControlStream& control) const {
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path_, kMaxBytes));
  return control.Seed(bytes);
}

void SnapshotFile::Save(std::shared_ptr<const RegistrySnapshot> snapshot) {
  MutexLock lock(mu_);
  pending_ = std::move(snapshot);
  wake_.notify_all();
}

void SnapshotFile::Run() {
  while (true) {
    std::shared_ptr<const RegistrySnapshot> snapshot;
    {
      std::unique_lock lock(mu_);
      wake_.wait(lock, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return pending_ != nullptr || stopped_; });
      snapshot.swap(pending_);
      if (snapshot == nullptr) return;
    }
    if (const absl::Status written = WriteFileAtomic(path_, ExportSnapshot(*snapshot)); !written.ok()) {
      Log(LogLevel::kError, "snapshot_write_failed", {{"status", written}});
    }
  }
}

}  // namespace sallyport::edge
