// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <google/protobuf/map.h>

#include "sallyport/token_broker/v1/token_set.pb.h"
#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker {

// Where a connection's tokens came from and may go back to, as it was made with: whoever re-points an app does not get
// its users' refresh tokens. It is sealed with the tokens.
using Provenance = v1::TokenSet::Provenance;
using Labels = google::protobuf::Map<std::string, std::string>;

// Empty if it is no URL.
std::string OriginOf(const std::string& url);

// Label of a connection: "<origin of the token endpoint> <origin of the revocation endpoint>", the second empty if none
// was known. For lists, which open nothing; and what counts in a connection that an earlier release has stored, until
// it is stored again.
inline constexpr char kBoundTo[] = "bound_to";
std::string BoundTo(const Provider& provider);

// `binding`: name of the app's binding; empty for sign-ins.
Provenance MadeAt(const Provider& provider, const std::string& binding);
// What is sealed with the tokens, else what the labels say.
Provenance ProvenanceOf(const v1::TokenSet& tokens, const Labels& labels);
Provenance ProvenanceOf(const Labels& labels);

// Sign-in connections (`sso:`) say nothing, and may go where their connector says, which only the configuration file
// can change. Of any other connection an empty provenance matches nothing.

// `token_url` has the origin that a connection was made with.
bool IsBoundTo(const std::string& token_origin, const std::string& token_url);
// The token endpoint has the origin that the connection was made with. What is known of revocation does not matter.
bool MayRefreshAt(const Provenance& provenance, const Provider& provider);
// The revocation endpoint has one of the connection's origins. False if there is none.
bool MayRevokeAt(const Provenance& provenance, const Provider& provider);

}  // namespace sallyport::token_broker
