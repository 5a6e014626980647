// SPDX-License-Identifier: Apache-2.0
#include "services/authn/clients_service.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

constexpr int kDefaultPage = 100;
constexpr int kMaxPage = 1000;
constexpr size_t kMaxName = 256;

absl::StatusOr<std::string> SubjectOf(const Caller& caller) {
  if (!caller.passport.has_value()) {
    return NotSignedIn();
  }
  return caller.passport->subject;
}

absl::StatusOr<std::string> Required(const std::string& client_id) {
  if (client_id.empty()) {
    return InvalidField("clientId", "is required");
  }
  return client_id;
}

}  // namespace

absl::StatusOr<v1::ListOwnClientsResponse> ClientsRpcs::ListOwnClients(const Caller& caller, absl::Time now) const {
  ASSIGN_OR_RETURN(const std::string subject, SubjectOf(caller));
  ASSIGN_OR_RETURN(const std::vector<ClientDirectory::OfUser> all, parts_.clients.Of(subject, now));
  v1::ListOwnClientsResponse response;
  for (const ClientDirectory::OfUser& client : all) {
    v1::OwnClient& own = *response.add_clients();
    own.set_client_id(client.client_id);
    own.set_client_name(PlainText(client.client_name, kMaxName));
    for (const ClientDirectory::Agreement& agreement : client.agreements) {
      v1::OwnClient::OwnGrant& grant = *own.add_servers();
      if (agreement.server_uid.empty()) {
        grant.set_server_display_name("HTTP API of this gateway");
      } else {
        const Servers::Names names = parts_.servers.NamesOf(agreement.server_uid);
        grant.set_server_slug(names.slug);
        grant.set_server_display_name(names.display_name);
      }
      grant.set_consent_remembered(agreement.consent_remembered);
      *grant.mutable_agreed_at() = ToTimestamp(agreement.agreed_at);
      if (agreement.token_expires_at != absl::InfinitePast()) {
        *grant.mutable_token_expires_at() = ToTimestamp(agreement.token_expires_at);
      }
    }
  }
  return response;
}

absl::Status ClientsRpcs::CheckKnown(const GrantFilter& which, absl::Time now) const {
  ASSIGN_OR_RETURN(const bool has_grants, parts_.grants.HasLive(which, now));
  ASSIGN_OR_RETURN(const bool has_consents, parts_.clients.HasConsents(which));
  if (has_grants || has_consents) {
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("no client ", Utf8Prefix(*which.client_id, 64)));
}

absl::Status ClientsRpcs::Record(const Caller& caller, const char* rule, const GrantFilter& which) {
  audit::v1::Event event = MakeEvent("client.removed", audit::v1::DECISION_ALLOWED, caller.passport->subject);
  event.set_rule(rule);
  event.set_client_id(std::string(Utf8Prefix(*which.client_id, 256)));
  event.set_server_uid(which.server_uid.value_or(""));
  return parts_.audit.Record(std::move(event));
}

absl::StatusOr<int> ClientsRpcs::End(const GrantFilter& which, const TimeBudget& budget, absl::Time now) {
  // Before the grants: whoever comes back is asked.
  RETURN_IF_ERROR(parts_.clients.ForgetConsents(which).status());
  ASSIGN_OR_RETURN(
      const Ended ended,
      parts_.grants.RevokeAll(which, now, parts_.revocations.Delivering([&budget] { return !budget.IsOver(); })));
  parts_.revocations.Wake();
  if (ended.more) {
    return GrantsRemain(ended.count);
  }
  return ended.count;
}

absl::StatusOr<v1::RemoveOwnClientResponse> ClientsRpcs::RemoveOwnClient(const Caller& caller,
                                                                         const v1::RemoveOwnClientRequest& request,
                                                                         const TimeBudget& budget, absl::Time now) {
  // The caller's own, always: a filter without a subject would be everybody's.
  GrantFilter which;
  ASSIGN_OR_RETURN(which.subject, SubjectOf(caller));
  ASSIGN_OR_RETURN(which.client_id, Required(request.client_id()));
  if (!request.server_slug().empty()) {
    const std::string uid = parts_.servers.UidOf(request.server_slug());
    // As ListOwnClients names one that is gone.
    which.server_uid = uid.empty() ? request.server_slug() : uid;
  }
  RETURN_IF_ERROR(CheckKnown(which, now));
  RETURN_IF_ERROR(Record(caller, "user", which));
  v1::RemoveOwnClientResponse response;
  ASSIGN_OR_RETURN(const int ended, End(which, budget, now));
  response.set_grants_revoked(ended);
  return response;
}

