// SPDX-License-Identifier: Apache-2.0
// A plain hop through the engine, without any gateway logic: what the engine itself costs.
//   sallyport-plain-hop <listen address:port> <upstream url> [threads]
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>

#include "services/edge/http/engine.h"
#include "services/edge/http/header_rules.h"
#include "services/edge/http/response_rules.h"

namespace sallyport::edge {
namespace {

class PlainHop final : public Gateway {
 public:
  PlainHop(UpstreamTarget target, RequestRules rules) : target_(std::move(target)), rules_(std::move(rules)) {}

  uint64_t OnHead(Exchange& /*exchange*/) override { return 4 << 20; }
  void OnRequest(Exchange& exchange) override {
    const RequestHead& head = exchange.head();
    std::string& out = exchange.upstream_head();
    AppendRequestLine(head.method, target_, head.query, "", "", out);
    rules_.AppendFields(head, HeaderId::kOther, out);
    if (!AppendField("X-API-Key", "", "k-123", out)) {
      exchange.Respond(500, {}, {});
      return;
    }
    FinishRequestHead(head.method, exchange.body().size(), out);
    exchange.Forward(target_);
  }
  Verdict OnUpstreamHead(Exchange& /*exchange*/, const ResponseHead& head, RelayHead& relay) override {
    AppendResponseFields(head, ResponseRules(), relay.fields);
    return Verdict::kRelay;
  }
  void OnDone(Exchange& /*exchange*/) override {}
  bool AllowAddress(const UpstreamTarget& /*target*/, const NetworkAddress& /*address*/) override { return true; }

 private:
  const UpstreamTarget target_;
  const RequestRules rules_;
};

int Run(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: " << argv[0] << " <address:port> <upstream url> [threads]\n";
    return 2;
  }
  auto target = ParseUpstreamUrl(argv[2]);
  auto rules = RequestRules::Compile({}, {"X-API-Key"});
  if (!target.ok() || !rules.ok()) {
    std::cerr << std::string(target.status().message()) << "\n";
    return 2;
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  PlainHop gateway(*std::move(target), *std::move(rules));
  EngineOptions options;
  options.listen = argv[1];
  options.threads = argc > 3 ? static_cast<size_t>(std::atoi(argv[3])) : 1;
  auto engine = Engine::Start(options, gateway);
  if (!engine.ok()) {
    std::cerr << std::string(engine.status().message()) << "\n";
    return 1;
  }
  int signal = 0;
  sigwait(&signals, &signal);
  (*engine)->Shutdown(std::chrono::seconds(1));
  return 0;
}

}  // namespace
}  // namespace sallyport::edge

int main(int argc, char** argv) { return sallyport::edge::Run(argc, argv); }
