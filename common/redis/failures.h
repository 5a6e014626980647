// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

// How calls to Redis fail: sallyport_redis_failures_total{reason} and the log event redis_failed. The log has each
// text once a minute at most, and that of a Redis Cluster once, however many calls fail.
namespace sallyport {

enum class RedisFailure {
  kName,      // The host's name was not resolved.
  kConnect,   // No connection: refused or unreachable.
  kTls,       // No TLS connection, or one that the server ended with an alert.
  kAuth,      // User or password refused, or missing.
  kTimeout,   // No answer in time.
  kBroken,    // The connection ended or broke.
  kProtocol,  // Something that is no answer of Redis, or none that was asked for.
  kCluster,   // MOVED, ASK, CLUSTERDOWN: the server is a node of a Redis Cluster, which this client does not speak to.
  kRefused,   // Any other error answer: NOPERM, OOM, LOADING.
};

// Counts and logs. UNAVAILABLE "redis: <what>"; kAuth, kCluster and kRefused are FAILED_PRECONDITION, because the
// server works. `what` is written by us and names the remedy; text of the server's stays out of it.
absl::Status RedisFailed(RedisFailure failure, absl::string_view what);

// The same for an error answer with this text, of which only the first word is looked at.
absl::Status RedisRefused(absl::string_view text);

// Registers every series, so that the first failure is a rise from 0.
void ShowRedisFailures();

}  // namespace sallyport
