// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/synthetic_sessions.h"

#include "absl/strings/str_cat.h"

#include "common/random.h"
#include "common/string_view.h"

namespace sallyport::edge {

std::string SyntheticSessions::Create(std::string_view initialize_params, std::string protocol_version,
                                      uint8_t capabilities) {
  if (initialize_params.size() > kMaxParams) return "";
  Session session;
  session.id = RandomToken(ToAbsl(kPrefix), 16);
  session.initialize_params = std::string(initialize_params);
  session.protocol_version = std::move(protocol_version);
  session.capabilities = capabilities;
  MutexLock lock(mu_);
  if (by_use_.size() >= kMaxSessions) {
    by_id_.erase(by_use_.front().id);
    by_use_.pop_front();
  }
  by_use_.push_back(session);
  by_id_[session.id] = std::prev(by_use_.end());
  return session.id;
}

std::unique_ptr<SyntheticSessions::Session> SyntheticSessions::Find(std::string_view id) {
  MutexLock lock(mu_);
  const auto found = by_id_.find(ToAbsl(id));
  if (found == by_id_.end()) return nullptr;
  by_use_.splice(by_use_.end(), by_use_, found->second);
  return std::make_unique<Session>(*found->second);
}

void SyntheticSessions::SetReplayed(std::string_view id, std::string upstream_id) {
  MutexLock lock(mu_);
  const auto found = by_id_.find(ToAbsl(id));
  if (found == by_id_.end()) return;
  found->second->replayed = true;
  found->second->upstream_id = std::move(upstream_id);
}

void SyntheticSessions::Erase(std::string_view id) {
  MutexLock lock(mu_);
  const auto found = by_id_.find(ToAbsl(id));
  if (found == by_id_.end()) return;
  by_use_.erase(found->second);
  by_id_.erase(found);
}

}  // namespace sallyport::edge
