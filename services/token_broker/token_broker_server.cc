// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_broker_server.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "common/config/service_config.h"
#include "common/status_macros.h"
#include "services/token_broker/broker_settings.h"
#include "services/token_broker/redis_settings.h"
#include "services/token_broker/token_broker_parts.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kRefreshGrace = absl::Seconds(20);

}  // namespace

absl::StatusOr<std::unique_ptr<TokenBrokerServer>> TokenBrokerServer::Start(const config::v1::TokenBrokerConfig& config,
                                                                            const Clock& clock,
                                                                            const BrokerPeers& peers) {
  RETURN_IF_ERROR(ValidateTokenBrokerConfig(config));
  std::unique_ptr<TokenBrokerServer> broker(new TokenBrokerServer);
  broker->parts_ = std::make_unique<Parts>();
  Parts& parts = *broker->parts_;
  RETURN_IF_ERROR(parts.Build(config, clock, peers));
  if (config.has_redis()) {
    ASSIGN_OR_RETURN(RedisOptions options, RedisOptionsFrom(config.redis()));
    ASSIGN_OR_RETURN(parts.doorbell, RedisSubscriber::Start(
                                         std::move(options), TokenCache::kDoorbell,
                                         [&parts](const std::string& ring) { parts.refresher->Ring(ring); }, [] {}));
  }
  RETURN_IF_ERROR(parts.Listen(config, clock));
  RETURN_IF_ERROR(parts.ListenForPlatforms(config, clock, peers));
  parts.control->Start();
  parts.background->Start();
  return broker;
}

TokenBrokerServer::~TokenBrokerServer() {
  if (parts_ != nullptr) {
    Shutdown(absl::Seconds(1));
  }
}

void TokenBrokerServer::Attach(const std::string& caller, InProcessLink& link) { parts_->server->Attach(caller, link); }

std::shared_ptr<grpc::Channel> TokenBrokerServer::InProcessChannel(const std::string& caller) {
  return parts_->server->InProcessChannel(caller);
}

int TokenBrokerServer::port() const { return parts_->server->port(); }

int TokenBrokerServer::platform_port() const { return parts_->platforms == nullptr ? 0 : parts_->platforms->port(); }

absl::Status TokenBrokerServer::Ready() const {
  return parts_->control->has_snapshot() ? absl::OkStatus()
                                         : absl::UnavailableError("no configuration from the registry yet");
}

void TokenBrokerServer::SetServing(bool serving) {
  parts_->server->SetServing(serving);
  if (parts_->platforms != nullptr) {
    parts_->platforms->SetServing(serving);
  }
}

void TokenBrokerServer::StopTaking() {
  if (parts_->background != nullptr) {
    parts_->background->StopTaking();
  }
  if (parts_->refresher != nullptr) {
    parts_->refresher->StopTaking();
  }
}

void TokenBrokerServer::Shutdown(absl::Duration grace) {
  if (parts_->stopped.exchange(true)) {
    return;
  }
  const auto began = std::chrono::steady_clock::now();
  StopTaking();
  // Callers first: they may still be waiting for refreshes, which go on until they have stored what they were given.
  std::thread platforms([this, grace] {
    if (parts_->platforms != nullptr) {
      parts_->platforms->Shutdown(grace);
    }
  });
  if (parts_->server != nullptr) {
    parts_->server->Shutdown(grace);
  }
  platforms.join();
  if (parts_->refresher != nullptr) {
    // Beyond `grace`, but bound all the same: a token that a provider has just handed out exists nowhere else.
    const absl::Duration elapsed = absl::FromChrono(std::chrono::steady_clock::now() - began);
    parts_->refresher->Shutdown(std::clamp(2 * grace - elapsed, absl::Seconds(1), kRefreshGrace));
  }
  parts_->doorbell.reset();
  if (parts_->control != nullptr) {
    parts_->control->Stop();
  }
  if (parts_->ending_apps != nullptr) {
    parts_->ending_apps->Stop();
    parts_->background->Stop();
  }
  for (const std::unique_ptr<TaskRunner>* runner : {&parts_->fetchers, &parts_->runner, &parts_->behind}) {
    if (*runner != nullptr) {
      (*runner)->Stop();
    }
  }
  if (parts_->shipper != nullptr) {
    parts_->shipper->Flush(absl::Seconds(1));
    parts_->shipper->Stop();
  }
}

absl::StatusOr<std::unique_ptr<RunningService>> StartTokenBroker(const config::v1::TokenBrokerConfig& config,
                                                                 const Clock& clock) {
  const TlsFiles tls = TlsFilesFrom(config.server().tls());
  BrokerPeers peers;
  ASSIGN_OR_RETURN(peers.registry, MakeChannel(config.peers().registry(), tls, "registry"));
  ASSIGN_OR_RETURN(peers.authn, MakeChannel(config.peers().authn(), tls, "authn"));
  ASSIGN_OR_RETURN(peers.vault, MakeChannel(config.peers().vault(), tls, "vault"));
  ASSIGN_OR_RETURN(std::unique_ptr<TokenBrokerServer> server,
                   TokenBrokerServer::Start(config, clock, std::move(peers)));
  return std::unique_ptr<RunningService>(std::move(server));
}

}  // namespace sallyport::token_broker
