// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "common/mutex.h"
#include "common/rpc/control_stream.h"

namespace sallyport::edge {

// Keeps the configuration on disk, so that an edge that restarts while the registry is down still serves. Holds no
// secret: the control stream carries references only.
class SnapshotFile {
 public:
  explicit SnapshotFile(std::string path);
  ~SnapshotFile();
  // Hands what is on disk to the stream (before it starts). NOT_FOUND if there is nothing.
  absl::Status Load(ControlStream& control) const;
  // Writes soon, on a thread of its own; of several in a row only the last.
  void Save(std::shared_ptr<const RegistrySnapshot> snapshot);

 private:
  void Run();

  const std::string path_;
  Mutex mu_;
  std::condition_variable_any wake_;
  std::shared_ptr<const RegistrySnapshot> pending_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace sallyport::edge
