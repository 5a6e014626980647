// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/own_connections.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <google/protobuf/util/time_util.h>

#include "common/status_macros.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "tools/cli/table.h"

namespace sallyport::cli {
namespace {

using google::protobuf::util::TimeUtil;

std::string TextOr(const std::string& text) { return text.empty() ? "-" : text; }

std::string StateOf(const token_broker::v1::Connection& connection) {
  return connection.has_revoke_since()
             ? absl::StrCat(connection.state(), " since ", TimeUtil::ToString(connection.revoke_since()))
             : connection.state();
}

std::string NameOf(const OwnConnection& which) {
  return which.account.empty() ? which.app : absl::StrCat(which.app, " (", which.account, ")");
}

}  // namespace

absl::Status PrintConnections(ApiClient& api, const Terminal& terminal) {
  token_broker::v1::ListConnectionsResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.token_broker.v1.TokenBroker/ListConnections",
                           token_broker::v1::ListConnectionsRequest(), &response));
  std::vector<std::vector<std::string>> rows;
  for (const token_broker::v1::Connection& connection : response.connections()) {
    rows.push_back({connection.app_slug(), TextOr(connection.label()), TextOr(connection.account_name()),
                    StateOf(connection), connection.has_linked_at() ? TimeUtil::ToString(connection.linked_at()) : "-",
                    connection.has_last_used_at() ? TimeUtil::ToString(connection.last_used_at()).substr(0, 10) : "-",
                    absl::StrJoin(connection.scopes(), " ")});
  }
  terminal.out << FormatTable({"APP", "ACCOUNT", "NAME THERE", "STATE", "LINKED", "LAST USED", "SCOPES"},
                              std::move(rows));
  return absl::OkStatus();
}

absl::Status DisconnectApp(ApiClient& api, const OwnConnection& which, const Terminal& terminal) {
  token_broker::v1::DisconnectRequest request;
  request.set_app_slug(which.app);
  request.set_label(which.account);
  token_broker::v1::DisconnectResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.token_broker.v1.TokenBroker/Disconnect", request, &response));
  terminal.out << "disconnected " << NameOf(which) << "; at the provider: ";
  if (response.revocation() == "pending") {
    terminal.out << "it did not answer, the gateway will ask it again\n";
  } else if (response.revocation() == "unsupported") {
    terminal.out << "not revoked, it has no revocation endpoint: remove the grant there yourself\n";
  } else {
    terminal.out << response.revocation() << "\n";
  }
  return absl::OkStatus();
}

absl::Status RenameConnection(ApiClient& api, const OwnConnection& which, const std::string& label,
                              const Terminal& terminal) {
  token_broker::v1::RenameConnectionRequest request;
  request.set_app_slug(which.app);
  request.set_label(which.account);
  request.set_new_label(label);
  token_broker::v1::RenameConnectionResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.token_broker.v1.TokenBroker/RenameConnection", request, &response));
  terminal.out << NameOf(which) << " is " << (label.empty() ? "the default account now" : absl::StrCat(label, " now"))
               << "\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli
