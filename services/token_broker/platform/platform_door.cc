// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_door.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "common/text/hex.h"
#include "services/token_broker/platform/platform_errors.h"

namespace sallyport::token_broker {
namespace {

using authn::v1::AuthenticatePlatformRequest;
using authn::v1::AuthenticatePlatformResponse;

constexpr absl::Duration kDeadline = absl::Seconds(5);
// Without the control stream nobody hears what has ended.
constexpr absl::Duration kMaxAgeUnwatched = absl::Seconds(5);
// Questions to authn that are under way: all, of one platform, and of callers who were never admitted; and those that
// wait for them.
constexpr size_t kMaxFlights = 256;
constexpr size_t kMaxFlightsEach = 64;
constexpr int kMaxStrangers = 32;
constexpr size_t kMaxParked = 4'096;
constexpr size_t kMaxParkedEach = 512;
// Others look at the passport with clocks of their own, while what was begun with it goes on.
constexpr absl::Duration kMargin = absl::Seconds(10);
constexpr size_t kMaxAddresses = 10'000;
constexpr size_t kMaxIdentities = 1'000;
constexpr Budgets::Limit kRefusals = {.per_second = 10, .at_once = 50};
constexpr Budgets::Limit kQuestions = {.per_second = 1'000, .at_once = 10'000};

absl::Status TooMany(absl::Duration retry_after) {
  return WithDetail(absl::ResourceExhaustedError("too many callers have to be told apart at this moment"),
                    {.reason = "too_many_callers", .retry_after = retry_after});
}

// Authn has decided, rather than that it could not.
bool IsRefusal(const absl::Status& status) {
  return absl::IsUnauthenticated(status) || absl::IsPermissionDenied(status);
}
// What was refused is the user: who calls is a platform.
bool IsOfUser(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == "subject_token_invalid" || reason == kPlatformNotGranted || absl::IsInvalidArgument(status);
}

absl::Time LastUseOf(const Passport& passport, absl::Time now) {
  return passport.expires_at - std::min(kMargin, std::max(absl::ZeroDuration(), (passport.expires_at - now) / 10));
}

// Of the first two segments, as the registry's invalidations name a token; empty if it has none.
std::string SigningDigest(absl::string_view token) {
  const size_t first = token.find('.');
  const size_t second = first == absl::string_view::npos ? first : token.find('.', first + 1);
  return second == absl::string_view::npos ? "" : HexEncode(Sha256(token.substr(0, second)));
}

void AddEnd(absl::string_view kind, const std::string& value, std::vector<std::string>& ends) {
  if (!value.empty()) {
    ends.push_back(absl::StrCat(kind, " ", value));
  }
}

// Only what authn decides about the caller is the caller's business.
absl::Status ForCaller(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kInvalidArgument:
      return status;
    default:
      break;
  }
  ErrorDetail detail = DetailOf(status);
  detail.reason = detail.reason.empty() ? "authn_unavailable" : detail.reason;
  detail.retry_after = std::max(detail.retry_after, absl::Seconds(1));
  return WithDetail(absl::UnavailableError("who calls cannot be told now"), detail);
}

}  // namespace

PlatformDoor::PlatformDoor(const std::shared_ptr<grpc::Channel>& authn, const PassportVerifier& verifier,
                           const ControlStream& control, PlatformMetrics& metrics, TaskRunner& runner,
                           const Clock& clock)
    : authn_(authn::v1::Platforms::NewStub(authn)),
      verifier_(verifier),
      control_(control),
      metrics_(metrics),
      runner_(runner),
      clock_(clock),
      refusals_(kMaxAddresses),
      questions_(kMaxIdentities) {}

std::optional<AdmissionCache::Answer> PlatformDoor::Known(const Showing& showing) {
  const absl::Duration max_age = control_.connected() ? absl::InfiniteDuration() : kMaxAgeUnwatched;
  return cache_.Find(showing.key, max_age, clock_.Now());
}

absl::Duration PlatformDoor::Wait(const Showing& showing, bool stranger) {
  const absl::Duration now = clock_.Elapsed();
  return stranger ? refusals_.Peek(showing.address, kRefusals, now)
                  : questions_.Take(showing.identity, kQuestions, now);
}

