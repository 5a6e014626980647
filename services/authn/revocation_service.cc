// SPDX-License-Identifier: Apache-2.0
#include "services/authn/revocation_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

using token_broker::v1::EndConnectionsRequest;
using token_broker::v1::EndConnectionsResponse;

constexpr char kEvery[] = "*";
// The broker waits some seconds for providers before it answers.
constexpr absl::Duration kPageTimeout = absl::Seconds(10);

std::string SubjectOf(const Caller& caller) { return caller.passport.has_value() ? caller.passport->subject : ""; }

// What the broker is asked to end, as the passport names it.
Passport::End NamedBy(const EndConnectionsRequest& request) {
  const bool one_account = !request.subject().empty() && !request.app_uid().empty() && !request.every_label();
  return {.subject = request.subject(), .app_uid = request.app_uid(), .label = one_account ? request.label() : kEvery};
}

absl::Status ConnectionsRemain(absl::string_view done, const absl::Status& why) {
  const bool opaque = absl::IsInternal(why) || absl::IsUnknown(why);
  return WithRetryAfter(WithReason(absl::UnavailableError(absl::StrCat(
                                       done, "; connections have not all ended, because the token broker ",
                                       opaque ? "failed" : absl::StrCat("answered: ", why.message()), "; call again")),
                                   "connections_remain"),
                        absl::Seconds(5));
}

absl::Status CheckAccount(const v1::RevokeConnectionsRequest& request) {
  if (request.app().empty()) {
    return InvalidField("app", "is required: the slug of an app");
  }
  if (request.subject().empty() &&
      (request.default_label() || (!request.label().empty() && request.label() != kEvery))) {
    return InvalidField("label", "needs subject: an account is one of a user's");
  }
  if (request.default_label() && !request.label().empty()) {
    return InvalidField("label", "must be empty with defaultLabel");
  }
  return absl::OkStatus();
}

MayGoOn Within(const TimeBudget& budget, Revocations& revocations) {
  return revocations.Delivering([&budget] { return !budget.IsOver(); });
}

}  // namespace

absl::Status RevocationRpcs::Record(const std::string& type, const std::string& by,
                                    const std::map<std::string, std::string>& details) {
  audit::v1::Event event = MakeEvent(type, audit::v1::DECISION_ALLOWED, by);
  for (const auto& [name, value] : details) {
    if (!value.empty()) {
      (*event.mutable_details())[name] = std::string(Utf8Prefix(value, 256));
    }
  }
  return parts_.audit.Record(std::move(event));
}

// Pages until nothing is left or the time is over. An error is that of the first page: what later ones do not get done
// is `more`, and nothing is lost of what the former ones said.
absl::StatusOr<EndConnectionsResponse> RevocationRpcs::EndConnections(const std::string& by,
                                                                      const EndConnectionsRequest& request,
                                                                      const TimeBudget& budget, absl::Time now) {
  Passport passport;
  passport.subject = by;
  passport.purpose = Passport::Purpose::kEnd;
  passport.end = NamedBy(request);
  ASSIGN_OR_RETURN(passport, parts_.passports.Mint(std::move(passport), absl::InfiniteFuture(), now));
  EndConnectionsResponse all;
  all.set_more(true);
  for (bool first = true; all.more() && !budget.IsOver(); first = false) {
    const absl::StatusOr<EndConnectionsResponse> page =
        parts_.connections.End(request, passport.jwt, std::min(kPageTimeout, budget.left() + TimeBudget::kGrace));
    if (!page.ok()) {
      if (first) {
        return page.status();
      }
      break;
    }
    all.mutable_ended()->MergeFrom(page->ended());
    all.set_credentials_erased(all.credentials_erased() + page->credentials_erased());
    all.set_keys_destroyed(all.keys_destroyed() || page->keys_destroyed());
    all.set_more(page->more());
  }
  return all;
}

absl::StatusOr<v1::RevokeUserResponse> RevocationRpcs::RevokeUser(const Caller& caller, const std::string& subject,
                                                                  const TimeBudget& budget, absl::Time now) {
  if (subject.empty()) {
    return InvalidField("subject", "is required: \"<connector>:<subject>\"");
  }
  const std::string by = SubjectOf(caller);
  RETURN_IF_ERROR(Record("user.revoked", by, {{"user", subject}}));
  // First: one invalidation that ends every open stream of theirs, however many sessions follow.
  RETURN_IF_ERROR(parts_.revocations.RevokeSubject(subject, now));
  // Sessions before codes, and codes before grants: none of them makes one that has been looked for already.
  const MayGoOn within = Within(budget, parts_.revocations);
  ASSIGN_OR_RETURN(const Ended sessions, parts_.sessions.EndSubject(subject, now, within));
  parts_.revocations.Wake();
  ASSIGN_OR_RETURN(const Ended grants, parts_.grants.RevokeAll({.subject = subject}, now, within));
  parts_.revocations.Wake();
  RETURN_IF_ERROR(parts_.clients.ForgetConsents({.subject = subject}).status());
  v1::RevokeUserResponse response;
  response.set_sessions_revoked(sessions.count);
  response.set_grants_revoked(grants.count);
  response.set_more(true);
  if (sessions.more || grants.more) {
    return response;
  }
  EndConnectionsRequest request;
  request.set_subject(subject);
  request.set_whole_user(true);
  absl::StatusOr<EndConnectionsResponse> ended = EndConnections(by, request, budget, now);
  if (!ended.ok()) {
    return ConnectionsRemain(absl::StrCat("sessions and tokens of the user have ended (", sessions.count, " sessions, ",
                                          grants.count, " grants)"),
                             ended.status());
  }
  *response.mutable_connections() = std::move(*ended->mutable_ended());
  response.set_credentials_erased(ended->credentials_erased());
  response.set_keys_destroyed(ended->keys_destroyed());
  response.set_more(ended->more());
  return response;
}

