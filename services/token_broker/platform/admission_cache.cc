// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/admission_cache.h"

#include <utility>

namespace sallyport::token_broker {

std::optional<AdmissionCache::Answer> AdmissionCache::Find(const std::string& key, absl::Duration max_age,
                                                           absl::Time now) {
  MutexLock lock(mu_);
  if (const auto found = admitted_.by_key.find(key); found != admitted_.by_key.end()) {
    const Entry& entry = *found->second;
    if (entry.until > now && now - (*entry.answer)->asked_at <= max_age) {
      admitted_.entries.splice(admitted_.entries.begin(), admitted_.entries, found->second);
      return entry.answer;
    }
  }
  if (const auto found = refused_.by_key.find(key); found != refused_.by_key.end() && found->second->until > now) {
    return found->second->answer;
  }
  return std::nullopt;
}

uint64_t AdmissionCache::Mark() const {
  MutexLock lock(mu_);
  return heard_;
}

void AdmissionCache::Erase(Store& store, const std::string& key) {
  const auto found = store.by_key.find(key);
  if (found == store.by_key.end()) {
    return;
  }
  const auto entry = found->second;
  if (entry->answer.ok()) {
    for (const std::string& what : (*entry->answer)->ended_by) {
      if (const auto keys = ended_by_.find(what); keys != ended_by_.end()) {
        keys->second.erase(key);
        if (keys->second.empty()) ended_by_.erase(keys);
      }
    }
  }
  store.by_key.erase(found);
  store.entries.erase(entry);  // Last: `key` may be its own.
}

void AdmissionCache::Insert(Store& store, size_t max, Entry entry) {
  Erase(store, entry.key);
  if (store.entries.size() >= max) {
    Erase(store, store.entries.back().key);
  }
  store.entries.push_front(std::move(entry));
  store.by_key[store.entries.front().key] = store.entries.begin();
}

void AdmissionCache::Put(const std::string& key, const Answer& answer, uint64_t mark, absl::Time now) {
  MutexLock lock(mu_);
  if (!answer.ok()) {
    if (absl::IsUnauthenticated(answer.status()) || absl::IsPermissionDenied(answer.status())) {
      Insert(refused_, kMaxRefused, {key, answer, now + kRefusalKept});
    }
    return;
  }
  if (heard_ != mark) {
    return;
  }
  Insert(admitted_, kMaxAdmitted, {key, answer, (*answer)->valid_until});
  for (const std::string& what : (*answer)->ended_by) {
    ended_by_[what].insert(key);
  }
}

void AdmissionCache::End(const std::vector<std::string>& what) {
  MutexLock lock(mu_);
  ++heard_;
  for (const std::string& one : what) {
    const auto found = ended_by_.find(one);
    if (found == ended_by_.end()) continue;
    const absl::flat_hash_set<std::string> keys = std::move(found->second);
    ended_by_.erase(found);
    for (const std::string& key : keys) {
      Erase(admitted_, key);
    }
  }
}

void AdmissionCache::Clear() {
  MutexLock lock(mu_);
  ++heard_;
  admitted_ = {};
  ended_by_.clear();
}

}  // namespace sallyport::token_broker
