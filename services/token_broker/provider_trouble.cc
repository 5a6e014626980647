// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/provider_trouble.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/oauth/error.h"
#include "common/text/utf8.h"

namespace sallyport::token_broker {
namespace {

constexpr const char* kSilences[] = {
    "", "timeout", "no_answer", "not_sent", "circuit_open", "holder_vanished", kMetadataUnavailable};

std::string Words(absl::string_view name, absl::string_view code) {
  if (code == kRenewalUnderWay) {
    return absl::StrCat("the connection to ", name, " is being renewed; try again");
  }
  if (IsSilence(code)) {
    return absl::StrCat(name, " does not answer; try again");
  }
  if (code == "network_not_allowed") {
    return absl::StrCat(name,
                        " is in a network this gateway may not reach (network_not_allowed); its administrator "
                        "can allow it in egress.oauthNetworks");
  }
  if (absl::StartsWith(code, "http_")) {
    return absl::StrCat(name, " answers with an error (", code, "); try again");
  }
  return absl::StrCat(name, " did not renew the connection (", code, "); try again");
}

}  // namespace

absl::Status ProviderUnavailable(absl::string_view code, absl::Duration retry_after) {
  return WithDetail(absl::UnavailableError("the provider could not renew this connection"),
                    {.oauth_error = std::string(code),
                     .reason = kProviderUnavailable,
                     .retry_after = std::max(retry_after, absl::Seconds(1))});
}

std::string TroubleCodeOf(const absl::Status& status) {
  const ErrorDetail detail = DetailOf(status);
  return detail.reason == kProviderUnavailable ? detail.oauth_error : "";
}

bool RejectsClient(absl::string_view code) {
  return code != oauth::kUnauthorizedClient && absl::StrContains(absl::AsciiStrToLower(code), "client");
}

bool IsSilence(absl::string_view code) {
  return std::find(std::begin(kSilences), std::end(kSilences), code) != std::end(kSilences);
}

absl::Status NameProvider(const absl::Status& status, absl::string_view name) {
  const ErrorDetail detail = DetailOf(status);
  if (!absl::IsUnavailable(status) || detail.reason != kProviderUnavailable) {
    return status;
  }
  const absl::string_view short_name = Utf8Prefix(name, 64);
  if (RejectsClient(detail.oauth_error)) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat(short_name, " does not accept this gateway's client ID or secret (",
                                                   detail.oauth_error, "); its administrator must correct them")),
        {.oauth_error = detail.oauth_error, .reason = kProviderRejectsClient});
  }
  return WithDetail(absl::UnavailableError(Words(short_name, detail.oauth_error)), detail);
}

}  // namespace sallyport::token_broker
