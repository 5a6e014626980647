// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "services/edge/http/network_address.h"
#include "services/edge/http/request_head.h"
#include "services/edge/http/upstream_target.h"

// The seam between the HTTP engine (this directory: bytes, connections, time limits) and the gateway logic (who may do
// what). The engine calls Gateway; the gateway acts through Exchange.
//
// Threads. Every exchange belongs to one worker thread for its whole life, and every call in either direction is made
// on that thread, but Worker::Post and ExchangeRef::Post. Nothing here locks on the hot path.
//
// Life of an exchange:
//   OnHead → (body is read) → OnRequest → one action:  Respond
//                                                      Forward → OnUpstreamHead → relayed, or collected and then acted
//                                                      on again
//                                                              → OnUpstreamError → acted on again
//                                                      StartStream, WriteEvent…, EndStream or Forward into the stream
//                                                      Defer; later, through its ExchangeRef, one of the above
//          → OnDone
namespace sallyport::edge {

class Exchange;

struct Field {
  std::string_view name;
  std::string_view value;
};

// One thread of the engine.
class Worker {
 public:
  virtual ~Worker() = default;
  virtual size_t index() const = 0;
  // Runs `task` on this worker's thread, soon. From any thread; dropped once the engine has stopped.
  virtual void Post(std::function<void()> task) = 0;
  // Runs `task` once, not earlier than after `delay` (resolution 100 ms). On the worker's thread only.
  virtual void After(std::chrono::milliseconds delay, std::function<void()> task) = 0;
  // The gateway's own data of this thread (caches); the engine never touches it.
  void* context = nullptr;
};

// What the gateway keeps for one exchange. Made once a connection and reused by its requests, so that a warm request
// allocates nothing; Gateway::OnDone must clear it.
class ExchangeState {
 public:
  virtual ~ExchangeState() = default;
};

// A way back to an exchange from another thread, after Defer. Copyable. Must not be the reason why anything stays
// alive.
class ExchangeRef {
 public:
  class Target;
  ExchangeRef() = default;
  ExchangeRef(std::shared_ptr<Target> target, uint64_t generation)
      : target_(std::move(target)), generation_(generation) {}
  // Runs `task` on the exchange's thread if the exchange still lives then; else `task` is destroyed unrun. From any
  // thread.
  void Post(std::function<void(Exchange&)> task) const;

 private:
  std::shared_ptr<Target> target_;
  uint64_t generation_ = 0;
};

enum class Outcome : uint8_t {
  kComplete,         // The whole answer was given to the kernel.
  kClientGone,       // The client closed, or stopped reading, before that.
  kUpstreamFailure,  // The upstream broke after its head was relayed; the client saw a truncated answer.
  kAborted,          // Abort() or shutdown.
};

struct ExchangeStats {
  std::chrono::steady_clock::time_point started;         // The head was complete.
  std::chrono::steady_clock::time_point upstream_sent;   // Forward was called (the last one).
  std::chrono::steady_clock::time_point upstream_first;  // The upstream's head was complete; epoch if never.
  std::chrono::steady_clock::time_point done;
  uint64_t request_body_bytes = 0;
  uint64_t response_body_bytes = 0;  // As given to the client, framing not counted.
  int status = 0;                    // As given to the client; 0 if nothing was.
  int upstream_status = 0;           // 0 if there was none.
  int forwards = 0;
  bool upstream_reused = false;  // The last one used a pooled connection.
  Outcome outcome = Outcome::kComplete;
};

enum class UpstreamError : uint8_t {
  kResolve,           // No address.
  kRefusedAddress,    // Gateway::AllowAddress refused every address.
  kConnect,           // Refused, unreachable.
  kConnectTimeout,    // Connection or TLS handshake not finished in time.
  kTls,               // Handshake or certificate, ours or theirs.
  kClosed,            // Closed or reset before a whole response head came.
  kFirstByteTimeout,  // No whole response head in time.
  kBadResponse,       // Not HTTP/1.x as we accept it, or an early success.
  kTooLarge,          // A collected body was larger than its limit.
  // Of the egress proxy, before anything reached the upstream:
  kProxyUnreachable,   // No address, refused, unreachable.
  kProxyTimeout,       // No tunnel in the time for connecting.
  kProxyUnauthorized,  // 407: our credentials are missing or wrong.
  kProxyRefused,       // Another status than success.
  kProxyBadResponse,   // Not HTTP/1.x as we accept it, bytes behind its head, or closed before that was complete.
};
constexpr bool IsProxyError(UpstreamError error) { return error >= UpstreamError::kProxyUnreachable; }
std::string_view UpstreamErrorName(UpstreamError error);
// 502, or 504 for the timeouts.
int UpstreamErrorStatus(UpstreamError error);

class Exchange {
 public:
  virtual ~Exchange() = default;

  // --- the request ---
  virtual const RequestHead& head() const = 0;
  // Whole, de-chunked; empty until OnRequest.
  virtual std::string_view body() const = 0;
  // Takes bytes out of the body, before it is forwarded.
  virtual void CutBody(size_t offset, size_t length) = 0;
  virtual const NetworkAddress& client() const = 0;
  virtual bool tls() const = 0;
  virtual Worker& worker() = 0;
  virtual ExchangeState* state() = 0;
  virtual const ExchangeStats& stats() const = 0;

  // --- answers ---
  // Any of these may end the exchange and call OnDone before it returns: nothing of the exchange may be used
  // afterwards. One complete answer; copies what it is given. Content-Length, Date and Connection are the engine's.
  // Fields whose name or value RFC 9110 forbids turn the answer into 500. For HEAD the body is counted but not sent.
  // Not after StartStream.
  virtual void Respond(int status, std::span<const Field> fields, std::string_view body) = 0;
  void Respond(int status, std::initializer_list<Field> fields, std::string_view body) {
    Respond(status, std::span<const Field>(fields.begin(), fields.size()), body);
  }

