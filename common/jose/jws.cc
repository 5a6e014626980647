// SPDX-License-Identifier: Apache-2.0
#include "common/jose/jws.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"

namespace sallyport {
namespace {

absl::Status Malformed(absl::string_view why) { return absl::UnauthenticatedError(absl::StrCat("token: ", why)); }

constexpr JsonLimits kHeaderLimits = {.max_bytes = 4 << 10, .max_depth = 8, .max_keys = 100};

// RFC 7515 section 4.1.9: "application/" may be left out, and media types are case-insensitive.
std::string NormalizeType(absl::string_view typ) {
  std::string lower = absl::AsciiStrToLower(typ);
  return absl::StartsWith(lower, "application/") ? lower.substr(12) : lower;
}

absl::Status ReadHeader(absl::string_view encoded, Jws& jws) {
  auto decoded = Base64UrlDecode(encoded);
  if (!decoded.ok()) return Malformed("header is not base64url");
  auto header = ParseJsonObject(*decoded, kHeaderLimits);
  if (!header.ok()) return Malformed("header is not a JSON object");
  for (const char* member : {"crit", "b64", "zip", "enc"}) {
    if (header->contains(member)) return Malformed(absl::StrCat("header member \"", member, "\" is not supported"));
  }
  const auto name = JsonString(*header, "alg");
  const auto algorithm = name ? ParseJwsAlgorithm(*name) : std::nullopt;
  if (!algorithm) return WithReason(Malformed("\"alg\" is not supported"), "algorithm");
  jws.algorithm = *algorithm;
  if (header->contains("kid")) {
    jws.kid = JsonString(*header, "kid");
    if (!jws.kid || jws.kid->empty() || jws.kid->size() > 256)
      return Malformed("\"kid\" must be a string of 1..256 bytes");
  }
  if (header->contains("typ")) {
    const auto typ = JsonString(*header, "typ");
    if (!typ || typ->empty()) return Malformed("\"typ\" must be a string");
    jws.typ = NormalizeType(*typ);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Jws> ParseJws(absl::string_view token, size_t max_size) {
  if (token.size() > max_size) return Malformed("too long");
  const size_t first = token.find('.');
  const size_t second = first == absl::string_view::npos ? first : token.find('.', first + 1);
  if (second == absl::string_view::npos || token.find('.', second + 1) != absl::string_view::npos) {
    return Malformed("must have three segments");
  }
  const absl::string_view header = token.substr(0, first);
  const absl::string_view payload = token.substr(first + 1, second - first - 1);
  const absl::string_view signature = token.substr(second + 1);
  if (header.empty() || payload.empty() || signature.empty()) return Malformed("has an empty segment");
  Jws jws{};
  RETURN_IF_ERROR(ReadHeader(header, jws));
  auto decoded_payload = Base64UrlDecode(payload);
  auto decoded_signature = Base64UrlDecode(signature);
  if (!decoded_payload.ok() || !decoded_signature.ok()) return Malformed("is not base64url");
  jws.payload = *std::move(decoded_payload);
  jws.signature = *std::move(decoded_signature);
  jws.signing_input = std::string(token.substr(0, second));
  return jws;
}

absl::StatusOr<Jws> VerifyJws(absl::string_view token, const JwkSet& keys, size_t max_size) {
  ASSIGN_OR_RETURN(Jws jws, ParseJws(token, max_size));
  ASSIGN_OR_RETURN(const PublicKey* key, keys.Find(jws.kid, jws.algorithm));
  RETURN_IF_ERROR(key->Verify(jws.algorithm, jws.signing_input, jws.signature));
  return jws;
}

absl::StatusOr<std::string> SignJws(absl::string_view payload, absl::string_view typ, const PrivateKey& key,
                                    absl::string_view kid) {
  const std::string id = kid.empty() ? key.kid() : std::string(kid);
  const nlohmann::json header = {{"alg", "ES256"}, {"kid", id}, {"typ", std::string(typ)}};
  const std::string signing_input = absl::StrCat(Base64UrlEncode(DumpJson(header)), ".", Base64UrlEncode(payload));
  ASSIGN_OR_RETURN(const std::string signature, key.Sign(signing_input));
  return absl::StrCat(signing_input, ".", Base64UrlEncode(signature));
}

}  // namespace sallyport
