// SPDX-License-Identifier: Apache-2.0
#include "common/web/ticket.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/text/base64url.h"

namespace sallyport::web {
namespace {

constexpr size_t kMaxTicket = 128;

std::string Ticket(const Secret& key, std::initializer_list<absl::string_view> parts, absl::string_view expiry) {
  // Lengths before the parts, so that no two lists of parts give the same bytes.
  std::string data;
  for (const absl::string_view part : parts) {
    absl::StrAppend(&data, part.size(), ":", part);
  }
  absl::StrAppend(&data, expiry.size(), ":", expiry);
  return absl::StrCat(expiry, ".", Base64UrlEncode(HmacSha256(key.Expose(), data)));
}

}  // namespace

std::string SignTicket(const Secret& key, std::initializer_list<absl::string_view> parts, absl::Time expires_at) {
  return Ticket(key, parts, absl::StrCat(absl::ToUnixSeconds(expires_at)));
}

TicketVerdict CheckTicket(const Secret& key, absl::string_view ticket, std::initializer_list<absl::string_view> parts,
                          absl::Time now) {
  const size_t dot = ticket.find('.');
  int64_t expiry = 0;
  if (dot == absl::string_view::npos || ticket.size() > kMaxTicket ||
      !absl::SimpleAtoi(ticket.substr(0, dot), &expiry)) {
    return TicketVerdict::kForged;
  }
  // Expiry first: an expired ticket gets the same answer from every caller, and reveals nothing else.
  if (absl::FromUnixSeconds(expiry) <= now) {
    return TicketVerdict::kExpired;
  }
  const std::string expected = Ticket(key, parts, absl::StrCat(expiry));
  return ConstantTimeEquals(expected, ticket) ? TicketVerdict::kGood : TicketVerdict::kForged;
}

std::string CsrfToken(absl::string_view browser_secret, absl::string_view purpose) {
  return Base64UrlEncode(HmacSha256(browser_secret, absl::StrCat("form ", purpose)));
}

bool CsrfTokenFits(absl::string_view token, absl::string_view browser_secret, absl::string_view purpose) {
  return !browser_secret.empty() && ConstantTimeEquals(token, CsrfToken(browser_secret, purpose));
}

}  // namespace sallyport::web
