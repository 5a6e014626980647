// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "services/edge/http/request_head.h"

// What a request says of its caller. A field value may hold any byte above 0x7f; what goes into an RPC may not.
namespace sallyport::edge {

// What follows the scheme in `Authorization: Bearer ...`, whatever it is; empty if there is no such field.
std::string_view BearerOf(const RequestHead& head);
// RFC 6750 section 2.1: a b64token. Nothing else can be a token of anybody.
bool IsBearerToken(std::string_view token);

// The cookies, "name=value; name=value", of all Cookie fields. Those with bytes outside visible ASCII are left out
// (RFC 6265 section 4.1.1): they are other sites' and nobody here could read them.
std::string CookiesOf(const RequestHead& head);

}  // namespace sallyport::edge
