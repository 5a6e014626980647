// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

#include "common/secret.h"

// Randomness from OpenSSL's private generator (RAND_priv_bytes). Aborts if there is none: nothing may go on without it.
namespace sallyport {

std::string RandomBytes(size_t size);
Secret RandomSecret(size_t size);
// `prefix` and base64url of `size` random bytes: RandomToken("spr_").
std::string RandomToken(absl::string_view prefix, size_t size = 32);
// `prefix` and base32 of 16 random bytes: MakeUid("srv_") is "srv_" and 26 characters a-z2-7.
std::string MakeUid(absl::string_view prefix);
// True for `prefix` and 26 characters that decode to 16 bytes.
bool IsUid(absl::string_view text, absl::string_view prefix);
// Uniform in [0, 1), for jitter.
double RandomUnit();

}  // namespace sallyport
