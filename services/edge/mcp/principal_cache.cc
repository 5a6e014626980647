// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/principal_cache.h"

#include <openssl/crypto.h>

#include "common/crypto/crypto.h"
#include "common/text/hex.h"
#include "common/text/string_view.h"

namespace sallyport::edge {

Principal::~Principal() {
  OPENSSL_cleanse(header_lines.data(), header_lines.size());
  OPENSSL_cleanse(passport.data(), passport.size());
}

std::shared_ptr<const CredentialSet> Principal::Chosen(std::string_view account) const {
  if (accounts_ == nullptr) return nullptr;
  const auto found = accounts_->find(account);
  return found == accounts_->end() ? nullptr : found->second;
}

void Principal::set_credentials(std::shared_ptr<const CredentialSet> credentials, std::string_view account) {
  MutexLock lock(mu_);
  if (account.empty()) {
    credentials_ = std::move(credentials);
    return;
  }
  if (credentials == nullptr) {
    if (accounts_ != nullptr) accounts_->erase(std::string(account));
    return;
  }
  if (accounts_ == nullptr) accounts_ = std::make_unique<Accounts>();
  if (accounts_->size() >= kMaxAccounts && accounts_->find(account) == accounts_->end()) accounts_->clear();
  (*accounts_)[std::string(account)] = std::move(credentials);
}

void Principal::TakeCredentials(const Principal& before) {
  std::shared_ptr<const CredentialSet> credentials;
  std::unique_ptr<Accounts> accounts;
  {
    MutexLock lock(before.mu_);
    credentials = before.credentials_;
    if (before.accounts_ != nullptr) accounts = std::make_unique<Accounts>(*before.accounts_);
  }
  MutexLock lock(mu_);
  credentials_ = std::move(credentials);
  accounts_ = std::move(accounts);
}

void Principal::EndCredentials(const Ended& ended) {
  const auto end = [&](std::shared_ptr<const CredentialSet>& credentials) {
    if (credentials == nullptr || !ended.Credentials(subject, *credentials)) return;
    credentials->dead.store(true, std::memory_order_release);
    credentials = nullptr;
  };
  MutexLock lock(mu_);
  end(credentials_);
  if (accounts_ == nullptr) return;
  for (auto& [account, credentials] : *accounts_) end(credentials);
}

std::string RevocationKeyOf(std::string_view token) {
  return HexEncode(Sha256(ToAbsl(token.substr(0, token.rfind('.')))));
}

PrincipalPtr PrincipalTable::Find(const PrincipalKey& key) const {
  const Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  const auto entry = shard.entries.find(key);
  return entry == shard.entries.end() ? nullptr : entry->second;
}

void PrincipalTable::Insert(const PrincipalPtr& principal) {
  Shard& shard = ShardOf(principal->key);
  MutexLock lock(shard.mu);
  if (shard.entries.size() >= kMaxPerShard) {
    auto first = shard.entries.begin();
    for (auto entry = shard.entries.begin(); entry != shard.entries.end(); ++entry) {
      if (entry->second->valid_until < first->second->valid_until) first = entry;
    }
    first->second->dead.store(true, std::memory_order_release);
    shard.entries.erase(first);
  }
  PrincipalPtr& entry = shard.entries[principal->key];
  if (entry != nullptr && entry != principal) entry->dead.store(true, std::memory_order_release);
  entry = principal;
}

void PrincipalTable::Erase(const PrincipalPtr& principal) {
  Shard& shard = ShardOf(principal->key);
  MutexLock lock(shard.mu);
  const auto entry = shard.entries.find(principal->key);
  if (entry != shard.entries.end() && entry->second == principal) shard.entries.erase(entry);
}

template <typename Predicate>
void PrincipalTable::Drop(const Predicate& concerned) {
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    examined_.fetch_add(shard.entries.size(), std::memory_order_relaxed);
    absl::erase_if(shard.entries, [&](const auto& entry) {
      if (!concerned(*entry.second)) return false;
      entry.second->dead.store(true, std::memory_order_release);
      return true;
    });
  }
}

void PrincipalTable::InvalidateAll() {
  Drop([](const Principal&) { return true; });
}

void PrincipalTable::Invalidate(const Ended& ended) {
  const bool credentials = ended.MayEndCredentials();
  Drop([&](Principal& principal) {
    if (ended.Caller(principal).has_value()) return true;
    // The caller stays; of their credentials the ones named go.
    if (credentials) principal.EndCredentials(ended);
    return false;
  });
}

size_t PrincipalTable::size() const {
  size_t sum = 0;
  for (const Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    sum += shard.entries.size();
  }
  return sum;
}

}  // namespace sallyport::edge
