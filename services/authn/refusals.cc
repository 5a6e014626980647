// SPDX-License-Identifier: Apache-2.0
#include "services/authn/refusals.h"

#include <utility>

#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"

namespace sallyport::authn {
namespace {

constexpr size_t kMaxShown = 256;
constexpr char kOther[] = "other";
constexpr const char* kReasons[] = {
    "expired",   "not_yet_valid", "wrong_audience", "wrong_issuer",    "bad_signature", "unknown_key",
    "algorithm", "missing_token", "token_too_long", "malformed_token", "wrong_type",    "wrong_server",
    "bad_time",  "bad_subject",   "required_claim", "revoked",         "user_gone",     "own_token",
    kOther};

constexpr CounterInfo kRefused = {
    .name = "sallyport_authn_tokens_refused_total",
    .help = "Tokens refused at door one, by the check that failed",
    .unit = "tokens",
    .labels = {{"reason",
                "expired, not_yet_valid, wrong_audience, wrong_issuer, bad_signature, unknown_key, algorithm, "
                "missing_token, token_too_long, malformed_token, wrong_type, wrong_server, bad_time, "
                "bad_subject, required_claim, revoked, user_gone, own_token, other"}},
    .rise =
        "Callers hear `invalid_token`. expired: clients that do not renew. not_yet_valid: clocks differ. "
        "wrong_audience, wrong_issuer: a client or server configured for another one. unknown_key: the issuer's keys "
        "cannot be fetched. bad_signature: forged tokens",
    .action = "The log event `token_refused` and the audit event `mcp.denied` have the same word, with the server",
};

}  // namespace

Refusals::Refusals() {
  // There from the start: an alert must see the first refusal as a rise from 0.
  for (const char* reason : kReasons) {
    series_[reason].counter = &MetricCounter(kRefused, {{"reason", reason}});
  }
}

void Refusals::Note(const absl::Status& refused, absl::string_view server, absl::Time now) {
  const std::string reason = ReasonOf(refused);
  if (!absl::IsUnauthenticated(refused) && !(absl::IsUnavailable(refused) && reason == "unknown_key")) {
    return;
  }
  auto found = series_.find(reason);
  Series& series = found == series_.end() ? series_.find(kOther)->second : found->second;
  series.counter->Increment();
  uint64_t unlogged = 0;
  {
    MutexLock lock(series.mu);
    if (!series.lines.Take(now)) {
      ++series.unlogged;
      return;
    }
    unlogged = std::exchange(series.unlogged, 0);
  }
  Log(LogLevel::kInfo, "token_refused", {{"server", server}, {"reason", reason}, {"unlogged", unlogged}});
}

void LogForeignIssuer(const ForeignIssuer& foreign, absl::Time now) {
  static auto& lines = *new RateLimit(30, absl::Seconds(5));
  if (!lines.Take(now)) {
    return;
  }
  Log(LogLevel::kWarning, "issuer_not_expected",
      {{"where", foreign.where},
       {"of", foreign.subject},
       {"said", foreign.said.substr(0, kMaxShown)},
       {"expected", absl::StrJoin(foreign.expected, " or ")},
       {"remedy", foreign.remedy}});
}

}  // namespace sallyport::authn
