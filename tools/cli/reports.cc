// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/reports.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include "common/proto_time.h"
#include "common/status_macros.h"
#include "sallyport/audit/v1/audit.pb.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "tools/cli/table.h"

namespace sallyport::cli {
namespace {

using google::protobuf::util::TimeUtil;

constexpr char kVaultAdmin[] = "sallyport.vault.v1.VaultAdmin/";
constexpr int kPage = 1000;

std::string TimeText(const google::protobuf::Timestamp& time) { return TimeUtil::ToString(time); }

// "DECISION_ALLOWED" as "allowed", "CREDENTIAL_ADMIN" as "credential-admin".
std::string Lower(absl::string_view name, absl::string_view prefix) {
  if (absl::StartsWith(name, prefix)) name.remove_prefix(prefix.size());
  return absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"_", "-"}});
}

// In quotes that the text cannot end.
std::string Quoted(const std::string& text) {
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}}), "\"");
}

// Name and address as the identity provider says.
std::string PersonOf(const audit::v1::Event& event) {
  std::vector<std::string> known;
  if (!event.user_name().empty()) known.push_back(Quoted(event.user_name()));
  if (!event.user_email().empty()) {
    known.push_back(absl::StrCat("<", absl::StrReplaceAll(event.user_email(), {{"<", "?"}, {">", "?"}}), ">"));
  }
  return known.empty() ? "-" : absl::StrJoin(known, " ");
}

// The id, and what the client says its name is: that may be the name of another.
std::string ClientOf(const audit::v1::Event& event) {
  if (event.client_id().empty()) return "-";
  return event.client_name().empty()
             ? event.client_id()
             : absl::StrCat(event.client_id(), " (calls itself ", Quoted(event.client_name()), ")");
}

std::vector<std::string> AuditRow(const audit::v1::Event& event) {
  std::string what = event.mcp_method();
  if (!event.mcp_name().empty()) absl::StrAppend(&what, " ", event.mcp_name());
  for (const auto& [name, value] : std::map<std::string, std::string>(event.details().begin(), event.details().end())) {
    absl::StrAppend(&what, what.empty() ? "" : " ", name, "=", value);
  }
  return {TimeText(event.at()),
          event.type(),
          Lower(audit::v1::Decision_Name(event.decision()), "DECISION_"),
          event.subject().empty() ? "-" : event.subject(),
          PersonOf(event),
          ClientOf(event),
          event.server_slug().empty() ? "-" : event.server_slug(),
          event.status() == 0 ? "-" : absl::StrCat(event.status()),
          event.rule().empty() ? "-" : event.rule(),
          what};
}

void PrintEvents(const std::vector<audit::v1::Event>& events, bool json, const Terminal& terminal) {
  if (!json) {
    std::vector<std::vector<std::string>> rows;
    std::transform(events.begin(), events.end(), std::back_inserter(rows), AuditRow);
    terminal.out << FormatTable(
        {"TIME", "TYPE", "DECISION", "SUBJECT", "PERSON", "CLIENT", "SERVER", "STATUS", "RULE", "WHAT"},
        std::move(rows));
    return;
  }
  for (const audit::v1::Event& event : events) {
    std::string line;
    if (google::protobuf::util::MessageToJsonString(event, &line).ok()) terminal.out << line << "\n";
  }
}

}  // namespace

absl::StatusOr<absl::Time> ParseSince(absl::string_view text, absl::Time now) {
  absl::Time time;
  std::string error;
  if (absl::ParseTime(absl::RFC3339_full, text, &time, &error)) return time;
  absl::Duration ago;
  int days = 0;
  if (absl::EndsWith(text, "d") && absl::SimpleAtoi(text.substr(0, text.size() - 1), &days)) {
    ago = absl::Hours(24) * days;
  } else if (!absl::ParseDuration(text, &ago)) {
    ago = -absl::InfiniteDuration();
  }
  if (ago < absl::ZeroDuration() || ago > absl::Hours(24 * 366 * 50)) {
    return absl::InvalidArgumentError(
        "--since: must be a time such as 2026-01-02T03:04:05Z, or how long ago: 30m, 24h, 7d");
  }
  return now - ago;
}

absl::Status PrintAudit(ApiClient& api, const AuditQuery& query, const Terminal& terminal) {
  audit::v1::ListEventsRequest request;
  request.set_type(query.type);
  request.set_subject(query.subject);
  request.set_server_slug(query.server);
  if (!query.since.empty()) {
    ASSIGN_OR_RETURN(const absl::Time since, ParseSince(query.since, terminal.now()));
    *request.mutable_since() = ToTimestamp(since);
  }
  std::vector<audit::v1::Event> events;
  do {
    request.set_page_size(std::min(query.limit - static_cast<int>(events.size()), kPage));
    audit::v1::ListEventsResponse response;
    RETURN_IF_ERROR(api.Call("sallyport.audit.v1.Audit/ListEvents", request, &response));
    events.insert(events.end(), response.events().begin(), response.events().end());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty() && static_cast<int>(events.size()) < query.limit);
  PrintEvents(events, query.json, terminal);
  return absl::OkStatus();
}

