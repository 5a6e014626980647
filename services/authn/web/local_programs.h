// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"

namespace sallyport::authn::web {

// Does a code sent to this redirect URI end at a program on the user's computer? Loopback addresses, private-use
// schemes (RFC 8252 section 7), and the pages of editors that pass it on to one. Any program there can register what
// another did and gets the same client id, so what a user once allowed one must not give a code to the next
// (section 8.6). True also for what does not parse.
bool LeadsToLocalProgram(absl::string_view redirect_uri);

}  // namespace sallyport::authn::web
