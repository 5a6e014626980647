// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_link.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/http/url.h"
#include "common/web/ticket.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

std::string FieldOf(const std::map<std::string, std::string>& fields, const char* name) {
  const auto found = fields.find(name);
  return found == fields.end() ? "" : found->second;
}

void AppendField(const char* name, const std::string& value, std::string& query) {
  absl::StrAppend(&query, "&", name, "=", PercentEncode(value));
}

}  // namespace

std::vector<std::string> PlatformLink::ScopeList() const { return absl::StrSplit(scopes, ' ', absl::SkipEmpty()); }

std::string PlatformLinkQuery(const Secret& key, const PlatformLink& link, const PlatformLinkTarget& target,
                              absl::Time expires_at) {
  std::string query =
      absl::StrCat("for=", web::SignTicket(key,
                                           {"platform link", target.subject, target.server_uid, target.app_uid,
                                            link.platform, link.account, link.scopes, link.return_to},
                                           expires_at));
  AppendField("platform", link.platform, query);
  // Even if it is empty: that is the default account, and not the server's choice.
  AppendField("account", link.account, query);
  if (!link.scopes.empty()) {
    AppendField("scopes", link.scopes, query);
  }
  if (!link.return_to.empty()) {
    AppendField("return_to", link.return_to, query);
  }
  return query;
}

PlatformLink PlatformLinkIn(const std::map<std::string, std::string>& fields) {
  const std::string platform = FieldOf(fields, "platform");
  if (platform.empty()) {
    return {};
  }
  return {platform, FieldOf(fields, "account"), FieldOf(fields, "scopes"), FieldOf(fields, "return_to")};
}

absl::Status CheckPlatformLink(const Secret& key, absl::string_view ticket, const PlatformLink& link,
                               const PlatformLinkTarget& target, absl::Time now) {
  switch (web::CheckTicket(key, ticket,
                           {"platform link", target.subject, target.server_uid, target.app_uid, link.platform,
                            link.account, link.scopes, link.return_to},
                           now)) {
    case web::TicketVerdict::kGood:
      return absl::OkStatus();
    case web::TicketVerdict::kExpired:
      return absl::DeadlineExceededError("the link has expired");
    case web::TicketVerdict::kForged:
      break;
  }
  return error::LinkUserMismatch("the link was made for somebody else");
}

}  // namespace sallyport::token_broker