std::optional<PlatformDoor::Met> PlatformDoor::MetAs(const Showing& showing) const {
  MutexLock lock(mu_);
  const auto found = met_.find(showing.identity);
  return found == met_.end() ? std::nullopt : std::make_optional(found->second);
}

size_t PlatformDoor::MostFlights(const std::string& identity) const {
  return met_.count(identity) == 0 ? 1 : kMaxFlightsEach;
}

bool PlatformDoor::Park(const Showing& showing, Callback& done) {
  const auto found = lines_.find(showing.identity);
  if (found == lines_.end() || found->second.flights < MostFlights(showing.identity) ||
      found->second.parked.size() >= kMaxParkedEach || parked_ >= kMaxParked) {
    return false;
  }
  found->second.parked.push_back({showing, std::move(done)});
  ++parked_;
  return true;
}

std::shared_ptr<PlatformDoor::Flight> PlatformDoor::Begin(const Showing& showing, absl::Duration* wait) {
  const bool stranger = met_.count(showing.identity) == 0;
  const auto line = lines_.find(showing.identity);
  *wait = Wait(showing, stranger);
  if (flights_.size() >= kMaxFlights || (stranger && strangers_ >= kMaxStrangers) ||
      (line != lines_.end() && line->second.flights >= MostFlights(showing.identity))) {
    *wait = std::max(*wait, absl::Seconds(1));
  }
  if (*wait > absl::ZeroDuration()) {
    return nullptr;
  }
  auto flight = std::make_shared<Flight>();
  flight->mark = cache_.Mark();
  flight->stranger = stranger;
  flight->identity = showing.identity;
  flight->address = showing.address;
  strangers_ += stranger ? 1 : 0;
  ++lines_[showing.identity].flights;
  flights_[showing.key] = flight;
  return flight;
}

void PlatformDoor::Ask(const Showing& showing, Callback done) {
  std::shared_ptr<Flight> flight;
  absl::Duration wait;
  {
    MutexLock lock(mu_);
    if (const auto found = flights_.find(showing.key); found != flights_.end()) {
      found->second->waiters.push_back(std::move(done));
      return;
    }
    if (Park(showing, done)) {
      return;
    }
    flight = Begin(showing, &wait);
    if (flight != nullptr) {
      flight->waiters.push_back(std::move(done));
    }
  }
  if (flight == nullptr) {
    return done(TooMany(wait));
  }
  AuthenticatePlatformRequest& request = flight->request;
  *request.mutable_certificate_uris() = {showing.names.uris.begin(), showing.names.uris.end()};
  *request.mutable_certificate_dns_names() = {showing.names.dns_names.begin(), showing.names.dns_names.end()};
  request.set_service_account_token(std::string(showing.token));
  if (showing.user->has_subject_token()) {
    request.set_subject_token(showing.user->subject_token());
  } else {
    request.set_subject(showing.user->subject());
  }
  if (!runner_.Post([this, key = showing.key, flight] { Run(key, flight); })) {
    Land(std::string(showing.key), flight, GatewayUnavailable("too many requests wait here"));
  }
}

void PlatformDoor::Run(const std::string& key, const std::shared_ptr<Flight>& flight) {
  const AdmissionCache::Answer answer = AskAuthn(*flight);
  cache_.Put(key, answer, flight->mark, clock_.Now());
  Land(key, flight, answer);
}

AdmissionCache::Answer PlatformDoor::AskAuthn(const Flight& flight) {
  const std::unique_ptr<grpc::ClientContext> context = MakeClientContext(kDeadline);
  AuthenticatePlatformResponse response;
  const absl::Status status = FromGrpcStatus(authn_->AuthenticatePlatform(context.get(), flight.request, &response));
  if (!status.ok()) {
    return ForCaller(status);
  }
  return Believe(flight.request, std::move(response), clock_.Now());
}

