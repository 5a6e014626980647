// SPDX-License-Identifier: Apache-2.0
#include "services/authn/signing_keys.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

constexpr absl::Duration kActiveFor = absl::Hours(24 * 30);
constexpr absl::Duration kNotice = absl::Hours(24);
constexpr absl::Duration kAfterglow = absl::Hours(1);
// How often a replica looks what the others did; far below kNotice.
constexpr absl::Duration kReload = absl::Minutes(10);

bool IsNext(const SigningKey& key) { return key.active_at == absl::InfiniteFuture(); }
bool IsActive(const SigningKey& key) { return !IsNext(key) && key.retired_at == absl::InfiniteFuture(); }

absl::StatusOr<SigningKey> MakeKey(absl::Time now) {
  ASSIGN_OR_RETURN(PrivateKey key, PrivateKey::GenerateP256());
  return SigningKey{std::make_shared<const PrivateKey>(std::move(key)), now, absl::InfiniteFuture(),
                    absl::InfiniteFuture()};
}

void WriteTime(nlohmann::json& object, const char* name, absl::Time time) {
  if (time != absl::InfiniteFuture()) {
    object[name] = absl::ToUnixSeconds(time);
  }
}

absl::Time ReadTime(const nlohmann::json& object, const char* name) {
  const std::optional<int64_t> seconds = JsonInt(object, name);
  return seconds.has_value() ? absl::FromUnixSeconds(*seconds) : absl::InfiniteFuture();
}

std::string Serialize(const std::vector<SigningKey>& keys) {
  nlohmann::json list = nlohmann::json::array();
  for (const SigningKey& key : keys) {
    nlohmann::json object;
    object["pkcs8"] = Base64UrlEncode(key.key->ToPkcs8().Expose());
    WriteTime(object, "created_at", key.created_at);
    WriteTime(object, "active_at", key.active_at);
    WriteTime(object, "retired_at", key.retired_at);
    list.push_back(std::move(object));
  }
  return DumpJson({{"keys", std::move(list)}});
}

absl::StatusOr<std::vector<SigningKey>> Parse(const Secret& payload) {
  ASSIGN_OR_RETURN(nlohmann::json document, ParseJsonObject(payload.Expose()));
  const nlohmann::json* list = JsonMember(document, "keys");
  if (list == nullptr || !list->is_array()) {
    return absl::DataLossError("the stored signing keys are damaged");
  }
  std::vector<SigningKey> keys;
  for (const nlohmann::json& object : *list) {
    ASSIGN_OR_RETURN(std::string der, Base64UrlDecode(JsonString(object, "pkcs8").value_or("")));
    ASSIGN_OR_RETURN(PrivateKey key, PrivateKey::FromPkcs8(Secret(std::move(der))));
    keys.push_back({std::make_shared<const PrivateKey>(std::move(key)), ReadTime(object, "created_at"),
                    ReadTime(object, "active_at"), ReadTime(object, "retired_at")});
  }
  return keys;
}

bool Same(const std::vector<SigningKey>& a, const std::vector<SigningKey>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const SigningKey& x, const SigningKey& y) {
    return x.key->kid() == y.key->kid() && x.active_at == y.active_at && x.retired_at == y.retired_at;
  });
}

constexpr GaugeInfo kActiveSince = {
    .name = "sallyport_authn_signing_key_active_timestamp_seconds",
    .help =
        "When the key that signs access tokens and passports became active, in seconds since 1970; it is replaced "
        "after 30 days",
    .unit = "seconds",
    .rise = "The key was replaced, as it is every 30 days",
    .action = "Standing still for more than 31 days: the keys cannot be stored in the vault; see the log of authn",
};

}  // namespace

struct SigningKeys::Loaded {
  std::vector<SigningKey> keys;
  std::shared_ptr<const PrivateKey> active;
  JwkSet public_keys;
  absl::Time loaded_at;
};

