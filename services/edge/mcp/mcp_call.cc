// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/mcp_call.h"

#include <openssl/crypto.h>

#include "services/edge/edge_state.h"

namespace sallyport::edge {

McpCall& CallOf(Exchange& exchange) { return static_cast<EdgeState*>(exchange.state())->mcp; }

McpCall::~McpCall() { OPENSSL_cleanse(memo_token.data(), memo_token.size()); }

void McpCall::Clear() {
  entry.reset();
  token = origin = account = {};
  principal.reset();
  credentials.reset();
  scanned = false;
  message.Clear();
  ClearSession();
  resumed = held = refreshed = asked_again = audit_begun = in_flight = false;
  replay = Replay::kNone;
  entered_session.clear();
  replay_body.clear();
  replay_session.clear();
  waiting_for.clear();
  skew_retries = 0;
  rule = {};
  rule_text.clear();
  decision = audit::v1::DECISION_FAILED;
}

void McpCall::ClearSession() {
  upstream_session.clear();
  client_session.clear();
  capabilities = 0;
  has_session = synthetic = false;
}

}  // namespace sallyport::edge
