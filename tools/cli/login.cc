// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/login.h"

#include <map>

#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/files.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "tools/cli/loopback_listener.h"

namespace sallyport::cli {
namespace {

constexpr char kClientId[] = "sallyport-cli";

absl::Status WithAdminToken(ApiClient& api, const std::string& file, const Terminal& terminal) {
  const absl::StatusOr<Secret> token = ReadSecretFile(file);
  if (absl::IsNotFound(token.status())) {
    return absl::NotFoundError(absl::StrCat(
        file, ": is not there; the gateway writes it at its first start and removes it when it has been redeemed"));
  }
  RETURN_IF_ERROR(token.status());
  authn::v1::RedeemAdminTokenRequest request;
  request.set_token(std::string(token->Expose()));
  authn::v1::RedeemAdminTokenResponse response;
  RETURN_IF_ERROR(api.CallAnonymously("sallyport.authn.v1.Authn/RedeemAdminToken", request, &response));
  Login login;
  login.access_token = Secret(std::move(*response.mutable_access_token()));
  login.expires_at = FromTimestamp(response.expires_at());
  RETURN_IF_ERROR(api.Save(std::move(login)));
  terminal.out << "signed in at " << api.url() << " as the first administrator, for one hour; the token in " << file
               << " is used up\n";
  return absl::OkStatus();
}

absl::Status WithServiceAccountToken(ApiClient& api, const std::string& file, const Terminal& terminal) {
  ASSIGN_OR_RETURN(const Secret token, ReadSecretFile(file));
  authn::v1::RedeemServiceAccountTokenRequest request;
  request.set_token(std::string(token.Expose()));
  authn::v1::RedeemServiceAccountTokenResponse response;
  RETURN_IF_ERROR(api.CallAnonymously("sallyport.authn.v1.Authn/RedeemServiceAccountToken", request, &response));
  Login login;
  login.access_token = Secret(std::move(*response.mutable_access_token()));
  login.expires_at = FromTimestamp(response.expires_at());
  const absl::Time until = login.expires_at;
  RETURN_IF_ERROR(api.Save(std::move(login)));
  terminal.out << "signed in at " << api.url() << " as a service account, until "
               << absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", until, absl::UTCTimeZone()) << "\n";
  return absl::OkStatus();
}

// The authorization code, after checking whose answer it is.
absl::StatusOr<std::string> CodeFrom(const std::string& query, const std::string& state, const std::string& issuer) {
  using Answer = std::map<std::string, std::string>;
  const absl::StatusOr<Answer> answer = FormDecodeUnique(query);
  if (!answer.ok()) return absl::DataLossError("the browser's answer does not parse");
  const auto value = [&](const char* name) {
    const auto found = answer->find(name);
    return found == answer->end() ? std::string() : found->second;
  };
  if (!ConstantTimeEquals(value("state"), state)) {
    return absl::PermissionDeniedError("the browser's answer belongs to another sign-in: run `sallyport login` again");
  }
  if (value("iss") != issuer) {
    return absl::PermissionDeniedError(
        absl::StrCat("the answer is not from ", issuer, " (RFC 9207): use the gateway's ", "public URL with --url"));
  }
  if (const std::string error = value("error"); !error.empty()) {
    const std::string description = value("error_description");
    return absl::PermissionDeniedError(
        absl::StrCat("the gateway refused: ", error, description.empty() ? "" : ", ", description));
  }
  if (value("code").empty()) return absl::DataLossError("the browser's answer holds no code");
  return value("code");
}

absl::Status ThroughBrowser(ApiClient& api, const LoginOptions& options, const Terminal& terminal) {
  ASSIGN_OR_RETURN(LoopbackListener listener, LoopbackListener::Open());
  const std::string redirect_uri = absl::StrCat("http://127.0.0.1:", listener.port(), "/callback");
  const std::string state = RandomToken("");
  const std::string verifier = RandomToken("");
  const std::string resource = api.url() + "/api";
  const std::string address =
      AppendQuery(api.url() + "/oauth/authorize", {{"response_type", "code"},
                                                   {"client_id", kClientId},
                                                   {"redirect_uri", redirect_uri},
                                                   {"resource", resource},
                                                   {"state", state},
                                                   {"code_challenge", Base64UrlEncode(Sha256(verifier))},
                                                   {"code_challenge_method", "S256"}});
  const bool opened = !options.no_browser && terminal.open_browser(address);
  terminal.err << (opened ? "Your browser opens. If it does not, visit\n\n  " : "Open this address in a browser:\n\n  ")
               << address << "\n\n"
               << std::flush;
  ASSIGN_OR_RETURN(const std::string query, listener.Await(options.patience));
  ASSIGN_OR_RETURN(const std::string code, CodeFrom(query, state, api.url()));
  ASSIGN_OR_RETURN(const std::string body, api.PostForm("/oauth/token", {{"grant_type", "authorization_code"},
                                                                         {"client_id", kClientId},
                                                                         {"code", code},
                                                                         {"redirect_uri", redirect_uri},
                                                                         {"code_verifier", verifier},
                                                                         {"resource", resource}}));
  ASSIGN_OR_RETURN(Login login, api.ParseTokens(body, Secret()));
  RETURN_IF_ERROR(api.Save(std::move(login)));
  terminal.out << "signed in at " << api.url() << "\n";
  return absl::OkStatus();
}

}  // namespace

absl::Status SignIn(ApiClient& api, const LoginOptions& options, const Terminal& terminal) {
  if (!options.admin_token_file.empty() && !options.service_account_token_file.empty()) {
    return absl::InvalidArgumentError("--admin-token-file and --service-account-token-file exclude each other");
  }
  if (!options.service_account_token_file.empty()) {
    return WithServiceAccountToken(api, options.service_account_token_file, terminal);
  }
  return options.admin_token_file.empty() ? ThroughBrowser(api, options, terminal)
                                          : WithAdminToken(api, options.admin_token_file, terminal);
}

absl::Status SignOut(ApiClient& api, const Terminal& terminal) {
  ASSIGN_OR_RETURN(const Login login, api.Forget());
  if (login.access_token.empty()) {
    terminal.out << "you were not signed in at " << api.url() << "\n";
    return absl::OkStatus();
  }
  const Secret& token = login.refresh_token.empty() ? login.access_token : login.refresh_token;
  const absl::Status revoked =
      api.PostForm("/oauth/revoke", {{"client_id", kClientId}, {"token", std::string(token.Expose())}}).status();
  if (!revoked.ok()) {
    return absl::Status(revoked.code(), absl::StrCat("the login is forgotten here, but the gateway did not revoke it: ",
                                                     revoked.message()));
  }
  terminal.out << "signed out at " << api.url() << "\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli
