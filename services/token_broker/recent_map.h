// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace sallyport::token_broker {

// At most `max` values by key: one more takes the place of the one whose last use was longest ago, which is found at
// once however many there are. Keys are ordered, so that all of a prefix can be erased. Not thread-safe.
template <typename V>
class RecentMap {
 public:
  explicit RecentMap(size_t max) : max_(max) {}
  RecentMap(const RecentMap&) = delete;
  RecentMap& operator=(const RecentMap&) = delete;

  // Null if there is none. A use. Good until the next call of anything else.
  V* Find(const std::string& key) {
    const auto found = nodes_.find(key);
    if (found == nodes_.end()) return nullptr;
    Use(*found->second);
    return &found->second->value;
  }

  // Makes it if there is none. A use. Good until the next call of anything else.
  V& At(const std::string& key) {
    if (V* known = Find(key); known != nullptr) return *known;
    if (nodes_.size() >= max_) {
      nodes_.erase(uses_.front());
      uses_.pop_front();
    }
    const auto made = nodes_.emplace(key, std::make_unique<Node>()).first;
    made->second->use = uses_.insert(uses_.end(), made);
    return made->second->value;
  }

  void Erase(const std::string& key) {
    if (const auto found = nodes_.find(key); found != nodes_.end()) Remove(found);
  }
  void ErasePrefix(const std::string& prefix) {
    for (auto it = nodes_.lower_bound(prefix); it != nodes_.end() && absl::StartsWith(it->first, prefix);) {
      it = Remove(it);
    }
  }
  void Clear() {
    nodes_.clear();
    uses_.clear();
  }
  size_t size() const { return nodes_.size(); }

 private:
  struct Node;
  using Nodes = std::map<std::string, std::unique_ptr<Node>>;
  using Uses = std::list<typename Nodes::iterator>;
  struct Node {
    V value{};
    typename Uses::iterator use;
  };

  void Use(Node& node) { uses_.splice(uses_.end(), uses_, node.use); }
  typename Nodes::iterator Remove(typename Nodes::iterator it) {
    uses_.erase(it->second->use);
    return nodes_.erase(it);
  }

  const size_t max_;
  Nodes nodes_;
  Uses uses_;  // The last used last.
};

}  // namespace sallyport::token_broker
