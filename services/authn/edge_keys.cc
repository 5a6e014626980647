// SPDX-License-Identifier: Apache-2.0
#include "services/authn/edge_keys.h"

#include <algorithm>
#include <utility>

#include "common/crypto/random.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr absl::Duration kReload = absl::Minutes(1);

std::string Serialize(const std::vector<EdgeKey>& keys) {
  nlohmann::json list = nlohmann::json::array();
  for (const EdgeKey& key : keys) {
    list.push_back({{"key", Base64UrlEncode(key.key)}, {"created_at", absl::ToUnixSeconds(key.created_at)}});
  }
  return DumpJson({{"keys", std::move(list)}});
}

absl::StatusOr<std::vector<EdgeKey>> Parse(const Secret& payload) {
  ASSIGN_OR_RETURN(nlohmann::json document, ParseJsonObject(payload.Expose()));
  const nlohmann::json* list = JsonMember(document, "keys");
  if (list == nullptr || !list->is_array()) {
    return DamagedSessionKeys();
  }
  std::vector<EdgeKey> keys;
  for (const nlohmann::json& object : *list) {
    EdgeKey key;
    ASSIGN_OR_RETURN(key.key, Base64UrlDecode(JsonString(object, "key").value_or("")));
    key.created_at = absl::FromUnixSeconds(JsonInt(object, "created_at").value_or(0));
    if (key.key.size() != kKeyBytes) {
      return DamagedSessionKeys();
    }
    keys.push_back(std::move(key));
  }
  return keys;
}

bool Newer(const EdgeKey& a, const EdgeKey& b) { return a.created_at > b.created_at; }

bool Same(const std::vector<EdgeKey>& a, const std::vector<EdgeKey>& b) {
  return std::is_permutation(a.begin(), a.end(), b.begin(), b.end(),
                             [](const EdgeKey& x, const EdgeKey& y) { return x.key == y.key; });
}

}  // namespace

std::vector<EdgeKey> AdvanceEdgeKeys(std::vector<EdgeKey> keys, const std::string& fresh, absl::Time now) {
  std::sort(keys.begin(), keys.end(), Newer);
  if (keys.empty() || now >= keys.front().created_at + kEdgeKeyRotation) {
    keys.insert(keys.begin(), EdgeKey{fresh, now});
  }
  const auto signs = [now](const EdgeKey& key) { return now >= key.created_at + kEdgeKeyNotice; };
  auto signing = std::find_if(keys.begin(), keys.end(), signs);
  if (signing == keys.end()) {
    signing = std::prev(keys.end());
  }
  // Behind the one that signs, one verifies: the previous.
  if (std::distance(signing, keys.end()) > 2) {
    keys.erase(signing + 2, keys.end());
  }
  std::rotate(keys.begin(), signing, signing + 1);
  return keys;
}

absl::StatusOr<std::vector<EdgeKey>> EdgeKeys::Load(absl::Time now) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    absl::StatusOr<VaultClient::Value> stored = vault_.Get(SystemRecord("session_key", "edge"));
    if (!stored.ok() && !absl::IsNotFound(stored.status())) {
      return stored.status();
    }
    std::vector<EdgeKey> keys;
    if (stored.ok()) {
      ASSIGN_OR_RETURN(keys, Parse(stored->payload));
    }
    std::vector<EdgeKey> advanced = AdvanceEdgeKeys(keys, RandomBytes(kKeyBytes), now);
    if (Same(keys, advanced)) {
      return advanced;
    }
    vault::v1::PutRequest request;
    *request.mutable_record() = SystemRecord("session_key", "edge");
    request.set_payload(Serialize(advanced));
    request.set_expected_version(stored.ok() ? stored->version : 0);
    request.set_keep_generation(stored.ok());
    const absl::Status written = vault_.Put(request, "").status();
    if (written.ok()) {
      return advanced;
    }
    if (!absl::IsAborted(written) && !absl::IsAlreadyExists(written)) {
      return written;
    }
  }
  return KeysUnavailable("the session keys are being changed by another replica");
}

absl::StatusOr<EdgeKeys::Answer> EdgeKeys::Get(absl::Time now) {
  std::vector<EdgeKey> keys;
  bool due = true;
  {
    MutexLock lock(mu_);
    keys = keys_;
    due = now >= loaded_at_ + kReload;
  }
  if (due) {
    absl::StatusOr<std::vector<EdgeKey>> loaded = Load(now);
    if (!loaded.ok() && keys.empty()) {
      return KeysUnavailable("the session keys cannot be had");
    }
    if (loaded.ok()) {
      keys = *std::move(loaded);
      MutexLock lock(mu_);
      keys_ = keys;
      loaded_at_ = now;
    }
  }
  Answer answer;
  for (EdgeKey& key : keys) {
    answer.keys.push_back(std::move(key.key));
  }
  answer.refresh_after = now + kEdgeKeyRefresh;
  return answer;
}

}  // namespace sallyport::authn
