// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_door.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "common/text/hex.h"

namespace sallyport::token_broker {
namespace {

using authn::v1::AuthenticatePlatformRequest;
using authn::v1::AuthenticatePlatformResponse;

constexpr absl::Duration kDeadline = absl::Seconds(5);
// Without the control stream nobody hears what has ended.
constexpr absl::Duration kMaxAgeUnwatched = absl::Seconds(5);
constexpr size_t kMaxTokenBytes = 16 << 10;
constexpr size_t kMaxSubjectBytes = 512;
// Questions to authn that are under way, and those of callers who were never admitted.
constexpr size_t kMaxFlights = 256;
constexpr int kMaxStrangers = 32;
constexpr size_t kMaxAddresses = 10'000;
constexpr size_t kMaxIdentities = 1'000;
constexpr Budgets::Limit kRefusals = {.per_second = 10, .at_once = 50};
constexpr Budgets::Limit kQuestions = {.per_second = 1'000, .at_once = 10'000};

absl::Status Unknown(absl::string_view message) {
  return WithReason(absl::UnauthenticatedError(message), "platform_unknown");
}

absl::Status TooMany(absl::string_view message, absl::Duration retry_after) {
  return WithRetryAfter(absl::ResourceExhaustedError(message), retry_after);
}

// Of metadata "authorization"; empty if there is none.
absl::StatusOr<absl::string_view> BearerOf(const grpc::ServerContextBase& context) {
  const auto [first, last] = context.client_metadata().equal_range("authorization");
  if (first == last) {
    return absl::string_view();
  }
  if (std::next(first) != last) {
    return Unknown("more than one authorization in the metadata");
  }
  constexpr absl::string_view kScheme = "bearer ";
  const absl::string_view value(first->second.data(), first->second.size());
  if (!absl::StartsWithIgnoreCase(value, kScheme)) {
    return Unknown("authorization in the metadata must be \"Bearer\" and a service-account token");
  }
  const absl::string_view token = absl::StripAsciiWhitespace(value.substr(kScheme.size()));
  if (token.empty() || token.size() > kMaxTokenBytes) {
    return Unknown("the service-account token is empty or longer than 16 KiB");
  }
  return token;
}

absl::Status CheckUser(const v1::PlatformUser& user) {
  switch (user.user_case()) {
    case v1::PlatformUser::kSubjectToken:
      return user.subject_token().empty() || user.subject_token().size() > kMaxTokenBytes
                 ? InvalidField("user.subject_token", "must be 1 to 16384 bytes")
                 : absl::OkStatus();
    case v1::PlatformUser::kSubject:
      return user.subject().empty() || user.subject().size() > kMaxSubjectBytes
                 ? InvalidField("user.subject", "must be 1 to 512 bytes, such as corp:00u1")
                 : absl::OkStatus();
    default:
      return InvalidField("user", "is required: subject_token, or subject");
  }
}

// "ipv4:192.0.2.1:4321", "ipv6:[::1]:4321".
std::string HostOf(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

// Lengths before the parts: "a" + "bc" must not be "ab" + "c".
void Append(absl::string_view part, std::string& out) { absl::StrAppend(&out, part.size(), ":", part); }

std::string IdentityOf(const Showing& showing) {
  std::string text;
  for (const std::string& uri : showing.names.uris) {
    Append(absl::StrCat("uri ", uri), text);
  }
  for (const std::string& name : showing.names.dns_names) {
    Append(absl::StrCat("dns ", name), text);
  }
  Append(showing.token.empty() ? "" : Sha256(showing.token), text);
  return Sha256(text);
}

std::string KeyOf(const Showing& showing) {
  const v1::PlatformUser& user = *showing.user;
  return Sha256(absl::StrCat(showing.identity, static_cast<int>(user.user_case()), " ",
                             Sha256(user.has_subject_token() ? user.subject_token() : user.subject())));
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
    case absl::StatusCode::kResourceExhausted:
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

absl::StatusOr<Showing> ShowingOf(const grpc::ServerContextBase& context, const v1::PlatformUser& user) {
  Showing showing;
  showing.names = PeerNamesOf(context);
  ASSIGN_OR_RETURN(showing.token, BearerOf(context));
  if (showing.names.empty() && showing.token.empty()) {
    return Unknown("a client certificate with a URI or DNS name, or a service-account token, is required");
  }
  RETURN_IF_ERROR(CheckUser(user));
  showing.user = &user;
  showing.address = HostOf(context.peer());
  showing.identity = IdentityOf(showing);
  showing.key = KeyOf(showing);
  return showing;
}

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

void PlatformDoor::Ask(const Showing& showing, Callback done) {
  std::shared_ptr<Flight> flight;
  absl::Duration wait;
  {
    MutexLock lock(mu_);
    if (const auto found = flights_.find(showing.key); found != flights_.end()) {
      found->second->waiters.push_back(std::move(done));
      return;
    }
    const bool stranger = met_.count(showing.identity) == 0;
    wait = Wait(showing, stranger);
    if (flights_.size() >= kMaxFlights || (stranger && strangers_ >= kMaxStrangers)) {
      wait = std::max(wait, absl::Seconds(1));
    }
    if (wait == absl::ZeroDuration()) {
      flight = std::make_shared<Flight>();
      flight->mark = cache_.Mark();
      flight->stranger = stranger;
      flight->identity = showing.identity;
      flight->address = showing.address;
      strangers_ += stranger ? 1 : 0;
      flights_[showing.key] = flight;
    }
  }
  if (flight == nullptr) {
    return done(TooMany("too many callers have to be told apart at this moment", wait));
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
  {
    MutexLock lock(mu_);
    flight->waiters.push_back(std::move(done));
  }
  if (!runner_.Post([this, key = showing.key, flight] { Run(key, flight); })) {
    Land(showing.key, flight, WithRetryAfter(absl::UnavailableError("too many requests wait here"), absl::Seconds(1)));
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
  admission->valid_until = std::min(FromTimestamp(response.valid_until()), admission->passport.expires_at);
  AddEnd("TOKEN", SigningDigest(request.service_account_token()), admission->ended_by);
  AddEnd("TOKEN", SigningDigest(request.subject_token()), admission->ended_by);
  AddEnd("SESSION", response.session_id(), admission->ended_by);
  AddEnd("SUBJECT", admission->passport.subject, admission->ended_by);
  admission->counters = &metrics_.Of(admission->platform);
  return SharedAdmission(std::move(admission));
}

void PlatformDoor::Land(const std::string& key, const std::shared_ptr<Flight>& flight,
                        const AdmissionCache::Answer& answer) {
  const absl::Duration now = clock_.Elapsed();
  std::vector<Callback> waiters;
  {
    MutexLock lock(mu_);
    flights_.erase(key);
    strangers_ -= flight->stranger ? 1 : 0;
    waiters.swap(flight->waiters);
    if (answer.ok()) {
      if (met_.size() >= kMaxIdentities && met_.count(flight->identity) == 0) {
        met_.erase(std::min_element(met_.begin(), met_.end(),
                                    [](const auto& a, const auto& b) { return a.second < b.second; }));
      }
      met_[flight->identity] = now;
    }
  }
  if (flight->stranger && !answer.ok()) {
    refusals_.Take(flight->address, kRefusals, now);
  }
  for (const Callback& waiter : waiters) {
    waiter(answer);
  }
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