absl::Status EraseNames(ApiClient& api, const ErasedNames& whose, const Terminal& terminal) {
  if (whose.subject.empty() == whose.client_id.empty()) {
    return absl::InvalidArgumentError("erase-names: give one of --subject and --client");
  }
  audit::v1::EraseNamesRequest request;
  request.set_subject(whose.subject);
  request.set_client_id(whose.client_id);
  audit::v1::EraseNamesResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.audit.v1.Audit/EraseNames", request, &response));
  const std::string& id = whose.subject.empty() ? whose.client_id : whose.subject;
  terminal.out << (response.erased() ? "erased what the audit knew " + id + " by; its events show the id only\n"
                                     : "the audit knows " + id + " by no name\n");
  return absl::OkStatus();
}

absl::Status PrintWhoAmI(ApiClient& api, const Terminal& terminal) {
  authn::v1::Principal principal;
  RETURN_IF_ERROR(api.Call("sallyport.authn.v1.Authn/WhoAmI", authn::v1::WhoAmIRequest(), &principal));
  std::vector<std::string> roles;
  for (const int role : principal.roles()) {
    roles.push_back(Lower(authn::v1::Role_Name(static_cast<authn::v1::Role>(role)), ""));
  }
  terminal.out << "gateway  " << api.url() << "\nsubject  " << principal.subject() << "\n";
  if (!principal.name().empty()) terminal.out << "name     " << principal.name() << "\n";
  if (!principal.email().empty()) {
    terminal.out << "email    " << principal.email() << (principal.email_verified() ? "" : " (not verified)") << "\n";
  }
  if (!principal.groups().empty()) terminal.out << "groups   " << absl::StrJoin(principal.groups(), " ") << "\n";
  terminal.out << "roles    " << (roles.empty() ? "none" : absl::StrJoin(roles, " ")) << "\n";
  return absl::OkStatus();
}

absl::Status PrintVaultStatus(ApiClient& api, const Terminal& terminal) {
  vault::v1::GetStatusResponse status;
  RETURN_IF_ERROR(api.Call(absl::StrCat(kVaultAdmin, "GetStatus"), vault::v1::GetStatusRequest(), &status));
  terminal.out
      << "state       " << status.state() << (status.reason().empty() ? "" : " (" + status.reason() + ")")
      << "\ndeployment  " << status.deployment_id() << "\nkek         " << status.kek_id() << "\nto rewrap   "
      << status.rewrap_remaining()
      << (status.state() != "ACTIVE" || status.adopted()
              ? ""
              : "\nadoption    under way: what an earlier release stored does not say yet where it may be sent")
      << "\n\n";
  std::vector<std::vector<std::string>> rows;
  for (const auto& term : status.terms()) {
    rows.push_back({absl::StrCat(term.term()), term.state(), absl::StrCat(term.data_keys()),
                    TimeText(term.created_at()), term.kek_id()});
  }
  terminal.out << FormatTable({"TERM", "STATE", "DATA KEYS", "CREATED", "KEK"}, rows);
  return absl::OkStatus();
}

absl::Status RotateVault(ApiClient& api, const Terminal& terminal) {
  vault::v1::RotateTermResponse response;
  RETURN_IF_ERROR(api.Call(absl::StrCat(kVaultAdmin, "RotateTerm"), vault::v1::RotateTermRequest(), &response));
  terminal.out << "term " << response.term()
               << " begins: what is written from now on uses it; `sallyport vault rewrap` brings the rest over\n";
  return absl::OkStatus();
}

absl::Status RewrapVault(ApiClient& api, const Terminal& terminal) {
  int64_t done = 0;
  int64_t records = 0;
  vault::v1::RewrapResponse response;
  while (true) {
    RETURN_IF_ERROR(api.Call(absl::StrCat(kVaultAdmin, "Rewrap"), vault::v1::RewrapRequest(), &response));
    done += response.rewrapped();
    records += response.records();
    if (response.remaining() == 0 || response.rewrapped() == 0) break;
    terminal.err << done << " keys brought over, " << response.remaining() << " left\n";
  }
  terminal.out << done << " keys brought over, with " << records << " records; " << response.remaining() << " left\n";
  if (response.damaged() == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(response.damaged(),
                   " keys cannot be brought over, because they or records under them are damaged: the vault's log "
                   "(vault_rewrap_damaged) names their owners"));
}

absl::Status DestroyVaultTerm(ApiClient& api, int32_t term, const Terminal& terminal) {
  vault::v1::DestroyTermRequest request;
  request.set_term(term);
  vault::v1::DestroyTermResponse response;
  RETURN_IF_ERROR(api.Call(absl::StrCat(kVaultAdmin, "DestroyTerm"), request, &response));
  terminal.out << "term " << term
               << " is destroyed: backups of what was under it open nowhere once no copy of the "
                  "keyring table from before is left\n";
  return absl::OkStatus();
}

absl::Status SealVault(ApiClient& api, const Terminal& terminal) {
  vault::v1::SealResponse response;
  RETURN_IF_ERROR(api.Call(absl::StrCat(kVaultAdmin, "Seal"), vault::v1::SealRequest(), &response));
  terminal.out << "sealed: no credential can be read until the vault is restarted\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli
