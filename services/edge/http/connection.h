// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

#include "common/mutex.h"
#include "services/edge/http/buffers.h"
#include "services/edge/http/chunked_decoder.h"
#include "services/edge/http/event_boundary.h"
#include "services/edge/http/gateway.h"
#include "services/edge/http/request_parser.h"
#include "services/edge/http/stream.h"
#include "services/edge/http/timer_wheel.h"
#include "services/edge/http/upstream.h"

namespace sallyport::edge {

// A client's connection and the exchange on it (one at a time; pipelined requests wait in the read buffer). Made once
// and recycled for other clients.
//
// connection.cc reads requests, request_body.cc their bodies, exchange.cc answers them, relay.cc passes the upstream's
// answers on.
class Connection final : public Exchange, public StreamOwner, public UpstreamClient, public Timer {
 public:
  explicit Connection(WorkerImpl& worker);
  ~Connection() override;

  // Takes an accepted non-blocking socket.
  void Start(int fd, const NetworkAddress& peer);
  // Has the gateway's attention been on this exchange long enough that the client's departure should be noticed?
  void StartWatching();
  void CloseIdle();
  // Shutdown: closes at once.
  void Cut();
  // Open, without an exchange or a part of a request.
  bool idle() const { return phase_ == Phase::kHead && (in_ == nullptr || in_->size() == 0); }
  Millis opened() const { return opened_; }
  uint64_t generation() const { return generation_; }

  // Exchange
  const RequestHead& head() const override { return in_->head; }
  std::string_view body() const override { return body_; }
  void CutBody(size_t offset, size_t length) override;
  const NetworkAddress& client() const override { return peer_; }
  bool tls() const override { return stream_.ssl() != nullptr; }
  Worker& worker() override;
  ExchangeState* state() override { return state_.get(); }
  const ExchangeStats& stats() const override { return stats_; }
  void Respond(int status, std::span<const Field> fields, std::string_view body) override;
  void SetCommonFields(std::string_view lines) override { common_fields_ = lines; }
  std::string& upstream_head() override { return upstream_head_; }
  void Forward(const UpstreamTarget& target, std::string_view body) override;
  bool StartStream(std::span<const Field> fields) override;
  void WriteEvent(std::string_view event) override;
  void EndStream() override;
  bool streaming() const override { return streaming_; }
  ExchangeRef Defer() override { return Ref(); }
  ExchangeRef Ref() override;
  void Wake(std::chrono::milliseconds delay, std::function<void(Exchange&)> task) override;
  void Abort() override { End(Outcome::kAborted); }
  void CloseAfter() override { close_after_ = true; }

  // StreamOwner
  void OnReadable() override;
  void OnWritable() override;
  void OnClosed() override;

  // UpstreamClient
  bool OnResponseHead(const ResponseHead& head) override;
  void OnResponseBody(char* data, size_t size, bool last) override;
  void OnResponseFailed(UpstreamError error) override;
  void OnResponseTruncated() override;
  void OnStaleConnection() override;
  bool TakesMore() const override { return out_.empty(); }

  // Of the worker's list of waiting exchanges.
  Connection* watch_previous = nullptr;
  Connection* watch_next = nullptr;
  Millis watch_since = 0;
  bool watched = false;

 private:
  enum class Phase : uint8_t {
    kClosed,
    kHandshake,
    kHead,  // Idle, or part of a head is there.
    kBody,
    kBusy,    // The gateway has the exchange.
    kFlush,   // The answer is complete, but not all of it has left.
    kLinger,  // The answer has left; input is read and thrown away so that the client gets to read it.
  };
  // What happens to the upstream's body.
  enum class Mode : uint8_t {
    kRelay,
    kCollect,
    kEvent,    // It becomes one event.
    kDropped,  // It is not passed on.
    kEmpty,    // There must be none.
  };

  // The gateway's timer; the connection's own watches time limits.
  class Alarm final : public Timer {
   public:
    explicit Alarm(Connection& connection) : connection_(connection) {}
    std::function<void(Exchange&)> task;

   private:
    void OnTimer() override;
    Connection& connection_;
  };

  // Looks whether the client is still there while its input fills our buffer, and is not read on.
  class Lookout final : public Timer {
   public:
    explicit Lookout(Connection& connection) : connection_(connection) {}

   private:
    void OnTimer() override { connection_.WatchClient(); }
    Connection& connection_;
  };

  // connection.cc
  void OnTimer() override;
  void ContinueHandshake();
  void ReadInput();
  // Parses and starts what is in the buffer, request after request.
  void ProcessInput();
  void ParseHead();
  void StartExchange();
  void StartRequest();
  void WatchClient();
  void Discard();
  void NextRequest();
  void CloseGracefully();
  void CloseStream();
  void ReleaseInput();
  // Refuses on the engine's own account and closes.
  void Reject(int status, std::string_view reason);

