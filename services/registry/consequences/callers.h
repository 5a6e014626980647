// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/consequences/consequences.h"

namespace sallyport::registry {

v1::Consequence CallersRefused(const std::string& field, v1::Consequence::Callers callers, const std::string& message);

// doors.cc: whom the old agent authentication admits and the new one does not.
Consequences LostAtTheDoor(const v1::AgentAuth& before, const v1::AgentAuth& after);
// asks.cc: what the new plan asks of callers who were admitted before, and the old one did not.
Consequences AskedOfCallers(const v1::McpServer& before, const v1::McpServer& after);

// users.cc: accounts and values of their own that users need, before and after.
Consequences NeededOfUsers(const v1::McpServer& before, const v1::McpServer& after, const Neighbours& neighbours,
                           UserCounts& counts);

// Name in JSON of what a piece of the server's plan was made of.
std::string FieldOf(const v1::McpServer& server, const v1::CredentialPlan::Piece& piece);

}  // namespace sallyport::registry
