// SPDX-License-Identifier: Apache-2.0
#include "services/vault/envelope.h"

#include <optional>
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
constexpr char kMagic[] = {'S', 'P', 0x01, 0x01};
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

}  // namespace

namespace envelope_internal {

std::string RecordAssociatedData(const RecordIdentity& identity, uint32_t key_version) {
  const RecordId& record = identity.record;
  return Items({"sallyport-aad-v1", identity.deployment_id, kOrgId, record.owner.type, record.owner.id, record.kind,
                record.name, Be64(identity.version), Be64(identity.generation), Be32(key_version)});
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
  return (payload_bytes / kPaddingBytes + 1) * kPaddingBytes + kRecordOverheadBytes;
}

absl::StatusOr<std::string> SealRecord(const Secret& owner_key, uint32_t key_version, const RecordIdentity& identity,
                                       absl::string_view payload) {
  RETURN_IF_ERROR(CheckKey(owner_key));
  if (payload.size() > kMaxPayloadBytes) {
    return InvalidField("payload", "is over 64 KiB");
  }
  const std::string salt = RandomBytes(kSaltBytes);
  ASSIGN_OR_RETURN(const std::string sealed,
                   AeadSeal(RecordKey(owner_key, salt), envelope_internal::Pad(payload).Expose(),
                            envelope_internal::RecordAssociatedData(identity, key_version)));
  return absl::StrCat(absl::string_view(kMagic, sizeof(kMagic)), Be32(key_version), salt, sealed);
}

absl::StatusOr<uint32_t> KeyVersionOf(absl::string_view record) {
  if (record.size() < kRecordOverheadBytes + kPaddingBytes ||
      record.substr(0, sizeof(kMagic)) != absl::string_view(kMagic, sizeof(kMagic))) {
    return error::TagMismatch();
  }
  return ReadBe32(record.substr(sizeof(kMagic)));
}

absl::StatusOr<Secret> OpenRecord(const Secret& owner_key, const RecordIdentity& identity, absl::string_view record) {
  RETURN_IF_ERROR(CheckKey(owner_key));
  ASSIGN_OR_RETURN(const uint32_t key_version, KeyVersionOf(record));
  ASSIGN_OR_RETURN(const Secret padded,
                   Open(RecordKey(owner_key, record.substr(kSaltOffset, kSaltBytes)), record.substr(kSealedOffset),
                        envelope_internal::RecordAssociatedData(identity, key_version)));
  return envelope_internal::Unpad(padded.Expose());
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
