// SPDX-License-Identifier: Apache-2.0
#include "services/vault/envelope.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <openssl/crypto.h>

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/status_macros.h"
#include "services/vault/errors.h"

namespace sallyport::vault {
namespace {

constexpr char kOrgId[] = "default";
constexpr char kMagic[] = {'S', 'P'};
constexpr char kAlgorithm = 0x01;
constexpr int kUnbound = 1;
constexpr int kBound = 2;
constexpr size_t kKeyVersionOffset = 4;
constexpr size_t kSaltBytes = 32;
constexpr size_t kSaltOffset = 8;
constexpr size_t kSealedOffset = kSaltOffset + kSaltBytes;

std::string Be32(uint32_t value) {
  std::string out(4, '\0');
  for (size_t i = 0; i < 4; ++i) {
    out[i] = static_cast<char>((value >> (24 - 8 * i)) & 0xff);
  }
  return out;
}

std::string Be64(int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  return Be32(static_cast<uint32_t>(bits >> 32)) + Be32(static_cast<uint32_t>(bits));
}

uint32_t ReadBe32(absl::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value = (value << 8) | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

std::string Items(const std::vector<absl::string_view>& items) {
  std::string out;
  for (const absl::string_view item : items) {
    absl::StrAppend(&out, Be32(static_cast<uint32_t>(item.size())), item);
  }
  return out;
}

// "sallyport/v1/<purpose>" 00 <rest>
std::string Info(absl::string_view purpose, absl::string_view rest) {
  std::string info = absl::StrCat("sallyport/v1/", purpose);
  info.push_back('\0');
  absl::StrAppend(&info, rest);
  return info;
}

std::string OwnerKeyAssociatedData(const OwnerKeyIdentity& identity) {
  return Items({"sallyport-dek-v1", identity.deployment_id, kOrgId, identity.owner.type, identity.owner.id,
                Be32(identity.key_version), Be32(identity.term)});
}

Secret WrappingKey(const Secret& seed, uint32_t term) {
  return HkdfExpandSha256(seed.Expose(), Info("wrap", Be32(term)), kKeyBytes);
}

Secret RecordKey(const Secret& owner_key, absl::string_view salt) {
  return HkdfExpandSha256(owner_key.Expose(), Info("rec", salt), kKeyBytes);
}

absl::Status CheckKey(const Secret& key) {
  return key.Expose().size() == kKeyBytes ? absl::OkStatus() : absl::InternalError("a key is not 32 bytes");
}

// Any failure to open is one error: which one it was helps nobody but an attacker.
absl::StatusOr<Secret> Open(const Secret& key, absl::string_view sealed, absl::string_view associated_data) {
  absl::StatusOr<Secret> opened = AeadOpen(key, sealed, associated_data);
  if (!opened.ok()) {
    return error::TagMismatch();
  }
  return opened;
}

std::optional<absl::string_view> TakeItem(absl::string_view& rest) {
  if (rest.size() < 4) {
    return std::nullopt;
  }
  const size_t size = ReadBe32(rest);
  rest.remove_prefix(4);
  if (size > rest.size()) {
    return std::nullopt;
  }
  const absl::string_view item = rest.substr(0, size);
  rest.remove_prefix(size);
  return item;
}

absl::StatusOr<std::string> SealContent(int format, const Secret& owner_key, uint32_t key_version,
                                        const RecordIdentity& identity, const Secret& content) {
  RETURN_IF_ERROR(CheckKey(owner_key));
  const std::string salt = RandomBytes(kSaltBytes);
  ASSIGN_OR_RETURN(const std::string sealed,
                   AeadSeal(RecordKey(owner_key, salt), envelope_internal::Pad(content.Expose()).Expose(),
                            envelope_internal::RecordAssociatedData(format, identity, key_version)));
  const char header[] = {kMagic[0], kMagic[1], static_cast<char>(format), kAlgorithm};
  return absl::StrCat(absl::string_view(header, sizeof(header)), Be32(key_version), salt, sealed);
}

absl::StatusOr<Secret> OpenContent(const Secret& owner_key, const RecordIdentity& identity, absl::string_view record) {
  RETURN_IF_ERROR(CheckKey(owner_key));
  ASSIGN_OR_RETURN(const uint32_t key_version, KeyVersionOf(record));
  ASSIGN_OR_RETURN(const Secret padded,
                   Open(RecordKey(owner_key, record.substr(kSaltOffset, kSaltBytes)), record.substr(kSealedOffset),
                        envelope_internal::RecordAssociatedData(record[2], identity, key_version)));
  return envelope_internal::Unpad(padded.Expose());
}

}  // namespace

namespace envelope_internal {

std::string RecordAssociatedData(int format, const RecordIdentity& identity, uint32_t key_version) {
  const RecordId& record = identity.record;
  return Items({absl::StrCat("sallyport-aad-v", format), identity.deployment_id, kOrgId, record.owner.type,
                record.owner.id, record.kind, record.name, Be64(identity.version), Be64(identity.generation),
                Be32(key_version)});
}

Secret Pad(absl::string_view payload) {
  const size_t size = (payload.size() / kPaddingBytes + 1) * kPaddingBytes;
  std::string padded;
  padded.reserve(size);
  padded.append(payload.data(), payload.size());
  padded.push_back('\x80');
  padded.resize(size, '\0');
  return Secret(std::move(padded));
}

absl::StatusOr<Secret> Unpad(absl::string_view padded) {
  if (padded.empty() || padded.size() % kPaddingBytes != 0) {
    return error::TagMismatch();
  }
  const size_t end = padded.find_last_not_of('\0');
  if (end == absl::string_view::npos || padded[end] != '\x80' || padded.size() - end > kPaddingBytes) {
    return error::TagMismatch();
  }
  return Secret::Copy(padded.substr(0, end));
}

}  // namespace envelope_internal

size_t SealedSize(size_t payload_bytes) {
  const size_t content = payload_bytes + 4;
  return (content / kPaddingBytes + 1) * kPaddingBytes + kRecordOverheadBytes;
}

absl::StatusOr<std::string> SealRecord(const Secret& owner_key, uint32_t key_version, const RecordIdentity& identity,
                                       absl::string_view payload, const Origins& origins) {
  if (payload.size() > kMaxPayloadBytes) {
    return InvalidField("payload", "is over 64 KiB");
  }
  std::vector<absl::string_view> items = {payload};
  size_t origin_bytes = 0;
  for (const std::string& origin : origins) {
    items.push_back(origin);
    origin_bytes += origin.size();
  }
  if (origin_bytes > kMaxOriginBytes) {
    return InvalidField("origins", "are over 32 KiB");
  }
  return SealContent(kBound, owner_key, key_version, identity, Secret(Items(items)));
}

absl::StatusOr<std::string> SealUnbound(const Secret& owner_key, uint32_t key_version, const RecordIdentity& identity,
                                        absl::string_view payload) {
  if (payload.size() > kMaxPayloadBytes) {
    return InvalidField("payload", "is over 64 KiB");
  }
  return SealContent(kUnbound, owner_key, key_version, identity, Secret::Copy(payload));
}

absl::StatusOr<std::string> ResealRecord(const Secret& old_key, const Secret& new_key, uint32_t new_key_version,
                                         const RecordIdentity& identity, absl::string_view record) {
  ASSIGN_OR_RETURN(const Secret content, OpenContent(old_key, identity, record));
  return SealContent(record[2], new_key, new_key_version, identity, content);
}

absl::StatusOr<uint32_t> KeyVersionOf(absl::string_view record) {
  const bool known = record.size() >= kRecordOverheadBytes + kPaddingBytes && record[0] == kMagic[0] &&
                     record[1] == kMagic[1] && (record[2] == kUnbound || record[2] == kBound) &&
                     record[3] == kAlgorithm;
  return known ? absl::StatusOr<uint32_t>(ReadBe32(record.substr(kKeyVersionOffset))) : error::TagMismatch();
}

absl::StatusOr<OpenedRecord> OpenRecord(const Secret& owner_key, const RecordIdentity& identity,
                                        absl::string_view record) {
  ASSIGN_OR_RETURN(Secret content, OpenContent(owner_key, identity, record));
  OpenedRecord opened;
  if (record[2] == kUnbound) {
    opened.payload = std::move(content);
    return opened;
  }
  absl::string_view rest = content.Expose();
  const auto payload = TakeItem(rest);
  if (!payload.has_value()) {
    return error::TagMismatch();
  }
  opened.bound = true;
  opened.payload = Secret::Copy(*payload);
  while (!rest.empty()) {
    const auto origin = TakeItem(rest);
    if (!origin.has_value()) {
      return error::TagMismatch();
    }
    opened.origins.push_back(std::string(*origin));
  }
  return opened;
}

absl::StatusOr<std::string> WrapOwnerKey(const Secret& seed, const OwnerKeyIdentity& identity,
                                         const Secret& owner_key) {
  RETURN_IF_ERROR(CheckKey(seed));
  RETURN_IF_ERROR(CheckKey(owner_key));
  return AeadSeal(WrappingKey(seed, identity.term), owner_key.Expose(), OwnerKeyAssociatedData(identity));
}

absl::StatusOr<Secret> UnwrapOwnerKey(const Secret& seed, const OwnerKeyIdentity& identity, absl::string_view wrapped) {
  RETURN_IF_ERROR(CheckKey(seed));
  ASSIGN_OR_RETURN(Secret key, Open(WrappingKey(seed, identity.term), wrapped, OwnerKeyAssociatedData(identity)));
  if (!CheckKey(key).ok()) {
    return error::TagMismatch();
  }
  return key;
}

Secret EncodeSeed(const SeedPlaintext& seed) {
  return Secret(Items({"SPSEED1", seed.deployment_id, Be32(seed.term), seed.seed.Expose()}));
}

absl::StatusOr<SeedPlaintext> DecodeSeed(const Secret& plaintext) {
  absl::string_view rest = plaintext.Expose();
  const auto magic = TakeItem(rest);
  const auto deployment_id = TakeItem(rest);
  const auto term = TakeItem(rest);
  const auto seed = TakeItem(rest);
  if (magic != absl::string_view("SPSEED1") || !deployment_id || !term || term->size() != 4 || !seed ||
      seed->size() != kKeyBytes || !rest.empty()) {
    return error::TagMismatch();
  }
  SeedPlaintext out;
  out.deployment_id = std::string(*deployment_id);
  out.term = ReadBe32(*term);
  out.seed = Secret::Copy(*seed);
  return out;
}

absl::StatusOr<Secret> CacheRoot(const Secret& owner_key, int64_t day) {
  RETURN_IF_ERROR(CheckKey(owner_key));
  return HkdfExpandSha256(owner_key.Expose(), Info("cache-root", Be64(day)), kKeyBytes);
}

}  // namespace sallyport::vault