AdmissionCache::Answer PlatformDoor::Believe(const AuthenticatePlatformRequest& request,
                                             AuthenticatePlatformResponse response, absl::Time now) {
  auto admission = std::make_shared<Admission>();
  absl::StatusOr<Passport> passport = verifier_.Verify(response.passport(), now);
  if (!passport.ok()) {
    Log(LogLevel::kError, "platform_passport_refused", {{"status", passport.status()}});
    return ForCaller(absl::UnavailableError("the passport does not verify"));
  }
  const bool as_asked = passport->purpose == Passport::Purpose::kPlatform && passport->actor == response.platform() &&
                        (!request.has_subject() || request.subject() == passport->subject);
  if (!as_asked) {
    return absl::InternalError("authn's passport is not of what it was asked for");
  }
  admission->platform = response.platform();
  admission->passport = *std::move(passport);
  admission->apps.assign(response.apps().begin(), response.apps().end());
  admission->return_origins.assign(response.return_origins().begin(), response.return_origins().end());
  admission->rate_limit = response.rate_limit();
  admission->rate_burst = response.rate_burst();
  admission->asked_at = now;
  admission->valid_until = std::min(FromTimestamp(response.valid_until()), LastUseOf(admission->passport, now));
  AddEnd("TOKEN", SigningDigest(request.service_account_token()), admission->ended_by);
  AddEnd("TOKEN", SigningDigest(request.subject_token()), admission->ended_by);
  AddEnd("SESSION", response.session_id(), admission->ended_by);
  AddEnd("SUBJECT", admission->passport.subject, admission->ended_by);
  admission->counters = &metrics_.Of(admission->platform);
  return SharedAdmission(std::move(admission));
}

void PlatformDoor::Resume(const std::string& identity) {
  while (true) {
    Parked next;
    {
      MutexLock lock(mu_);
      const auto found = lines_.find(identity);
      if (found == lines_.end()) {
        return;
      }
      Line& line = found->second;
      if (line.parked.empty() && line.flights == 0) {
        lines_.erase(found);
        return;
      }
      if (line.parked.empty() || line.flights >= MostFlights(identity)) {
        return;
      }
      next = std::move(line.parked.front());
      line.parked.pop_front();
      --parked_;
    }
    if (const auto known = Known(next.showing); known.has_value()) {
      next.done(*known);
    } else {
      Ask(next.showing, std::move(next.done));
    }
  }
}

void PlatformDoor::Land(const std::string& key, const std::shared_ptr<Flight>& flight,
                        const AdmissionCache::Answer& answer) {
  const absl::Duration now = clock_.Elapsed();
  const std::string& identity = flight->identity;
  std::vector<Callback> waiters;
  std::deque<Parked> in_vain;
  {
    MutexLock lock(mu_);
    flights_.erase(key);
    strangers_ -= flight->stranger ? 1 : 0;
    Line& line = lines_[identity];
    --line.flights;
    waiters.swap(flight->waiters);
    if (answer.ok()) {
      if (met_.size() >= kMaxIdentities && met_.count(identity) == 0) {
        met_.erase(std::min_element(met_.begin(), met_.end(),
                                    [](const auto& a, const auto& b) { return a.second.last < b.second.last; }));
      }
      const Admission& admission = **answer;
      met_[identity] = {admission.platform, admission.rate_limit, admission.rate_burst, admission.counters, now};
    } else if (IsRefusal(answer.status()) && !IsOfUser(answer.status())) {
      met_.erase(identity);  // It is no platform any more.
    }
    if (met_.count(identity) == 0 && !answer.ok() && !IsOfUser(answer.status())) {
      // Who is nobody, or cannot be told, is that for every user.
      in_vain.swap(line.parked);
      parked_ -= in_vain.size();
    }
  }
  if (flight->stranger && IsRefusal(answer.status())) {
    refusals_.Take(flight->address, kRefusals, now);
  }
  for (const Callback& waiter : waiters) {
    waiter(answer);
  }
  for (const Parked& parked : in_vain) {
    parked.done(answer);
  }
  Resume(identity);
}

void PlatformDoor::Obey(const ControlUpdate& update) {
  if (update.full) {
    return cache_.Clear();
  }
  std::vector<std::string> ended;
  for (const registry::v1::Invalidation& invalidation : update.invalidations) {
    switch (invalidation.kind()) {
      case registry::v1::Invalidation::TOKEN:
        AddEnd("TOKEN", invalidation.key(), ended);
        break;
      case registry::v1::Invalidation::SESSION:
        AddEnd("SESSION", invalidation.key(), ended);
        break;
      case registry::v1::Invalidation::SUBJECT:
        AddEnd("SUBJECT", invalidation.key(), ended);
        break;
      default:
        break;
    }
  }
  if (!ended.empty()) {
    cache_.End(ended);
  }
}

}  // namespace sallyport::token_broker
