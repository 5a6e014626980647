// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/own_credentials.h"

#include <vector>

#include "absl/strings/str_join.h"
#include <google/protobuf/util/time_util.h>

#include "common/status_macros.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "tools/cli/password.h"
#include "tools/cli/table.h"

namespace sallyport::cli {
namespace {

std::string Whose(const OwnCredential& credential) {
  return credential.subject.empty() ? "your " + credential.slug : credential.slug + " of " + credential.subject;
}

}  // namespace

absl::Status PrintOwnCredentials(ApiClient& api, const Terminal& terminal) {
  token_broker::v1::ListOwnCredentialsResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.token_broker.v1.TokenBroker/ListOwnCredentials",
                           token_broker::v1::ListOwnCredentialsRequest(), &response));
  std::vector<std::vector<std::string>> rows;
  for (const token_broker::v1::OwnCredential& own : response.credentials()) {
    rows.push_back({own.credential(), own.state(),
                    own.has_entered_at() ? google::protobuf::util::TimeUtil::ToString(own.entered_at()) : "-",
                    absl::StrJoin(own.origins(), " ")});
  }
  terminal.out << FormatTable({"CREDENTIAL", "STATE", "ENTERED", "MAY BE SENT TO"}, rows);
  return absl::OkStatus();
}

absl::Status SetOwnCredential(ApiClient& api, const OwnCredential& credential, const Terminal& terminal) {
  ASSIGN_OR_RETURN(const Secret value, ReadSecretLine(terminal, "Value of " + Whose(credential) + ": "));
  if (value.empty()) return absl::InvalidArgumentError("the value is empty: type it, or give it as the first line");
  token_broker::v1::SetCredentialRequest request;
  request.set_credential(credential.slug);
  request.mutable_value()->set_value(std::string(value.Expose()));
  request.set_username(credential.username);
  request.set_subject(credential.subject);
  token_broker::v1::SetCredentialResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.token_broker.v1.TokenBroker/SetCredential", request, &response));
  terminal.out << "stored " << Whose(credential) << "; it may be sent to " << absl::StrJoin(response.origins(), ", ")
               << "\n";
  return absl::OkStatus();
}

absl::Status ClearOwnCredential(ApiClient& api, const OwnCredential& credential, const Terminal& terminal) {
  token_broker::v1::ClearCredentialRequest request;
  request.set_credential(credential.slug);
  request.set_subject(credential.subject);
  token_broker::v1::ClearCredentialResponse response;
  RETURN_IF_ERROR(api.Call("sallyport.token_broker.v1.TokenBroker/ClearCredential", request, &response));
  terminal.out << "erased " << Whose(credential) << "\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli
