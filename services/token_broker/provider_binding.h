// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <google/protobuf/map.h>

#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker {

// Label of a connection: "<origin of the token endpoint> <origin of the revocation endpoint>" as it was made with, the
// second empty if none was known. Its tokens go back there and nowhere else: whoever re-points an app does not get its
// users' refresh tokens.
inline constexpr char kBoundTo[] = "bound_to";
std::string BoundTo(const Provider& provider);

using Labels = google::protobuf::Map<std::string, std::string>;

// Sign-in connections (`sso:`) have no label and may go where their connector says, which only the configuration file
// can change. Of any other connection a missing label matches nothing.

// `token_url` has the origin that a connection with this label was made with.
bool IsBoundTo(const std::string& label, const std::string& token_url);

// The token endpoint has the origin that the connection was made with. What is known of revocation does not matter.
bool MayRefreshAt(const Labels& labels, const Provider& provider);
// The revocation endpoint has one of the connection's origins. False if there is none.
bool MayRevokeAt(const Labels& labels, const Provider& provider);

}  // namespace sallyport::token_broker
