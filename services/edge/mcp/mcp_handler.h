// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "services/edge/edge_options.h"
#include "services/edge/http/gateway.h"
#include "services/edge/mcp/call_audit.h"
#include "services/edge/mcp/doors.h"
#include "services/edge/mcp/jsonrpc_scan.h"
#include "services/edge/mcp/link_replies.h"
#include "services/edge/mcp/server_entry.h"
#include "services/edge/mcp/synthetic_sessions.h"

namespace sallyport::edge {

// One request to /mcp/<server>, from head to end. Reused by the connection's next request; what Clear leaves is a
// memory of the connection, so that a client that repeats its token costs no hash and no lookup.
struct McpCall {
  ~McpCall();

  std::shared_ptr<const ServerEntry> entry;
  std::string_view token;   // Of Authorization: Bearer.
  std::string_view origin;  // Allowed Origin, for CORS.
  PrincipalPtr principal;
  std::shared_ptr<const CredentialSet> credentials;
  RpcMessage message;
  bool scanned = false;
  std::string upstream_session;  // What goes upstream; empty: none.
  std::string client_session;    // As the client sent it.
  uint8_t capabilities = 0;
  bool has_session = false;

  // Linking.
  bool synthetic = false;  // The client's session is one of ours...
  enum class Replay : uint8_t { kNone, kInitialize, kInitialized, kDone } replay = Replay::kNone;
  std::string replay_body;
  std::string replay_session;  // The upstream's id, once its initialize was answered.
  bool resumed = false;        // A valid requestState of ours came along.
  bool held = false;           // A stream is open while we wait for the account.
  absl::Time held_until;
  std::string waiting_for;  // Connection key.

  int skew_retries = 0;
  bool refreshed = false;  // A forced refresh was made for this call.
  std::string_view rule;
  audit::v1::Decision decision = audit::v1::DECISION_ALLOWED;
  absl::Time started;

  // Memory of the connection.
  std::string memo_token;
  uint64_t memo_serial = 0;
  PrincipalPtr memo_principal;
  std::string memo_session;
  std::string memo_upstream_session;
  uint8_t memo_capabilities = 0;
  PrincipalPtr memo_session_principal;  // Kept alive: an address alone could come to be somebody else's.

  void Clear();
};

// The doors of /mcp/<server>: who may come in, which credential goes out, and what the answer may carry.
class McpHandler {
 public:
  McpHandler(const SiteOptions& site, Routes& routes, Doors& doors, CallAudit& audit, const Clock& clock);

  // Engine's calls, for paths under /mcp/.
  uint64_t OnHead(Exchange& exchange, McpCall& call);
  void OnRequest(Exchange& exchange, McpCall& call);
  Verdict OnUpstreamHead(Exchange& exchange, McpCall& call, const ResponseHead& head, RelayHead& relay);
  void OnUpstreamBody(Exchange& exchange, McpCall& call, const ResponseHead& head, std::string_view body);
  void OnUpstreamError(Exchange& exchange, McpCall& call, UpstreamError error);
  void OnDone(Exchange& exchange, McpCall& call);

  // A connection ("<subject>\n<app uid>\n<label>") changed: replies held for it go on.
  void OnConnection(const std::string& key);

 private:
  struct Reply {
    int status = 200;
    int rpc_code = -32000;
    std::string_view reason;  // Stable word, in the body and the audit.
    std::string_view message;
    std::string_view challenge;
    int retry_after = 0;
  };
  void Refuse(Exchange& exchange, McpCall& call, const Reply& reply);
  void RespondJson(Exchange& exchange, McpCall& call, int status, const std::string& body,
                   std::string_view session = {});
  void RespondEmpty(Exchange& exchange, McpCall& call, int status);
  void RefuseStatus(Exchange& exchange, McpCall& call, const absl::Status& status);

  // In order; each ends by calling the next, by an answer, or by deferring.
  bool FindRoute(Exchange& exchange, McpCall& call);
  bool CheckMethod(Exchange& exchange, McpCall& call);
  bool ReadToken(Exchange& exchange, McpCall& call);
  void DoorOne(Exchange& exchange, McpCall& call);
  void Admitted(Exchange& exchange, McpCall& call);
  bool Scan(Exchange& exchange, McpCall& call);
  bool CheckModernHeaders(Exchange& exchange, McpCall& call);
  bool CheckSession(Exchange& exchange, McpCall& call);
  void DoorTwo(Exchange& exchange, McpCall& call);
  void Resolved(Exchange& exchange, McpCall& call, const absl::StatusOr<Resolution>& resolution);
  void Forward(Exchange& exchange, McpCall& call);
  // kAnswered: the exchange has its answer already and must not be touched.
  enum class Rendered : uint8_t { kReady, kUnencodable, kAnswered };
  Rendered RenderRequest(Exchange& exchange, McpCall& call, std::string_view method, std::string_view session,
                         size_t body_size);
  Rendered RenderRequestScoped(Exchange& exchange, McpCall& call, std::string& head);
  void Retry(Exchange& exchange, McpCall& call);
  PrincipalKey KeyOf(const McpCall& call) const;

  // Unlinked users (link_flow.cc).
  bool ResumeIfAsked(Exchange& exchange, McpCall& call);
  void Resume(Exchange& exchange, McpCall& call);
  void CutOwnMembers(Exchange& exchange, McpCall& call);
  void NeedsLink(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void AnswerSynthetically(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void SendSignal(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void Hold(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void HoldGet(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void Await(Exchange& exchange, McpCall& call, const std::string& app_uid, absl::Time until);
  void WakeUp(Exchange& exchange, McpCall& call);
  void StopWaiting(McpCall& call, const void* exchange);
  bool ReplayIfNeeded(Exchange& exchange, McpCall& call);
  void SendReplay(Exchange& exchange, McpCall& call);
  void OnReplayAnswer(Exchange& exchange, McpCall& call, const ResponseHead& head);
  token_broker::v1::Call BindingOf(const McpCall& call) const;

  // Upstream said 401 (responses.cc).
  bool CredentialRefused(const McpCall& call, const ResponseHead& head) const;
  void AfterRefusal(Exchange& exchange, McpCall& call);

  const SiteOptions& site_;
  Routes& routes_;
  Doors& doors_;
  CallAudit& audit_;
  const Clock& clock_;
  SyntheticSessions synthetic_;

  struct Waiter {
    const void* exchange;
    ExchangeRef ref;
  };
  Mutex waiters_mu_;
  absl::flat_hash_map<std::string, std::vector<Waiter>> waiters_ ABSL_GUARDED_BY(waiters_mu_);
  InFlight in_flight_;
};

// Finds the call of an exchange again after an asynchronous step.
McpCall& CallOf(Exchange& exchange);

}  // namespace sallyport::edge
