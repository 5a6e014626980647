// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "services/authn/connectors.h"
#include "services/authn/web/context.h"

namespace sallyport::authn::web {

// Pages about an identity provider, which they name.

// For a sign-in that failed at the provider: it does not answer, does not accept our credentials, may not be reached,
// or did not confirm. Logs the failure. A status that is not the provider's doing comes back as it is, for StatusPage.
absl::StatusOr<WebResponse> ProviderFailure(const Context& context, const Connector& connector,
                                            const absl::Status& status, absl::string_view return_to);

// For a browser whose session here has just ended. The provider's own session goes on, which the page says and, where
// the provider announces how, offers to end (OpenID Connect RP-Initiated Logout 1.0).
WebResponse SignedOut(const Context& context, const Browser& browser, absl::Time now);

}  // namespace sallyport::authn::web
