// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/mutex.h"

namespace sallyport {

// Keeps one provider that is slow or down from taking everything with it: bounds calls in flight per key (an origin)
// and stops calling for a while after a row of failures. Thread-safe.
class ProviderGate {
 public:
  struct Options {
    int max_in_flight = 32;
    // Consecutive failures that open the circuit.
    int failures_to_open = 5;
    // How long nothing is sent; then a single call probes, and its result closes or re-opens.
    absl::Duration open_for = absl::Seconds(10);
    // Keys remembered; idle, healthy ones are forgotten first.
    size_t max_keys = 1000;
  };

  explicit ProviderGate(Options options) : options_(options) {}

  // RESOURCE_EXHAUSTED (too many in flight) or UNAVAILABLE with reason "circuit_open"; both carry retry_after. After
  // OK, Leave must be called exactly once.
  absl::Status Enter(const std::string& key, absl::Time now);
  // kFailure: no answer, or a 5xx. kNeutral: says nothing about the provider (we gave up, refused by our own policy).
  enum class Outcome { kSuccess, kFailure, kNeutral };
  void Leave(const std::string& key, Outcome outcome, absl::Time now);

 private:
  struct Entry {
    int in_flight = 0;
    int failures = 0;
    bool probing = false;
    absl::Time open_until = absl::InfinitePast();
  };
  void Trim(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Options options_;
  Mutex mu_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport
