// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/clients.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <google/protobuf/util/time_util.h>

#include "common/status_macros.h"
#include "sallyport/authn/v1/clients.pb.h"
#include "tools/cli/endings.h"
#include "tools/cli/table.h"

namespace sallyport::cli {
namespace {

using google::protobuf::util::TimeUtil;

constexpr int kPage = 1000;

// Nobody has verified a client's name for itself.
std::string NameOf(const std::string& name, bool configured) {
  if (name.empty()) return "-";
  return configured ? name : absl::StrCat("calls itself \"", name, "\"");
}

std::string ApiOr(const authn::v1::OwnClient::OwnGrant& grant) {
  return grant.server_slug().empty() ? "(HTTP API)" : grant.server_slug();
}

absl::Status RemoveForEverybody(ApiClient& api, const RemovedClient& which, bool yes, const Terminal& terminal) {
  if (!yes) {
    RETURN_IF_ERROR(Confirm(terminal, absl::StrCat("This ends every user's tokens of ", which.client_id,
                                                   " and its registration; to be used again, it must register and ask "
                                                   "each of them again.")));
  }
  authn::v1::RemoveClientRequest request;
  request.set_client_id(which.client_id);
  authn::v1::RemoveClientResponse response;
  ASSIGN_OR_RETURN(
      const int calls,
      UntilNoGrantsRemain([&] { return api.Call("sallyport.authn.v1.Clients/RemoveClient", request, &response); },
                          terminal));
  // The registration goes with the first call, whose answer was an error if there were others.
  const char* const what = calls > 1               ? "ended for everybody: "
                           : response.registered() ? "removed "
                                                   : "it stays registered by configuration: ";
  terminal.out << what << which.client_id << "; grants revoked: " << EndedGrants(calls, response.grants_revoked())
               << "\n";
  return absl::OkStatus();
}

}  // namespace

absl::Status PrintOwnClients(ApiClient& api, const Terminal& terminal) {
  authn::v1::ListOwnClientsResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.authn.v1.Clients/ListOwnClients", authn::v1::ListOwnClientsRequest(), &response));
  std::vector<std::vector<std::string>> rows;
  for (const authn::v1::OwnClient& client : response.clients()) {
    for (const authn::v1::OwnClient::OwnGrant& grant : client.servers()) {
      rows.push_back({client.client_id(), NameOf(client.client_name(), false), ApiOr(grant),
                      grant.has_agreed_at() ? TimeUtil::ToString(grant.agreed_at()) : "-",
                      grant.consent_remembered() ? "yes" : "no",
                      grant.has_token_expires_at() ? TimeUtil::ToString(grant.token_expires_at()) : "none"});
    }
  }
  terminal.out << FormatTable({"CLIENT", "NAME", "SERVER", "AGREED", "REMEMBERED", "TOKEN UNTIL"}, std::move(rows));
  return absl::OkStatus();
}

absl::Status PrintAllClients(ApiClient& api, const Terminal& terminal) {
  std::vector<std::vector<std::string>> rows;
  authn::v1::ListClientsRequest request;
  request.set_page_size(kPage);
  do {
    authn::v1::ListClientsResponse response;
    RETURN_IF_ERROR(api.Call("sallyport.authn.v1.Clients/ListClients", request, &response));
    for (const authn::v1::Client& client : response.clients()) {
      rows.push_back({client.client_id(), NameOf(client.client_name(), client.configured()),
                      client.has_registered_at() ? TimeUtil::ToString(client.registered_at()) : "by configuration",
                      absl::StrCat(client.users()),
                      client.has_last_used_at() ? TimeUtil::ToString(client.last_used_at()) : "-",
                      absl::StrJoin(client.redirect_uris(), " ")});
    }
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  terminal.out << FormatTable({"CLIENT", "NAME", "REGISTERED", "USERS", "LAST USED", "REDIRECT URIS"}, std::move(rows));
  return absl::OkStatus();
}

absl::Status RemoveClient(ApiClient& api, const RemovedClient& which, bool yes, const Terminal& terminal) {
  if (which.all && !which.server.empty()) {
    return absl::InvalidArgumentError("give one of --all and --server: `sallyport servers revoke` is for one server");
  }
  if (which.all) return RemoveForEverybody(api, which, yes, terminal);
  authn::v1::RemoveOwnClientRequest request;
  request.set_client_id(which.client_id);
  request.set_server_slug(which.server);
  authn::v1::RemoveOwnClientResponse response;
  ASSIGN_OR_RETURN(
      const int calls,
      UntilNoGrantsRemain([&] { return api.Call("sallyport.authn.v1.Clients/RemoveOwnClient", request, &response); },
                          terminal));
  terminal.out << "removed " << which.client_id << (which.server.empty() ? "" : absl::StrCat(" for ", which.server))
               << ": it must ask you again; grants revoked: " << EndedGrants(calls, response.grants_revoked()) << "\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli
