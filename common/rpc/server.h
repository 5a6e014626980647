// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include "common/caller/caller.h"

namespace sallyport {

struct TlsFiles {
  std::string certificate;
  std::string private_key;
  std::string ca_bundle;
  std::string trust_domain;
  bool empty() const { return certificate.empty(); }
};

// Makes the gRPC service objects of one listener, bound to where its callers' identity comes from. A service is built
// once for the network (MtlsPeer) and once for each in-process caller (FixedPeer): an in-process peer cannot be told
// from plaintext TCP.
using ServiceFactory = std::function<std::vector<std::unique_ptr<grpc::Service>>(std::shared_ptr<const PeerIdentity>)>;

// For a listener that answers health checks only.
std::vector<std::unique_ptr<grpc::Service>> NoServices(const std::shared_ptr<const PeerIdentity>& peer);

// An in-process channel made before its server, for services that need each other: calls wait until RpcServer::Attach.
class InProcessLink {
 public:
  InProcessLink();
  ~InProcessLink();
  InProcessLink(const InProcessLink&) = delete;
  InProcessLink& operator=(const InProcessLink&) = delete;
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  friend class RpcServer;
  int server_end_ = -1;
  std::shared_ptr<grpc::Channel> channel_;
};

// One service's listeners: at most one on the network and any number in-process.
class RpcServer {
 public:
  struct Options {
    std::string listen;  // Empty: in-process callers only.
    TlsFiles tls;        // Empty: plaintext, for loopback only; callers are then named by `insecure_peer`.
    std::string insecure_peer;
    // Not empty: for callers that are no services of the suite, all of whom have this name, over TLS 1.2 or later only.
    // A client certificate is asked for if there is a tls.ca_bundle and must verify then, but need not be shown; who
    // calls, a service learns from PeerNamesOf and metadata. A connection is ended at `outside_age` (up to 10 % earlier
    // or later; what is under way has 30 s more), so that a new one shows who calls. tls.trust_domain does not matter.
    std::string outside_peer;
    absl::Duration outside_age = absl::Minutes(5);
    // Beyond it calls fail at once, none is queued. Handlers block, most of the time on a synced write.
    int max_threads = 256;
    int max_request_bytes = 4 << 20;
    // How long a new connection has for TLS and HTTP/2's first frames. At most INT_MAX ms.
    absl::Duration handshake_timeout = absl::Seconds(10);
    // Full names of services that reflection tells of, on the network only; empty: there is no reflection.
    std::vector<std::string> reflected;
  };

  // Binding fails with UNAVAILABLE. Metadata limit 32 KiB, port sharing off. The health service
  // (grpc.health.v1) is there even if `factory` makes none, and says NOT_SERVING until SetServing.
  // New connections are closed while the process has three quarters of the files open that it may have (acceptor.h);
  // where `factory` makes no service, that begins later, so that health checks get through where other listeners are
  // at their limits.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const Options& options, ServiceFactory factory);
  ~RpcServer();

  // A channel on which `caller` (a service's name) is who calls. One server per caller, made on first use.
  std::shared_ptr<grpc::Channel> InProcessChannel(const std::string& caller);
  // Connects a link; `caller` is who calls on it.
  void Attach(const std::string& caller, InProcessLink& link);
  int port() const;  // 0 if not on the network.
  void SetServing(bool serving);
  // Health NOT_SERVING, then drains until `grace` is over, then cancels.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer() = default;
  struct State;
  std::unique_ptr<State> state_;
};

// Channel to a peer service: mTLS with reloading certificates, and the peer must be spiffe://<trust domain>/<service>.
// With empty `tls`: plaintext (loopback only).
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& target, const TlsFiles& tls,
                                                           const std::string& service);

// Every outgoing call has a deadline. `passport` (may be empty) is attached as metadata.
std::unique_ptr<grpc::ClientContext> MakeClientContext(absl::Duration timeout, const std::string& passport = "");

}  // namespace sallyport
