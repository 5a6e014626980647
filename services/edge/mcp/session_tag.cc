// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/session_tag.h"

#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/text/base64url.h"
#include "common/text/string_view.h"

namespace sallyport::edge {
namespace {

constexpr size_t kMacBytes = 16;
constexpr size_t kTagChars = 23;  // base64url of 17 bytes.

void AppendItem(std::string_view item, std::string& out) {
  const auto size = static_cast<uint32_t>(item.size());
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>((size >> shift) & 0xff));
  out.append(item);
}

std::string Mac(const std::string& key, std::string_view subject, std::string_view server_uid,
                std::string_view upstream_id, uint8_t capabilities, std::string_view account) {
  std::string input = "sallyport-session-tag-v1";
  AppendItem(subject, input);
  AppendItem(server_uid, input);
  AppendItem(upstream_id, input);
  input.push_back(static_cast<char>(capabilities));
  if (!account.empty()) AppendItem(account, input);
  return HmacSha256(key, input).substr(0, kMacBytes);
}

}  // namespace

std::string SessionTagger::Tag(std::string_view subject, std::string_view server_uid, std::string_view upstream_id,
                               uint8_t capabilities, std::string_view account) const {
  std::string tag(1, static_cast<char>(capabilities));
  tag += Mac(keys_.front(), subject, server_uid, upstream_id, capabilities, account);
  return absl::StrCat(ToAbsl(upstream_id), ".", Base64UrlEncode(tag));
}

std::optional<SessionId> SessionTagger::Verify(std::string_view subject, std::string_view server_uid,
                                               std::string_view tagged, std::string_view account) const {
  if (tagged.size() < kTagChars + 2 || tagged[tagged.size() - kTagChars - 1] != '.') return std::nullopt;
  const std::string_view upstream_id = tagged.substr(0, tagged.size() - kTagChars - 1);
  const auto tag = Base64UrlDecode(ToAbsl(tagged.substr(tagged.size() - kTagChars)));
  if (!tag.ok() || tag->size() != kMacBytes + 1) return std::nullopt;
  const auto capabilities = static_cast<uint8_t>(tag->front());
  for (const std::string& key : keys_) {
    if (ConstantTimeEquals(Mac(key, subject, server_uid, upstream_id, capabilities, account),
                           absl::string_view(*tag).substr(1))) {
      return SessionId{upstream_id, capabilities};
    }
  }
  return std::nullopt;
}

}  // namespace sallyport::edge