absl::StatusOr<std::vector<SigningKey>> AdvanceKeyset(const std::vector<SigningKey>& keys, absl::Duration longest_token,
                                                      absl::Time now) {
  std::vector<SigningKey> out;
  for (const SigningKey& key : keys) {
    if (key.retired_at == absl::InfiniteFuture() || now < key.retired_at + longest_token + kAfterglow) {
      out.push_back(key);
    }
  }
  auto active = std::find_if(out.begin(), out.end(), IsActive);
  auto next = std::find_if(out.begin(), out.end(), IsNext);
  if (active == out.end()) {
    if (next == out.end()) {
      ASSIGN_OR_RETURN(SigningKey first, MakeKey(now));
      next = out.insert(out.end(), std::move(first));
    }
    next->active_at = now;
    return out;
  }
  if (next != out.end() && now >= active->active_at + kActiveFor && now >= next->created_at + kNotice) {
    active->retired_at = now;
    next->active_at = now;
  } else if (next == out.end() && now >= active->active_at + kActiveFor - kNotice) {
    ASSIGN_OR_RETURN(SigningKey fresh, MakeKey(now));
    out.push_back(std::move(fresh));
  }
  return out;
}

absl::Status SigningKeys::Store(const std::vector<SigningKey>& keys, int64_t expected_version) {
  vault::v1::PutRequest request;
  *request.mutable_record() = SystemRecord("signing_key", "keyset");
  request.set_payload(Serialize(keys));
  request.set_expected_version(expected_version);
  request.set_keep_generation(expected_version != 0);
  return vault_.Put(request, "").status();
}

void SigningKeys::Use(std::vector<SigningKey> keys, absl::Time now) {
  auto loaded = std::make_shared<Loaded>();
  std::vector<PublicKey> public_keys;
  for (const SigningKey& key : keys) {
    public_keys.push_back(key.key->public_key());
    if (IsActive(key)) {
      loaded->active = key.key;
      MetricGauge(kActiveSince).Set(static_cast<double>(absl::ToUnixSeconds(key.active_at)));
    }
  }
  loaded->public_keys = JwkSet(std::move(public_keys));
  loaded->keys = std::move(keys);
  loaded->loaded_at = now;
  MutexLock lock(mu_);
  loaded_ = std::move(loaded);
}

absl::Status SigningKeys::Refresh(absl::Time now) {
  const std::shared_ptr<const Loaded> held = Current();
  if (held != nullptr && now < held->loaded_at + kReload) {
    return absl::OkStatus();
  }
  // Another replica may change the record between reading and writing; then what it wrote is looked at anew.
  for (int attempt = 0; attempt < 3; ++attempt) {
    absl::StatusOr<VaultClient::Value> stored = vault_.Get(SystemRecord("signing_key", "keyset"));
    if (!stored.ok() && !absl::IsNotFound(stored.status())) {
      return stored.status();
    }
    std::vector<SigningKey> keys;
    if (stored.ok()) {
      ASSIGN_OR_RETURN(keys, Parse(stored->payload));
    }
    ASSIGN_OR_RETURN(std::vector<SigningKey> advanced, AdvanceKeyset(keys, longest_token_, now));
    if (!Same(keys, advanced)) {
      const absl::Status written = Store(advanced, stored.ok() ? stored->version : 0);
      if (absl::IsAborted(written) || absl::IsAlreadyExists(written)) {
        continue;
      }
      RETURN_IF_ERROR(written);
      Log(LogLevel::kInfo, "signing_keys_changed", {{"keys", advanced.size()}});
    }
    Use(std::move(advanced), now);
    return absl::OkStatus();
  }
  return KeysUnavailable("the signing keys are being changed by another replica");
}

std::shared_ptr<const SigningKeys::Loaded> SigningKeys::Current() const {
  MutexLock lock(mu_);
  return loaded_;
}

absl::StatusOr<std::shared_ptr<const PrivateKey>> SigningKeys::Active() const {
  const auto loaded = Current();
  if (loaded == nullptr || loaded->active == nullptr) {
    return KeysUnavailable("the signing keys are not loaded yet");
  }
  return loaded->active;
}

absl::StatusOr<JwkSet> SigningKeys::PublicKeys() const {
  const auto loaded = Current();
  if (loaded == nullptr) {
    return KeysUnavailable("the signing keys are not loaded yet");
  }
  return loaded->public_keys;
}

absl::StatusOr<std::string> SigningKeys::Jwks() const {
  ASSIGN_OR_RETURN(JwkSet keys, PublicKeys());
  return keys.ToJson();
}

}  // namespace sallyport::authn