absl::StatusOr<v1::RevokeConnectionsResponse> RevocationRpcs::RevokeConnections(
    const Caller& caller, const v1::RevokeConnectionsRequest& request, const TimeBudget& budget, absl::Time now) {
  RETURN_IF_ERROR(CheckAccount(request));
  if (!parts_.servers.ready()) {
    return ServersUnknown();
  }
  EndConnectionsRequest asked;
  asked.set_app_uid(parts_.servers.AppUid(request.app()));
  if (asked.app_uid().empty()) {
    return absl::NotFoundError(absl::StrCat("no app ", Utf8Prefix(request.app(), 64)));
  }
  asked.set_subject(request.subject());
  const bool every_account = !request.default_label() && (request.label().empty() || request.label() == kEvery);
  if (!request.subject().empty()) {
    asked.set_every_label(every_account);
    asked.set_label(every_account ? "" : request.label());
  }
  const std::string by = SubjectOf(caller);
  RETURN_IF_ERROR(Record("connections.revoked", by,
                         {{"app", request.app()},
                          {"user", request.subject()},
                          {"account", every_account             ? ""
                                      : request.default_label() ? "default"
                                                                : request.label()}}));
  absl::StatusOr<EndConnectionsResponse> ended = EndConnections(by, asked, budget, now);
  if (absl::IsInvalidArgument(ended.status()) || absl::IsNotFound(ended.status())) {
    return ended.status();  // Calling again would not help.
  }
  if (!ended.ok()) {
    return ConnectionsRemain("nothing is known to have ended", ended.status());
  }
  v1::RevokeConnectionsResponse response;
  *response.mutable_ended() = std::move(*ended->mutable_ended());
  response.set_more(ended->more());
  return response;
}

absl::StatusOr<v1::RevokeServerResponse> RevocationRpcs::RevokeServer(const Caller& caller,
                                                                      const v1::RevokeServerRequest& request,
                                                                      const TimeBudget& budget, absl::Time now) {
  if (request.server().empty()) {
    return InvalidField("server", "is required: the slug of an MCP server");
  }
  if (!parts_.servers.ready()) {
    return ServersUnknown();
  }
  const std::string uid = parts_.servers.UidOf(request.server());
  if (uid.empty()) {
    return absl::NotFoundError(absl::StrCat("no MCP server ", Utf8Prefix(request.server(), 64)));
  }
  RETURN_IF_ERROR(
      Record("server.revoked", SubjectOf(caller), {{"server", request.server()}, {"user", request.subject()}}));
  GrantFilter which{.server_uid = uid};
  if (!request.subject().empty()) {
    which.subject = request.subject();
  }
  v1::RevokeServerResponse response;
  // Before the grants: whoever comes back is asked.
  ASSIGN_OR_RETURN(const int forgotten, parts_.clients.ForgetConsents(which));
  response.set_consents_forgotten(forgotten);
  ASSIGN_OR_RETURN(const Ended grants, parts_.grants.RevokeAll(which, now, Within(budget, parts_.revocations)));
  parts_.revocations.Wake();
  if (grants.more) {
    return GrantsRemain(grants.count);
  }
  response.set_grants_revoked(grants.count);
  return response;
}

grpc::Status RevocationService::RevokeConnections(grpc::ServerContext* context,
                                                  const v1::RevokeConnectionsRequest* request,
                                                  v1::RevokeConnectionsResponse* response) {
  return rpc_.Handle("RevokeConnections", context, response, [&](const Caller& caller) {
    return rpcs_.RevokeConnections(caller, *request, TimeBudget::Of(*context, rpc_.clock()), rpc_.clock().Now());
  });
}

grpc::Status RevocationService::RevokeServer(grpc::ServerContext* context, const v1::RevokeServerRequest* request,
                                             v1::RevokeServerResponse* response) {
  return rpc_.Handle("RevokeServer", context, response, [&](const Caller& caller) {
    return rpcs_.RevokeServer(caller, *request, TimeBudget::Of(*context, rpc_.clock()), rpc_.clock().Now());
  });
}

}  // namespace sallyport::authn
