// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/redis_settings.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/files.h"
#include "common/proto_time.h"
#include "common/redis/tls.h"
#include "common/status_macros.h"

namespace sallyport::token_broker {
namespace {

using Redis = config::v1::TokenBrokerConfig::Redis;

constexpr char kTls[] = "redis.tls";

bool IsSocket(const Redis& redis) { return absl::StartsWith(redis.address(), "unix:/"); }

// As the client has it: an IPv6 address stands without brackets.
absl::Status CheckAddress(const Redis& redis) {
  const std::string& address = redis.address();
  if (IsSocket(redis)) {
    return absl::OkStatus();
  }
  if (absl::StrContains(address, "://")) {
    return InvalidField("redis.address", "must be host:port without a scheme; for rediss:// set redis.tls");
  }
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 1 ||
      port > 65535) {
    return InvalidField("redis.address", "must be host:port or unix:/path");
  }
  return absl::OkStatus();
}

RedisTls::Options TlsOptionsFrom(const Redis::Tls& tls) {
  RedisTls::Options options;
  options.ca_bundle = tls.ca_bundle();
  options.certificate = tls.certificate();
  options.private_key = tls.private_key();
  options.server_name = tls.server_name();
  return options;
}

absl::Status CheckTls(const Redis& redis) {
  if (!redis.has_tls()) {
    return absl::OkStatus();
  }
  if (IsSocket(redis)) {
    return InvalidField(kTls, "is for host:port: a unix socket has no TLS");
  }
  const absl::Status files = MergeViolations({CheckReadable("redis.tls.caBundle", redis.tls().ca_bundle()),
                                              CheckReadable("redis.tls.certificate", redis.tls().certificate()),
                                              CheckReadable("redis.tls.privateKey", redis.tls().private_key())});
  return files.ok() ? RedisTls::Create(TlsOptionsFrom(redis.tls()), kTls).status() : files;
}

}  // namespace

absl::Status ValidateRedis(const Redis& redis) {
  std::vector<absl::Status> checks = {CheckAddress(redis), CheckTls(redis)};
  if (redis.has_timeout() && FromProtoDuration(redis.timeout()) <= absl::ZeroDuration()) {
    checks.push_back(InvalidField("redis.timeout", "must be greater than 0"));
  }
  if (!redis.username().empty() && redis.password_file().empty()) {
    checks.push_back(InvalidField("redis.passwordFile", "is required with a username"));
  }
  checks.push_back(CheckSecretFile("redis.passwordFile", redis.password_file()));
  return MergeViolations(checks);
}

absl::StatusOr<RedisOptions> RedisOptionsFrom(const Redis& redis) {
  RedisOptions options;
  options.address = redis.address();
  options.username = redis.username();
  if (redis.has_timeout()) {
    options.timeout = FromProtoDuration(redis.timeout());
  }
  if (!redis.password_file().empty()) {
    absl::StatusOr<Secret> password = ReadSecretFile(redis.password_file());
    if (!password.ok()) {
      return InvalidField("redis.passwordFile", password.status().message());
    }
    options.password = *std::move(password);
  }
  if (redis.has_tls()) {
    ASSIGN_OR_RETURN(options.tls, RedisTls::Create(TlsOptionsFrom(redis.tls()), kTls));
  }
  return options;
}

}  // namespace sallyport::token_broker
