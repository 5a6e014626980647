// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "common/mutex.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"

namespace sallyport::testing {

// Where audit events end up. Thread-safe.
class FakeAudit final : public audit::v1::Audit::Service {
 public:
  grpc::Status Append(grpc::ServerContext* /*context*/, const audit::v1::AppendRequest* request,
                      audit::v1::AppendResponse* response) override {
    MutexLock lock(mu_);
    for (const auto& event : request->events()) {
      events_.push_back(event);
      response->set_stored_through(event.sequence());
    }
    changed_.notify_all();
    return grpc::Status::OK;
  }
  std::vector<audit::v1::Event> events() const {
    MutexLock lock(mu_);
    return events_;
  }
  std::vector<std::string> types() const {
    MutexLock lock(mu_);
    std::vector<std::string> types;
    for (const auto& event : events_) types.push_back(event.type());
    return types;
  }
  // Until there is an event of this type and rule; false after a minute.
  bool Await(const std::string& type, const std::string& rule) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(mu_);
    size_t seen = 0;
    while (true) {
      for (; seen < events_.size(); ++seen) {
        if (events_[seen].type() == type && events_[seen].rule() == rule) return true;
      }
      if (changed_.wait_until(mu_, until) == std::cv_status::timeout) return false;
    }
  }

 private:
  mutable Mutex mu_;
  std::condition_variable_any changed_;
  std::vector<audit::v1::Event> events_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::testing
