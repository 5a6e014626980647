// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <memory>
#include <set>

#include <grpcpp/client_context.h>

#include "common/mutex.h"

namespace sallyport::edge {

// Asynchronous calls whose callbacks refer to their owner: the owner's destructor cancels them and waits. Thread-safe.
class InFlight {
 public:
  ~InFlight() { CancelAndWait(); }
  // Before the call starts; the token is to live in its callback and ends when that is destroyed.
  using Token = std::shared_ptr<void>;
  Token Add(grpc::ClientContext* context) {
    MutexLock lock(mu_);
    contexts_.insert(context);
    if (ending_) context->TryCancel();
    return Token(this, [this, context](void*) {
      MutexLock end_lock(mu_);
      contexts_.erase(context);
      if (contexts_.empty()) empty_.notify_all();
    });
  }
  void CancelAndWait() {
    std::unique_lock lock(mu_);
    ending_ = true;
    for (grpc::ClientContext* context : contexts_) context->TryCancel();
    empty_.wait(lock, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return contexts_.empty(); });
  }

 private:
  Mutex mu_;
  std::condition_variable_any empty_;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::set<grpc::ClientContext*> contexts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::edge
