// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/secret.h"

namespace sallyport::token_broker {

// What BrokerKey is asked for.
inline constexpr char kPlatformLinkKey[] = "sallyport platform link v1";

// A link to /connect/<server> that an internal platform was given for one of its users. What it adds to a link stands
// in the query, and the ticket (`for`) covers it: the platform's grant is what lets this user connect this app, whoever
// may use the server; and the way back is one that the platform's configuration allows.
struct PlatformLink {
  std::string platform;
  std::string account;
  // To be asked for beside those of the app and its servers; separated by spaces.
  std::string scopes;
  std::string return_to;

  bool empty() const { return platform.empty(); }
  std::vector<std::string> ScopeList() const;
};
// For whom it is made.
struct PlatformLinkTarget {
  std::string subject;
  std::string server_uid;
  std::string app_uid;
};

// "for=…&platform=…", to be appended to "?".
std::string PlatformLinkQuery(const Secret& key, const PlatformLink& link, const PlatformLinkTarget& target,
                              absl::Time expires_at);
// Empty if the query, or form, is of another link.
PlatformLink PlatformLinkIn(const std::map<std::string, std::string>& fields);
// As CheckTicket (link_ticket.h).
absl::Status CheckPlatformLink(const Secret& key, absl::string_view ticket, const PlatformLink& link,
                               const PlatformLinkTarget& target, absl::Time now);

}  // namespace sallyport::token_broker