  // Complete field lines (a literal) for every answer of this exchange, the relayed and the engine's own among them.
  virtual void SetCommonFields(std::string_view lines) = 0;

  // Where the gateway renders the upstream request head; reused memory, empty when the exchange begins.
  virtual std::string& upstream_head() = 0;
  // Sends upstream_head() (which must be complete: request line, fields, blank line) and `body`, which is body() or a
  // view that stays valid until OnDone. `target` must stay valid until OnDone. May be called again from
  // OnUpstreamError, OnUpstreamBody, or deferred from there; not while one is under way.
  virtual void Forward(const UpstreamTarget& target, std::string_view body) = 0;
  void Forward(const UpstreamTarget& target) { Forward(target, body()); }

  // Opens a 200 text/event-stream answer that the gateway writes itself. `fields` as in Respond. A comment line goes
  // out after each 25 s of silence. A Forward may follow: the upstream's event stream continues this one, a JSON answer
  // becomes one event. Writes Content-Type and X-Accel-Buffering itself. False: the stream is not open, and the
  // exchange over: the client is gone, or was answered 503 because memory is short.
  virtual bool StartStream(std::span<const Field> fields) = 0;
  bool StartStream(std::initializer_list<Field> fields) {
    return StartStream(std::span<const Field>(fields.begin(), fields.size()));
  }
  // `event` is whole, with its blank line at the end ("data: …\n\n").
  virtual void WriteEvent(std::string_view event) = 0;
  virtual void EndStream() = 0;
  virtual bool streaming() const = 0;

  // Declares that the answer comes later, from anywhere. The client's departure ends the exchange meanwhile.
  virtual ExchangeRef Defer() = 0;
  // A reference without deferring, for cutting a stream later (a revoked user).
  virtual ExchangeRef Ref() = 0;
  // Runs `task` once, not earlier than after `delay` (resolution 100 ms), unless the exchange ends or this is called
  // again before.
  virtual void Wake(std::chrono::milliseconds delay, std::function<void(Exchange&)> task) = 0;
  // Ends the exchange and the connection at once; the client sees a truncated or no answer. OnDone follows.
  virtual void Abort() = 0;
  // The connection closes after this answer.
  virtual void CloseAfter() = 0;
};

// How an upstream is reached where there is an egress proxy.
enum class UpstreamRoute : uint8_t { kDirect, kProxy, kRefused };

enum class Verdict : uint8_t {
  kRelay,         // Head and body go to the client.
  kRelayHead,     // The head goes to the client, a body does not.
  kRelayIfEmpty,  // As kRelay if there turns out to be no body. Else OnUpstreamBody decides, on no more than what came
                  // first of it, and nothing goes to the client.
  kCollect,       // The body is read whole (at most 1 MiB; of an event stream the first event with data), then
                  // OnUpstreamBody decides; nothing goes to the client.
  kDiscard,       // The connection is given up at once, and OnUpstreamBody decides without a body.
};

// How a relayed response begins.
struct RelayHead {
  int status = 0;       // The upstream's, may be changed.
  std::string& fields;  // Empty; the gateway appends complete lines "Name: value\r\n" (see AppendResponseFields in
                        // response_rules.h). Date is added where the upstream sent none.
};

class Gateway {
 public:
  virtual ~Gateway() = default;

  // Once per worker, on its thread, before its first and after its last request.
  virtual void OnWorkerStart(Worker& /*worker*/) {}
  virtual void OnWorkerStop(Worker& /*worker*/) {}
  // May return nullptr.
  virtual std::unique_ptr<ExchangeState> NewState(Worker& /*worker*/) { return nullptr; }

  // The head is there, the body not yet. Returns the most bytes of body to take (413 beyond). May Respond instead (then
  // the unread body is not read), but not defer or forward.
  virtual uint64_t OnHead(Exchange& exchange) = 0;
  // The whole request is there. Must act on the exchange or Defer before it returns.
  virtual void OnRequest(Exchange& exchange) = 0;
  // `relay` is for the verdicts that relay. Framing fields and Connection are the engine's.
  virtual Verdict OnUpstreamHead(Exchange& exchange, const ResponseHead& head, RelayHead& relay) = 0;
  // After kCollect, kDiscard or kRelayIfEmpty. Must act or Defer. `head` and `body` are valid during the call.
  virtual void OnUpstreamBody(Exchange& exchange, const ResponseHead& head, std::string_view body);
  // Nothing of a response reached the client. Must act (a new Forward included) or Defer. Default: 502 or 504.
  virtual void OnUpstreamError(Exchange& exchange, UpstreamError error);
  // The last call for this exchange; exactly once for each OnHead.
  virtual void OnDone(Exchange& exchange) = 0;

  // Is this address allowed for this target? Asked for every address before it is dialled (SSRF guard at connect time).
  virtual bool AllowAddress(const UpstreamTarget& target, const NetworkAddress& address) = 0;
  // The same of the engine's proxy.
  virtual bool AllowProxyAddress(const NetworkAddress& /*address*/) { return true; }
  // Asked for each new connection, where the engine has a proxy. A name that goes there is not resolved here, and so
  // AllowAddress is not asked.
  virtual UpstreamRoute RouteTo(const UpstreamTarget& /*target*/) { return UpstreamRoute::kProxy; }
  // The engine refused a request on its own (bad syntax, limits, slow client); no OnHead was or will be made unless it
  // was made already. `reason` is a stable word, for a metric.
  virtual void OnRejected(Worker& /*worker*/, const NetworkAddress& /*client*/, int /*status*/,
                          std::string_view /*reason*/) {}
};

}  // namespace sallyport::edge