absl::StatusOr<v1::ListClientsResponse> ClientsRpcs::ListClients(const v1::ListClientsRequest& request,
                                                                 absl::Time now) const {
  if (request.page_size() < 0 || request.page_size() > kMaxPage) {
    return InvalidField("pageSize", absl::StrCat("must be 0 to ", kMaxPage));
  }
  const int size = request.page_size() == 0 ? kDefaultPage : request.page_size();
  ASSIGN_OR_RETURN(const ClientDirectory::Page page, parts_.clients.List(size, request.page_token(), now));
  v1::ListClientsResponse response;
  for (const ClientDirectory::Entry& entry : page.entries) {
    v1::Client& client = *response.add_clients();
    client.set_client_id(entry.client.id);
    client.set_client_name(PlainText(entry.client.metadata.client_name, kMaxName));
    const auto& uris = entry.client.metadata.redirect_uris;
    client.mutable_redirect_uris()->Assign(uris.begin(), uris.end());
    client.set_configured(entry.configured);
    if (!entry.configured) {
      *client.mutable_registered_at() = ToTimestamp(entry.client.created_at);
    }
    client.set_users(entry.users);
    if (entry.used_at != absl::InfinitePast()) {
      *client.mutable_last_used_at() = ToTimestamp(entry.used_at);
    }
  }
  response.set_next_page_token(page.next_page_token);
  return response;
}

absl::StatusOr<v1::RemoveClientResponse> ClientsRpcs::RemoveClient(const Caller& caller,
                                                                   const v1::RemoveClientRequest& request,
                                                                   const TimeBudget& budget, absl::Time now) {
  RETURN_IF_ERROR(SubjectOf(caller).status());
  GrantFilter which;
  ASSIGN_OR_RETURN(which.client_id, Required(request.client_id()));
  ASSIGN_OR_RETURN(const bool exists, parts_.clients.Exists(*which.client_id));
  // One that made room for others is in no table, and its grants live on.
  if (!exists) {
    RETURN_IF_ERROR(CheckKnown(which, now));
  }
  RETURN_IF_ERROR(Record(caller, "admin", which));
  v1::RemoveClientResponse response;
  // First: it cannot redeem or refresh anything any more while its grants end.
  ASSIGN_OR_RETURN(const bool registered, parts_.clients.Unregister(*which.client_id));
  response.set_registered(registered);
  ASSIGN_OR_RETURN(const int ended, End(which, budget, now));
  response.set_grants_revoked(ended);
  return response;
}

grpc::Status ClientsService::ListOwnClients(grpc::ServerContext* context, const v1::ListOwnClientsRequest* /*request*/,
                                            v1::ListOwnClientsResponse* response) {
  return rpc_.Handle("ListOwnClients", context, response,
                     [&](const Caller& caller) { return rpcs_.ListOwnClients(caller, rpc_.clock().Now()); });
}

grpc::Status ClientsService::RemoveOwnClient(grpc::ServerContext* context, const v1::RemoveOwnClientRequest* request,
                                             v1::RemoveOwnClientResponse* response) {
  return rpc_.Handle("RemoveOwnClient", context, response, [&](const Caller& caller) {
    return rpcs_.RemoveOwnClient(caller, *request, TimeBudget::Of(*context, rpc_.clock()), rpc_.clock().Now());
  });
}

grpc::Status ClientsService::ListClients(grpc::ServerContext* context, const v1::ListClientsRequest* request,
                                         v1::ListClientsResponse* response) {
  return rpc_.Handle("ListClients", context, response,
                     [&](const Caller& /*caller*/) { return rpcs_.ListClients(*request, rpc_.clock().Now()); });
}

grpc::Status ClientsService::RemoveClient(grpc::ServerContext* context, const v1::RemoveClientRequest* request,
                                          v1::RemoveClientResponse* response) {
  return rpc_.Handle("RemoveClient", context, response, [&](const Caller& caller) {
    return rpcs_.RemoveClient(caller, *request, TimeBudget::Of(*context, rpc_.clock()), rpc_.clock().Now());
  });
}

}  // namespace sallyport::authn
