// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

#include "common/web/page.h"
#include "sallyport/web/v1/web.pb.h"

namespace sallyport::token_broker {

// Where authn goes on with what it was doing when it sent the user here.
std::string ContinueUrl(const std::string& txn);
// A button that leads there; nothing without a `txn`.
page::Html BackLink(const std::string& txn);
// Where a platform's link leads back to, which its configuration allows; nothing without a `return_to`.
page::Html BackToPlatform(const std::string& return_to);

// A page that ends here, in plain words.
web::v1::WebResponse Message(int status, const std::string& host, absl::string_view title, absl::string_view text,
                             const page::Html& extra = {});
// A form that is not one of ours, or not any more; the button leads to where it is shown again.
web::v1::WebResponse FormTooOld(const std::string& host, const std::string& target);
// A part of the gateway does not answer.
web::v1::WebResponse NotNow(const std::string& host, const page::Html& extra = {});
// The provider failed, of the app that people call `app`: `code` is its own error code, or a word of ours (see
// provider_trouble.h). `again` is left out where trying again does not help.
web::v1::WebResponse ProviderFailed(const std::string& host, const std::string& app, const std::string& code,
                                    const page::Html& again, const page::Html& back);
// The app cannot be used as it is configured.
web::v1::WebResponse Misconfigured(const std::string& host, const std::string& app, const page::Html& back);

}  // namespace sallyport::token_broker