  // request_body.cc
  void ReadBody();
  // True when the body is whole. May refuse instead (then the phase is another).
  bool TakeBody();
  bool TakeLengthBody();
  bool TakeChunkedBody();
  bool GrowBody(uint64_t limit);
  // Bytes taken off the wire, or as Stream::Read.
  ssize_t ReadBodyBytes();
  void WaitForBody();
  void CheckBodyRate();

  // exchange.cc
  struct Framing {
    BodyFraming kind = BodyFraming::kNone;
    uint64_t length = 0;
    bool announce = true;  // kNone: "Content-Length: <length>"; not for statuses that have no body by definition.
  };
  // A complete head but for the gateway's fields, which are between the two.
  void AppendStatusLine(int status, std::string& out) const;
  void AppendFraming(const Framing& framing, std::string& out);
  void Answer(int status, std::string_view fields, std::string_view body);
  // Gives the pieces to the kernel, and keeps what it does not take. False: the connection is broken (and ended).
  bool Send(std::initializer_list<std::string_view> pieces);
  // One chunk, if the answer is chunked. `last` ends the body.
  bool SendBody(std::string_view before, std::string_view data, std::string_view after, bool last);
  void Flushed();
  // All of the answer was given to Send.
  void Complete();
  void Finish();
  // Answers instead of opening a stream, where memory is short.
  bool RefuseStream();
  void Done(Outcome outcome);
  // Ends exchange and connection at once.
  void End(Outcome outcome);
  void ArmTimer();
  void OnSendTimer();
  void Heartbeat();

  // relay.cc
  Framing RelayFraming(const ResponseHead& head, int status) const;
  void StartRelay(const ResponseHead& head, int status, const Framing& framing);
  // The relayed head has not left: another answer may be given.
  void TakeBackHead();
  void SendUpstream(bool fresh);
  void EventPiece(char* data, size_t size, bool last);
  void CollectPiece(std::string_view piece, bool last);
  void HeadOnlyPiece(std::string_view piece, bool last);
  // The gateway decides on what there is; the rest of the answer is not read.
  void Decide(const ResponseHead& head, std::string_view body);
  void DropUpstream();

  WorkerImpl& worker_;
  Stream stream_;
  Phase phase_ = Phase::kClosed;
  NetworkAddress peer_;
  Millis opened_ = 0;
  Millis most_age_ = 0;
  uint32_t requests_ = 0;
  uint64_t generation_ = 0;  // Grows when an exchange ends.

  std::unique_ptr<RequestBuffer> in_;
  RequestParser parser_;
  ChunkedDecoder chunks_;
  uint64_t body_limit_ = 0;
  BodyBuffer large_body_;
  bool body_is_large_ = false;
  std::string_view body_;
  uint64_t window_bytes_ = 0;  // Of the body, in the current rate window.
  Millis head_deadline_ = kNever;

  bool processing_ = false;
  bool again_ = false;
  bool in_exchange_ = false;  // OnHead was called, OnDone was not.
  bool close_after_ = false;
  bool unread_input_ = false;  // The request's body was not read.
  bool continue_sent_ = false;
  bool answered_ = false;  // The answer's head was written.
  bool broken_ = false;    // kFlush: the answer is incomplete, and the client must see that.
  bool http10_ = false;    // Of the request.
  bool head_method_ = false;

  std::string out_;  // What the kernel did not take; empty nearly always.
  size_t out_sent_ = 0;
  Millis last_sent_ = 0;

  std::unique_ptr<ExchangeState> state_;
  bool state_made_ = false;
  std::shared_ptr<ExchangeRef::Target> ref_target_;
  ExchangeStats stats_;
  Alarm alarm_{*this};
  Lookout lookout_{*this};

  Upstream* upstream_ = nullptr;
  UpstreamRequest request_;
  std::string upstream_head_;
  std::string_view common_fields_;
  std::string head_out_;  // The answer's head, until the first piece of its body comes.
  Mode mode_ = Mode::kRelay;
  bool chunked_out_ = false;
  bool streaming_ = false;  // StartStream was called.
  bool heartbeats_ = false;
  bool event_begun_ = false;
  EventBoundary boundary_;
  const ResponseHead* collected_head_ = nullptr;
  std::string collected_;
};

// Between ExchangeRef and a connection that may be gone.
class ExchangeRef::Target {
 public:
  Target(WorkerImpl& worker, Connection& connection) : worker_(&worker), connection_(connection) {}
  void Post(uint64_t generation, std::function<void(Exchange&)> task, std::shared_ptr<Target> self);
  // The worker is about to be destroyed.
  void Disconnect();

 private:
  Mutex mu_;
  WorkerImpl* worker_ ABSL_GUARDED_BY(mu_);
  Connection& connection_;
};

}  // namespace sallyport::edge
