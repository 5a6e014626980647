// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <list>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "services/token_broker/platform/admission.h"

namespace sallyport::token_broker {

// What authn has said of callers, by the digest of everything they showed. Admissions until authn must be asked again,
// refusals for 5 s, each in a store of its own, so that strangers displace nobody; those go first that were not used
// for longest. Thread-safe.
class AdmissionCache {
 public:
  static constexpr size_t kMaxAdmitted = 50'000;
  static constexpr size_t kMaxRefused = 5'000;
  static constexpr absl::Duration kRefusalKept = absl::Seconds(5);

  using Answer = absl::StatusOr<SharedAdmission>;
  // Nothing if it is not known. Of admissions only those that are not older than `max_age`.
  std::optional<Answer> Find(const std::string& key, absl::Duration max_age, absl::Time now);

  // To be taken before authn is asked, and given back with its answer.
  uint64_t Mark() const;
  // Not kept if anything was ended since `mark`: the answer may be of before.
  void Put(const std::string& key, const Answer& answer, uint64_t mark, absl::Time now);

  // As in Admission::ended_by.
  void End(const std::vector<std::string>& what);
  // After a gap in what is heard.
  void Clear();

 private:
  struct Entry {
    std::string key;
    Answer answer;
    absl::Time until;
  };
  struct Store {
    std::list<Entry> entries;  // Used last, first.
    absl::flat_hash_map<std::string, std::list<Entry>::iterator> by_key;
  };
  void Insert(Store& store, size_t max, Entry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Erase(Store& store, const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  Store admitted_ ABSL_GUARDED_BY(mu_);
  Store refused_ ABSL_GUARDED_BY(mu_);
  // Keys of admissions.
  absl::flat_hash_map<std::string, absl::flat_hash_set<std::string>> ended_by_ ABSL_GUARDED_BY(mu_);
  uint64_t heard_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::token_broker
