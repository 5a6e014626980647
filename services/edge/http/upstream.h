// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/edge/http/buffers.h"
#include "services/edge/http/chunked_decoder.h"
#include "services/edge/http/gateway.h"
#include "services/edge/http/response_parser.h"
#include "services/edge/http/stream.h"
#include "services/edge/http/timer_wheel.h"

namespace sallyport::edge {

class WorkerImpl;

// Who gets the response. Each call may lead to Abandon or to a new request elsewhere, so an Upstream does nothing after
// one but look whether it still has a client.
class UpstreamClient {
 public:
  // The head is complete. True: the client needs `head` until the last OnResponseBody, and waits for an end even of an
  // event stream; else it is valid during the call.
  virtual bool OnResponseHead(const ResponseHead& head) = 0;
  // A piece of the body; the bytes may be changed in place. With `last` the response is complete and the upstream gone
  // (in the pool, or closed).
  virtual void OnResponseBody(char* data, size_t size, bool last) = 0;
  // Nothing of a response came. The upstream is gone.
  virtual void OnResponseFailed(UpstreamError error) = 0;
  // The body broke off. The upstream is gone.
  virtual void OnResponseTruncated() = 0;
  // A pooled connection was closed before a single byte was written. The upstream is gone.
  virtual void OnStaleConnection() = 0;
  // May more of the body come now? If not, Resume will be called.
  virtual bool TakesMore() const = 0;

 protected:
  ~UpstreamClient() = default;
};

struct UpstreamRequest {
  const UpstreamTarget* target = nullptr;
  std::string_view head;
  std::string_view body;
  bool head_method = false;  // No body will come.
};

// How long a connection is kept idle: the limit, or half of what the server announces as `timeout` (seconds, in whole
// seconds; 0 if it announces nothing). Half: a server that is busy looks at its clock first and at its sockets
// afterwards, and closes a connection in which the next request has long been lying. A POST cannot be sent again then.
constexpr Millis TimeKeptIdle(Millis limit, uint32_t announced) {
  return announced == 0 ? limit : std::min<Millis>(limit, Millis{announced / 2} * 1'000);
}

// One connection to an upstream, and the request on it. upstream_connect.cc makes it, upstream_tunnel.cc leads it
// through a proxy, upstream.cc sends, waits and closes, upstream_response.cc reads the answer.
class Upstream final : public StreamOwner, public Timer {
 public:
  explicit Upstream(WorkerImpl& worker);
  ~Upstream() override;

  // Resolves, connects, and sends.
  void Dial(UpstreamClient& client, const UpstreamRequest& request);
  // Sends on an idle connection.
  void Reuse(UpstreamClient& client, const UpstreamRequest& request);
  // The client takes more of the body.
  void Resume();
  // The client is not interested any more: the connection closes, since its state is unknown to whoever would come
  // next.
  void Abandon();

  // For the pool.
  const std::string& key() const { return key_; }
  bool StillGood();
  void GoIdle(Millis until);
  void CloseNow();

  void OnReadable() override;
  void OnWritable() override;
  void OnClosed() override;

 private:
  enum class Phase : uint8_t { kClosed, kResolving, kConnecting, kTunnel, kHandshake, kHead, kBody, kIdle };

  // What the proxy gets.
  struct Tunnel {
    ~Tunnel();
    std::string request;
    size_t sent = 0;
  };

  // upstream_connect.cc
  void Resolve(const std::string& host, uint16_t port);
  // Not at once: our caller is still in the middle of forwarding.
  void FailSoon(UpstreamError error);
  void Resolved(std::vector<NetworkAddress> addresses);
  // False when there is no address left to try.
  bool TryNextAddress();
  bool Connect(const NetworkAddress& address);
  void Connected();
  // The connection leads to the upstream.
  void Opened();
  void StartTls();
  void ContinueHandshake();

  // upstream_tunnel.cc
  void StartTunnel();
  void SendTunnel();
  void ReadTunnel();

  // upstream.cc
  void OnTimer() override;
  void StartRequest();
  void Send();
  void Sent();
  void Fail(UpstreamError error);
  UpstreamClient* Detach();
  void ReleaseBuffer();

  // upstream_response.cc
  void ReadHead();
  void ReadBody();
  // Gives what the buffer holds to the client; false if that ended this response or the client is gone.
  bool DeliverBody();
  size_t TakeBody(char*& data, bool& last);
  size_t DecodeChunks(char*& data, bool& last);
  void FinishResponse(char* data, size_t size);
  void WaitForBody();
  void Truncated();

  WorkerImpl& worker_;
  Stream stream_;
  Phase phase_ = Phase::kClosed;
  UpstreamClient* client_ = nullptr;
  UpstreamRequest request_;
  std::string key_;
  bool tls_ = false;
  bool via_proxy_ = false;
  std::unique_ptr<Tunnel> tunnel_;  // While it is being opened.
  bool reused_ = false;
  bool broken_chunks_ = false;
  bool closing_ = false;  // Closed; OnClosed is to come.
  size_t sent_ = 0;       // Of head and body together.
  bool all_sent_ = false;
  bool endless_ = false;     // The body may be silent for any time.
  uint64_t generation_ = 0;  // So that a late resolution finds out that nobody waits for it.
  std::vector<NetworkAddress> addresses_;
  size_t next_address_ = 0;
  UpstreamError last_error_ = UpstreamError::kResolve;
  std::unique_ptr<ResponseBuffer> in_;
  size_t keep_ = 0;  // Bytes at the front of the buffer that stay: the head, while the client needs it.
  ResponseParser parser_;
  ChunkedDecoder chunks_;
  BodyFraming framing_ = BodyFraming::kNone;
  bool keep_alive_ = false;
  uint32_t keep_alive_timeout_ = 0;
  Millis idle_until_ = 0;
  uint64_t remaining_ = 0;
};

}  // namespace sallyport::edge
