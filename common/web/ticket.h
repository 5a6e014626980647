// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/secret.h"

namespace sallyport::web {

// Proof that we said something earlier, which nothing remembers: "<expiry>.<HMAC-SHA-256>" over the parts and the
// expiry, in Unix seconds. The ticket names none of its parts. The first part says what it is for, so that a ticket of
// one use is none of another. `key` is 32 bytes.
std::string SignTicket(const Secret& key, std::initializer_list<absl::string_view> parts, absl::Time expires_at);
// kExpired says nothing about who made it: an old ticket is told from a forged one only by its own expiry.
enum class TicketVerdict { kGood, kExpired, kForged };
TicketVerdict CheckTicket(const Secret& key, absl::string_view ticket, std::initializer_list<absl::string_view> parts,
                          absl::Time now);

// What a form carries to show that this browser was given it (against forged forms): good for this secret of the
// browser and this purpose only, for as long as the secret is.
std::string CsrfToken(absl::string_view browser_secret, absl::string_view purpose);
// False for an empty secret: a browser without one was given no form.
bool CsrfTokenFits(absl::string_view token, absl::string_view browser_secret, absl::string_view purpose);

}  // namespace sallyport::web
