// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/time/time.h"

#include "sallyport/audit/v1/audit.pb.h"
#include "services/edge/http/gateway.h"
#include "services/edge/mcp/credentials.h"
#include "services/edge/mcp/jsonrpc_scan.h"
#include "services/edge/mcp/principal_cache.h"
#include "services/edge/mcp/server_entry.h"

namespace sallyport::edge {

// One request to /mcp/<server>, from head to end. Reused by the connection's next request; what Clear leaves is a
// memory of the connection, so that a client that repeats its token costs no hash and no lookup.
struct McpCall {
  ~McpCall();

  std::shared_ptr<const ServerEntry> entry;
  std::string_view token;   // Of Authorization: Bearer; any bytes where nobody is verified.
  std::string_view origin;  // Allowed Origin, for CORS.
  // Label of the caller's account that X-Sallyport-Account chose; empty: the server's choice.
  std::string_view account;
  // The same with the server's choice; empty: the unlabelled one.
  std::string_view chosen_account() const { return account.empty() ? std::string_view(entry->account) : account; }
  PrincipalPtr principal;
  std::shared_ptr<const CredentialSet> credentials;
  // Where it goes; null while a secret of that is not resolved. There is no other place for it then.
  const UpstreamTarget* target() const {
    if (entry->secret_target == nullptr) return &entry->target;
    return credentials == nullptr ? nullptr : credentials->target.get();
  }
  RpcMessage message;
  bool scanned = false;
  std::string upstream_session;  // What goes upstream; empty: none.
  std::string client_session;    // As the client sent it.
  uint8_t capabilities = 0;
  bool has_session = false;
  bool audit_begun = false;
  bool in_flight = false;  // Counted among the requests of its server.

  // Linking.
  bool synthetic = false;  // The client's session is one of ours...
  enum class Replay : uint8_t {
    kNone,
    kWaiting,      // Another call replays the client's initialize.
    kInitialize,   // We do: first initialize,
    kInitialized,  // then notifications/initialized.
    kDone,
  } replay = Replay::kNone;
  bool replaying() const { return replay == Replay::kInitialize || replay == Replay::kInitialized; }
  std::string entered_session;  // The synthetic session this call has to leave; empty: none.
  std::string replay_body;
  std::string replay_session;  // The upstream's id, once its initialize was answered.
  bool resumed = false;        // A valid requestState of ours came along.
  bool held = false;           // A stream is open while we wait for the account.
  absl::Time held_until;
  std::string waiting_for;  // Connection key.

  int skew_retries = 0;
  bool refreshed = false;    // A forced refresh was made for this call.
  bool asked_again = false;  // And what it gave was refused too, which the broker was told.
  std::string_view rule;
  std::string rule_text;                                      // What `rule` points to, where a service said it.
  audit::v1::Decision decision = audit::v1::DECISION_FAILED;  // Until the caller is admitted.
  absl::Time started;

  // Memory of the connection.
  std::string memo_token;
  uint64_t memo_serial = 0;
  PrincipalPtr memo_principal;
  std::string memo_session;
  std::string memo_session_account;
  std::string memo_upstream_session;
  uint8_t memo_capabilities = 0;
  PrincipalPtr memo_session_principal;  // Kept alive: an address alone could come to be somebody else's.

  // Its place among the streams that are open (open_streams.h).
  struct Stream {
    Exchange* exchange = nullptr;  // Null: not open.
    absl::Time since;
    McpCall* previous = nullptr;
    McpCall* next = nullptr;
  } stream;
  uint64_t revocations_seen = 0;  // When the caller came to door one.

  void Clear();
  void ClearSession();
};

// Finds the call of an exchange again after an asynchronous step.
McpCall& CallOf(Exchange& exchange);

}  // namespace sallyport::edge
