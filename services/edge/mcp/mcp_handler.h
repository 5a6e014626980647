// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "services/edge/edge_options.h"
#include "services/edge/http/gateway.h"
#include "services/edge/http/response_rules.h"
#include "services/edge/mcp/call_audit.h"
#include "services/edge/mcp/doors.h"
#include "services/edge/mcp/link_replies.h"
#include "services/edge/mcp/mcp_call.h"
#include "services/edge/mcp/open_streams.h"
#include "services/edge/mcp/server_entry.h"
#include "services/edge/mcp/synthetic_sessions.h"

namespace sallyport::edge {

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

  void OnWorkerStart(Worker& worker) { streams_.OnWorkerStart(worker); }
  void OnWorkerStop(Worker& worker) { streams_.OnWorkerStop(worker); }
  // After the routes and the doors were told: streams of callers and servers that are no more are cut.
  void OnUpdate(const ControlUpdate& update) { streams_.OnUpdate(update); }

  // A connection ("<subject>\n<app uid>\n<label>") changed: replies held for it go on.
  void OnConnection(const std::string& key);

 private:
  struct Reply {
    int status = 200;
    int rpc_code = -32000;
    std::string_view rule;    // For the audit; empty: `reason`, unless a rule is known already.
    std::string_view reason;  // Stable word, in the body.
    std::string_view message;
    std::string_view challenge;
    int retry_after = 0;
  };
  void Refuse(Exchange& exchange, McpCall& call, const Reply& reply);
  // With the caller's CORS fields; as one event where a stream of ours is open.
  void RespondJson(Exchange& exchange, McpCall& call, int status, const std::string& body,
                   std::span<const Field> more = {});
  void RespondEmpty(Exchange& exchange, McpCall& call, int status);
  void RefuseEndedSignIn(Exchange& exchange, McpCall& call);
  void RefuseStatus(Exchange& exchange, McpCall& call, const absl::Status& status);
  void RefuseUpstream(Exchange& exchange, McpCall& call, UpstreamError error);
  void RefuseSession(Exchange& exchange, McpCall& call);

  // In order; each ends by calling the next, by an answer, or by deferring.
  bool FindRoute(Exchange& exchange, McpCall& call);
  bool CheckNetwork(Exchange& exchange, McpCall& call);
  bool CheckMethod(Exchange& exchange, McpCall& call);
  bool CheckCredentialFields(Exchange& exchange, McpCall& call);
  bool ReadToken(Exchange& exchange, McpCall& call);
  bool ReadAccount(Exchange& exchange, McpCall& call);
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
  // From the route on, as if the request had come just now.
  void StartAnew(Exchange& exchange, McpCall& call);

  // Unlinked users (link_flow.cc).
  bool ResumeIfAsked(Exchange& exchange, McpCall& call);
  // What the user declined to connect, in words; `key` names the input request.
  std::string DeclinedThing(const McpCall& call, std::string_view key) const;
  void Resume(Exchange& exchange, McpCall& call);
  void CutOwnMembers(Exchange& exchange, McpCall& call);
  void NeedsLink(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void AnswerSynthetically(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void SendSignal(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void Hold(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  void HoldGet(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link);
  // False: the exchange has ended.
  bool StartHeldStream(Exchange& exchange, McpCall& call);
  void Await(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link, absl::Time until);
  void WakeUp(Exchange& exchange, McpCall& call);
  void StopWaiting(McpCall& call, const void* exchange);
  token_broker::v1::Call BindingOf(const McpCall& call) const;

  // Sessions the edge opened itself (session_replay.cc).
  bool ReplayIfNeeded(Exchange& exchange, McpCall& call);
  void AwaitReplay(Exchange& exchange, McpCall& call);
  void OnReplayStep(Exchange& exchange, McpCall& call, const SyntheticSessions::Step& step);
  void SendReplay(Exchange& exchange, McpCall& call);
  void OnReplayAnswer(Exchange& exchange, McpCall& call, const ResponseHead& head, std::string_view body);
  void LeaveSession(Exchange& exchange, McpCall& call);

  // The upstream's answers (responses.cc); AfterRefusal: it said 401.
  static ResponseRules RulesFor(const McpCall& call);
  void RelayError(Exchange& exchange, McpCall& call, const ResponseHead& head);
  void RefuseAnswer(Exchange& exchange, McpCall& call, const ResponseHead& head);
  bool CredentialRefused(const McpCall& call, const ResponseHead& head) const;
  static bool AgentSupplied(const Exchange& exchange, const McpCall& call);
  static bool ForwardsSignInToken(const McpCall& call);
  void AfterRefusal(Exchange& exchange, McpCall& call);

  const SiteOptions& site_;
  Routes& routes_;
  Doors& doors_;
  CallAudit& audit_;
  const Clock& clock_;
  SyntheticSessions synthetic_;
  OpenStreams streams_;

  struct Waiter {
    const void* exchange;
    ExchangeRef ref;
  };
  Mutex waiters_mu_;
  absl::flat_hash_map<std::string, std::vector<Waiter>> waiters_ ABSL_GUARDED_BY(waiters_mu_);
  InFlight in_flight_;
};

}  // namespace sallyport::edge
