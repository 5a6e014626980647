// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/cache_sealer.h"

#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "sallyport/token_broker/v1/state.pb.h"

namespace sallyport::token_broker {
namespace {

constexpr char kMagic[] = "SPC2";
constexpr size_t kHeaderSize = 20;

// Lengths before the parts: "a" + "bc" must not be "ab" + "c".
std::string Canonical(const ConnectionKey& key) {
  return absl::StrCat(key.subject.size(), ":", key.subject, key.connection.size(), ":", key.connection);
}

void AppendBigEndian(uint64_t value, int bytes, std::string& out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

}  // namespace

CacheNames::CacheNames(const Secret& root)
    : mac_key_(HkdfExpandSha256(root.Expose(), "sallyport cache names v1", 32)) {}

std::string CacheNames::KeyFor(const ConnectionKey& key) const {
  return absl::StrCat("sallyport:token:", HexEncode(HmacSha256(mac_key_.Expose(), Canonical(key))));
}

std::string CacheSealer::Header(int64_t generation) const {
  std::string header = kMagic;
  AppendBigEndian(static_cast<uint64_t>(generation), 8, header);
  AppendBigEndian(static_cast<uint64_t>(day_), 4, header);
  AppendBigEndian(static_cast<uint64_t>(key_version_), 4, header);
  return header;
}

Secret CacheSealer::ValueKey(const ConnectionKey& key, int64_t generation) const {
  return HkdfExpandSha256(root_.Expose(), absl::StrCat("sallyport cache values v1 ", generation, " ", Canonical(key)),
                          kAeadKeySize);
}

absl::StatusOr<std::string> CacheSealer::Seal(const ConnectionKey& key, const ConnectionView& view,
                                              absl::string_view redis_key) const {
  v1::CachedToken token;
  token.set_access_token(std::string(view.access_token.Expose()));
  if (view.times.expires_at != absl::InfiniteFuture()) {
    *token.mutable_expires_at() = ToTimestamp(view.times.expires_at);
  }
  if (view.times.obtained_at != absl::InfinitePast()) {
    *token.mutable_obtained_at() = ToTimestamp(view.times.obtained_at);
  }
  token.set_version(view.version);
  token.set_can_refresh(view.can_refresh);
  *token.mutable_provenance() = view.provenance;
  if (!view.consent.server_uid().empty()) {
    *token.mutable_consent() = view.consent;
  }
  *token.mutable_scopes() = {view.scopes.begin(), view.scopes.end()};
  token.set_account_name(view.account_name);
  const std::string header = Header(view.generation);
  ASSIGN_OR_RETURN(const std::string sealed, AeadSeal(ValueKey(key, view.generation), token.SerializeAsString(),
                                                      absl::StrCat(header, redis_key)));
  return absl::StrCat(header, sealed);
}

std::optional<int64_t> CacheSealer::GenerationOf(absl::string_view value) {
  if (value.size() < kHeaderSize || !absl::StartsWith(value, kMagic)) {
    return std::nullopt;
  }
  uint64_t generation = 0;
  for (size_t i = 4; i < 12; ++i) {
    generation = generation << 8 | static_cast<unsigned char>(value[i]);
  }
  return static_cast<int64_t>(generation);
}

absl::StatusOr<SharedConnection> CacheSealer::Open(const ConnectionKey& key, absl::string_view value,
                                                   absl::string_view redis_key) const {
  const std::optional<int64_t> generation = GenerationOf(value);
  if (!generation.has_value()) {
    return absl::DataLossError("cannot open");
  }
  const absl::string_view header = value.substr(0, kHeaderSize);
  if (header != Header(*generation)) {
    return absl::NotFoundError("sealed under another root");  // Of yesterday, or of a data key that has been replaced.
  }
  absl::StatusOr<Secret> plain =
      AeadOpen(ValueKey(key, *generation), value.substr(kHeaderSize), absl::StrCat(header, redis_key));
  if (!plain.ok()) {
    return plain.status();
  }
  v1::CachedToken token;
  if (!token.ParseFromArray(plain->Expose().data(), static_cast<int>(plain->Expose().size()))) {
    return absl::DataLossError("cannot open");
  }
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kLinked;
  view->generation = *generation;
  view->version = token.version();
  view->access_token = Secret(std::move(*token.mutable_access_token()));
  view->times.expires_at = token.has_expires_at() ? FromTimestamp(token.expires_at()) : absl::InfiniteFuture();
  view->times.obtained_at = token.has_obtained_at() ? FromTimestamp(token.obtained_at()) : absl::InfinitePast();
  view->can_refresh = token.can_refresh();
  view->provenance = std::move(*token.mutable_provenance());
  view->provenance_sealed = true;
  view->consent = std::move(*token.mutable_consent());
  view->account_name = std::move(*token.mutable_account_name());
  view->scopes.assign(token.scopes().begin(), token.scopes().end());
  return SharedConnection(std::move(view));
}

}  // namespace sallyport::token_broker
