// SPDX-License-Identifier: Apache-2.0
// Drives the real refresh code of two brokers through every interleaving of its steps with crashes, lost answers,
// lapsing leases, a user who links anew or unlinks, and three kinds of providers; after every step the invariants of
// refresh_flight.h are checked, and whenever nobody is at work, what the next caller gets after one lease.
#include <array>
#include <deque>
#include <unordered_set>

#include "absl/strings/str_join.h"
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/refresh_flight.h"
#include "services/token_broker/testing/fake_vault_client.h"
#include "services/token_broker/testing/model_provider.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using testing::FakeVaultClient;
using testing::ModelProvider;
using Mode = ModelProvider::Mode;

struct Faults {
  int crash = 0;
  // A process dies while the provider has its request, which takes effect then or later.
  int crash_in_flight = 0;
  int lost_answer = 0;
  int lost_request = 0;
  // The provider answers 503.
  int outage = 0;
  int relink = 0;
  int unlink = 0;
  int put_failure = 0;
  // A lease lapses while its holder lives, but not between its decision to send and the answer.
  int lapse = 0;
  // A holder sends after its lease has lapsed: what no client of such a provider can survive.
  int pause = 0;
  // The provider answers with a new refresh token and no access token.
  int half_answer = 0;
  // The user links anew and is given the very same refresh token, as by a provider that does not rotate.
  int relink_same = 0;
  // The passports of those at work end; who asks later has another, and lends it.
  int expiry = 0;
  // The store no longer knows a lease whose holder has an answer.
  int forgotten_lease = 0;
  // Brokers that start afterwards do not know the issuer's metadata, or know an app that was moved elsewhere.
  int metadata_outage = 0;
  int move = 0;
  // The second broker's flights ask for a token for another audience.
  bool further = false;
  // The provider refuses with unauthorized_client, and a description that blames the refresh token.
  bool vague = false;
};

// One deterministic run.
class World {
 public:
  static constexpr int kProcesses = 2;
  static constexpr int kMaxFlights = 3;

  World(Mode mode, Faults faults) : mode_(mode), faults_(faults), vault_(clock_), provider_(mode) {
    config_.connection = "app_1";
    config_.token_url = ModelProvider::kTokenUrl;
    config_.revocation_url = ModelProvider::kRevocationUrl;
    provider_.vague_ = faults.vague;
    Link();
  }

  // Names of what can happen now.
  std::vector<std::string> Enabled() {
    std::vector<std::string> actions;
    for (int i = 0; i < kProcesses; ++i) {
      const std::string n = absl::StrCat(i);
      if (flights_[Index(i)] == nullptr) {
        if (started_ < kMaxFlights && !unlinked_) actions.push_back("start" + n);
        continue;
      }
      actions.push_back("step" + n);
      const bool sending = !flights_[Index(i)]->sending_refresh_token().empty();
      if (faults_.crash > 0) actions.push_back("crash" + n);
      if (sending && faults_.crash_in_flight > 0) actions.push_back("crashInFlight" + n);
      if (sending && faults_.outage > 0) actions.push_back("refuse" + n);
      if (sending && faults_.lost_answer > 0) actions.push_back("loseAnswer" + n);
      if (sending && faults_.lost_request > 0) actions.push_back("loseRequest" + n);
      const bool commits = !sending && !flights_[Index(i)]->held_refresh_token().empty();
      if (sending && faults_.half_answer > 0) actions.push_back("half" + n);
      if (commits && faults_.put_failure > 0) actions.push_back("failPut" + n);
      if (commits && faults_.forgotten_lease > 0) actions.push_back("forget" + n);
      if (holds_[Index(i)] != passport_) actions.push_back("lend" + n);
    }
    const std::string holder = vault_.Holder(Record());
    if (!holder.empty()) {
      bool alive = false;
      bool sending = false;
      for (const auto& flight : flights_) {
        const bool holds = flight != nullptr && flight->Fingerprint().find("/" + holder + "/") != std::string::npos;
        alive = alive || holds;
        sending = sending || (holds && !flight->sending_refresh_token().empty());
      }
      // A lease outlasts what its holder sent, holder or no holder.
      const bool lapses = !alive && !provider_.HasPending();
      if (lapses || (alive && (sending ? faults_.pause > 0 : faults_.lapse > 0))) actions.push_back("lapse");
    }
    if (provider_.HasPending()) actions.push_back("arrive");
    if (faults_.relink > 0) actions.push_back("relink");
    if (faults_.relink_same > 0 && mode_ == Mode::kStatic && !unlinked_) actions.push_back("relinkSame");
    if (faults_.expiry > 0) actions.push_back("expire");
    if (faults_.metadata_outage > 0) actions.push_back("hideMetadata");
    if (faults_.move > 0) actions.push_back("move");
    if (faults_.unlink > 0 && !unlinked_) actions.push_back("unlink");
    return actions;
  }

  void Do(const std::string& action) {
    trouble_ = trouble_ || action.rfind("crash", 0) == 0 || action.rfind("lose", 0) == 0;
    if (action == "lapse") return Lapse();
    if (action == "arrive") return provider_.Arrive();
    if (action == "relink") {
      --faults_.relink;
      provider_.NewFamily();
      return Link();
    }
    if (action == "relinkSame") {
      --faults_.relink_same;
      return Link();
    }
    if (action == "expire") {
      --faults_.expiry;
      vault_.RefusePassport(Passport(passport_++));
      return;
    }
    if (action == "hideMetadata") {
      --faults_.metadata_outage;
      config_.revocation_url.clear();
      config_.metadata_missing = true;
      return;
    }
    if (action == "move") {
      --faults_.move;
      config_.token_url = "https://elsewhere.example/token";
      config_.revocation_url = "https://elsewhere.example/revoke";
      return;
    }
    if (action == "unlink") {
      --faults_.unlink;
      unlinked_ = true;
      vault::v1::DeleteRequest request;
      *request.mutable_record() = Record();
      EXPECT_TRUE(vault_.Delete(request, Passport(passport_)).ok());
      return;
    }
    const int i = action.back() - '0';
    const std::string verb = action.substr(0, action.size() - 1);
    if (verb == "start") {
      ++started_;
      RefreshFlight::Options options;
      options.random = [] { return 0.5; };
      holds_[Index(i)] = passport_;
      RefreshWish wish;
      if (faults_.further && i == 1) {
        wish.reason = RefreshWish::Reason::kFurther;
        wish.further = std::make_shared<FurtherToken>();
        wish.further->scope = "other";
      }
      flights_[Index(i)] = std::make_unique<RefreshFlight>(ConnectionKey{"u:ada", "app_1"}, config_, wish,
                                                           Passport(passport_), vault_, provider_, clock_, options);
      return;
    }
    if (verb == "lend") {
      holds_[Index(i)] = passport_;
      return flights_[Index(i)]->Lend(Passport(passport_));
    }
    if (verb == "forget") {
      --faults_.forgotten_lease;
      lapsed_ = true;
      return vault_.ForgetLeases();
    }
    if (verb == "crash") {
      --faults_.crash;
      flights_[Index(i)] = nullptr;
      return;
    }
    if (verb == "crashInFlight") {
      --faults_.crash_in_flight;
      provider_.SendFromTheDead(flights_[Index(i)]->sending_refresh_token());
      flights_[Index(i)] = nullptr;
      return;
    }
    if (verb == "refuse") provider_.out_of_order_ = faults_.outage-- > 0;
    if (verb == "loseAnswer") provider_.lose_answer_ = faults_.lost_answer-- > 0;
    if (verb == "loseRequest") provider_.drop_request_ = faults_.lost_request-- > 0;
    if (verb == "half") provider_.half_answer_ = faults_.half_answer-- > 0;
    if (verb == "failPut") vault_.FailPuts(faults_.put_failure-- > 0 ? 1 : 0);
    if (flights_[Index(i)]->Step().kind == RefreshFlight::Next::Kind::kDone) {
      flights_[Index(i)] = nullptr;
    }
    provider_.lose_answer_ = provider_.drop_request_ = provider_.out_of_order_ = provider_.half_answer_ = false;
  }

  // What is broken; empty if nothing.
  std::string Check() {
    v1::TokenSet head;
    head.ParseFromString(vault_.Head(Record()));
    const std::string state = vault_.MetadataOf(Record()).state();
    const std::string a = flights_[0] == nullptr ? "" : flights_[0]->sending_refresh_token();
    const std::string b = flights_[1] == nullptr ? "" : flights_[1]->sending_refresh_token();
    // What a provider does not rotate, two links may have, and it may come from both.
    const bool shared = faults_.relink_same < faults_at_start_.relink_same;
    if (!paused_ && !shared && !a.empty() && a == b) return "I1: one refresh token about to be sent twice";

    std::vector<std::string> stored = {head.refresh_token()};
    for (const std::string& payload : vault_.Sides(Record())) {
      v1::TokenSet side;
      side.ParseFromString(payload);
      stored.push_back(side.refresh_token());
    }
    std::vector<std::string> known = stored;
    bool idle = true;
    for (const auto& flight : flights_) {
      if (flight != nullptr) {
        idle = false;
        known.push_back(flight->held_refresh_token());
      }
    }
    const auto usable = [&](const std::string& token) { return provider_.IsUsable(token); };
    const bool trouble = trouble_ || lapsed_ || paused_;
    if (!unlinked_ && !trouble && !provider_.revoked() && std::none_of(known.begin(), known.end(), usable)) {
      return "I2: nobody knows a usable refresh token";
    }
    if (provider_.revoked() && !provider_.revoked_by_us() && !trouble) return "I3: rotation tripped without a fault";
    if (provider_.misdirected()) return "a token went where the app was moved to";
    if (provider_.revoked_by_us() && !unlinked_) return "I3: a live link was revoked by us";
    if (idle && state == "NEEDS_REAUTH" && !IsMoved() && std::any_of(stored.begin(), stored.end(), usable)) {
      return "I4: marked as dead with a usable refresh token at hand";
    }
    if (!unlinked_ && !head.refresh_token().empty() && std::stoi(head.refresh_token()) != provider_.family()) {
      return "I5: an older link overwrote a newer one";
    }
    if (unlinked_ && !vault_.Head(Record()).empty()) return "I5: an unlinked connection came back";
    return "";
  }

  // Nobody is at work: whoever died is gone for good.
  bool IsIdle() const { return flights_[0] == nullptr && flights_[1] == nullptr; }

  // What is wrong with what the next caller gets once the lease of whoever died is over; empty if nothing. A broken
  // connection must say so: an outage that never ends helps nobody.
  std::string Settle() {
    while (provider_.HasPending()) provider_.Arrive();
    RefreshFlight::Options options;
    options.random = [] { return 0.5; };
    clock_.Advance(options.lease);
    RefreshFlight flight(ConnectionKey{"u:ada", "app_1"}, config_, RefreshWish{}, Passport(passport_), vault_,
                         provider_, clock_, options);
    int steps = 0;
    while (flight.Step().kind == RefreshFlight::Next::Kind::kAgain && steps < 20) ++steps;
    if (!flight.result().ok()) return absl::StrCat("L: no end after one lease: ", flight.result().status().message());
    const ConnectionView& view = **flight.result();
    const vault::v1::RecordMetadata metadata = vault_.MetadataOf(Record());
    switch (view.state) {
      case ConnectionView::State::kAbsent:
        return unlinked_ ? "" : "L: a link is gone";
      case ConnectionView::State::kNeedsUser:
        // Here nobody takes a grant back. A holder that was late can put a dead token back in place, though.
        return lapsed_ || IsMoved() || paused_ || metadata.reason() == "rotation_response_lost"
                   ? ""
                   : "L: the user is told: " + metadata.reason();
      case ConnectionView::State::kLinked:
        break;
    }
    v1::TokenSet head;
    head.ParseFromString(vault_.Head(Record()));
    return provider_.IsUsable(head.refresh_token()) ? "" : "L: linked with a token that is dead";
  }

  std::string Fingerprint() {
    std::string out =
        absl::StrCat(vault_.Fingerprint(), "#", provider_.Fingerprint(), "#", faults_.crash, faults_.crash_in_flight,
                     faults_.outage, faults_.lost_answer, faults_.lost_request, faults_.relink, faults_.unlink,
                     faults_.lapse, faults_.pause, faults_.put_failure, faults_.half_answer, faults_.relink_same,
                     faults_.expiry, faults_.forgotten_lease, faults_.metadata_outage, faults_.move, "#", started_,
                     trouble_, lapsed_, paused_, "#", passport_, holds_[0], holds_[1]);
    for (const auto& flight : flights_) absl::StrAppend(&out, "#", flight == nullptr ? "-" : flight->Fingerprint());
    return out;
  }

 private:
  static std::string Passport(int number) { return absl::StrCat("passport-of:u:ada#", number); }
  static size_t Index(int i) { return static_cast<size_t>(i); }
  static vault::v1::RecordName Record() { return ConnectionRecord("u:ada", "app_1"); }

  void Link() {
    v1::TokenSet tokens;
    tokens.set_access_token("at");
    tokens.set_refresh_token(provider_.Newest());
    *tokens.mutable_obtained_at() = ToTimestamp(clock_.Now());
    *tokens.mutable_expires_at() = ToTimestamp(clock_.Now());
    vault::v1::PutRequest request;
    *request.mutable_record() = Record();
    request.set_payload(tokens.SerializeAsString());
    // As it was before anything went wrong; an app that was moved is linked at its new place, which is not played here.
    (*request.mutable_labels())[kBoundTo] = "https://provider.example https://provider.example";
    EXPECT_TRUE(vault_.Put(request, Passport(passport_)).ok());
    unlinked_ = false;
  }
  bool IsMoved() {
    return vault_.MetadataOf(Record()).reason() == "provider_moved" && faults_.move < faults_at_start_.move;
  }
  void Lapse() {
    const std::string holder = vault_.Holder(Record());
    for (const auto& flight : flights_) {
      if (flight == nullptr || flight->Fingerprint().find("/" + holder + "/") == std::string::npos) continue;
      if (flight->sending_refresh_token().empty()) {
        --faults_.lapse;
        lapsed_ = true;
      } else {
        --faults_.pause;
        paused_ = true;
      }
    }
    vault_.LapseLeases();
  }

  const Mode mode_;
  Faults faults_;
  const Faults faults_at_start_ = faults_;
  Provider config_;
  int passport_ = 0;
  std::array<int, kProcesses> holds_ = {};
  FakeClock clock_;
  FakeVaultClient vault_;
  ModelProvider provider_;
  std::array<std::unique_ptr<RefreshFlight>, kProcesses> flights_;
  int started_ = 0;
  bool trouble_ = false;
  bool lapsed_ = false;
  bool paused_ = false;
  bool unlinked_ = false;
};

struct Explored {
  size_t states = 0;
  std::map<std::string, std::string> broken;  // What, and the shortest way to it.
};

// Breadth first: the first way found to a state is a shortest one. A state is reached again by doing its actions again.
Explored Explore(Mode mode, Faults faults, size_t max_states = 60'000) {
  Explored explored;
  std::unordered_set<std::string> seen;
  std::deque<std::vector<std::string>> queue = {{}};
  while (!queue.empty() && explored.states < max_states) {
    const std::vector<std::string> path = std::move(queue.front());
    queue.pop_front();
    World at(mode, faults);
    for (const std::string& action : path) at.Do(action);
    for (const std::string& action : at.Enabled()) {
      World world(mode, faults);
      for (const std::string& before : path) world.Do(before);
      world.Do(action);
      if (!seen.insert(world.Fingerprint()).second) continue;
      ++explored.states;
      std::vector<std::string> longer = path;
      longer.push_back(action);
      std::string what = world.Check();
      if (what.empty() && world.IsIdle()) what = world.Settle();
      if (!what.empty()) explored.broken.try_emplace(what, absl::StrJoin(longer, " "));
      queue.push_back(std::move(longer));
    }
  }
  EXPECT_TRUE(queue.empty()) << "not all states were explored";
  return explored;
}

std::string Ways(const Explored& explored) {
  std::string text;
  for (const auto& [what, way] : explored.broken) absl::StrAppend(&text, what, ": ", way, "\n");
  return text;
}

struct Case {
  const char* name;
  Faults faults;
};

class RefreshInterleavingTest : public ::testing::TestWithParam<std::tuple<Mode, Case>> {};

TEST_P(RefreshInterleavingTest, EveryInterleavingKeepsTheInvariants) {
  const auto& [mode, faults] = GetParam();

  const Explored explored = Explore(mode, faults.faults);

  EXPECT_EQ(Ways(explored), "");
  EXPECT_GT(explored.states, 10U);
  RecordProperty("states", static_cast<int>(explored.states));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefreshInterleavingTest,
    ::testing::Combine(
        ::testing::Values(Mode::kStrict, Mode::kGrace, Mode::kStatic),
        ::testing::Values(
            Case{"NoFault", {}}, Case{"Crash", {.crash = 1}}, Case{"CrashInFlight", {.crash_in_flight = 1}},
            Case{"CrashInFlightAndOutage", {.crash_in_flight = 1, .outage = 1}},
            Case{"CrashInFlightAndRelink", {.crash_in_flight = 1, .relink = 1}},
            Case{"TwoCrashes", {.crash = 1, .crash_in_flight = 1}}, Case{"LostAnswer", {.lost_answer = 1}},
            Case{"LostRequest", {.lost_request = 1}}, Case{"Relink", {.relink = 1}}, Case{"Unlink", {.unlink = 1}},
            Case{"PutFails", {.put_failure = 2}}, Case{"LeaseLapses", {.lapse = 1}},
            Case{"CrashAndRelink", {.crash = 1, .relink = 1}}, Case{"LapseAndRelink", {.relink = 1, .lapse = 1}},
            Case{"LostAnswerAndUnlink", {.lost_answer = 1, .unlink = 1}}, Case{"HalfAnswer", {.half_answer = 1}},
            Case{"HalfAnswerAndRelink", {.relink = 1, .half_answer = 1}},
            Case{"RelinkWithTheSameToken", {.relink_same = 1}},
            Case{"RelinkWithTheSameTokenAndExpiry", {.relink_same = 1, .expiry = 1}},
            Case{"RelinkAndExpiry", {.relink = 1, .expiry = 1}}, Case{"UnlinkAndExpiry", {.unlink = 1, .expiry = 1}},
            Case{"LeaseForgottenAndExpiry", {.expiry = 1, .forgotten_lease = 1}},
            Case{"LeaseForgottenAndRelinkWithTheSameToken", {.relink_same = 1, .forgotten_lease = 1}},
            Case{"MetadataOutage", {.metadata_outage = 1}},
            Case{"MetadataOutageAndRelink", {.relink = 1, .metadata_outage = 1}}, Case{"Move", {.move = 1}},
            Case{"MoveAndRelink", {.relink = 1, .move = 1}},
            Case{"VagueRefusalAndCrashInFlight", {.crash_in_flight = 1, .vague = true}},
            Case{"VagueRefusalAndLapse", {.lapse = 1, .vague = true}},
            Case{"VagueRefusalAndLostAnswer", {.lost_answer = 1, .vague = true}}, Case{"Further", {.further = true}},
            Case{"FurtherAndCrash", {.crash = 1, .further = true}},
            Case{"FurtherAndCrashInFlight", {.crash_in_flight = 1, .further = true}},
            Case{"FurtherAndLostAnswer", {.lost_answer = 1, .further = true}},
            Case{"FurtherAndLostRequest", {.lost_request = 1, .further = true}},
            Case{"FurtherAndRelink", {.relink = 1, .further = true}},
            Case{"FurtherAndUnlink", {.unlink = 1, .further = true}},
            Case{"FurtherAndPutFails", {.put_failure = 2, .further = true}},
            Case{"FurtherAndLapse", {.lapse = 1, .further = true}},
            Case{"FurtherAndHalfAnswer", {.half_answer = 1, .further = true}},
            Case{"FurtherAndRelinkWithTheSameToken", {.relink_same = 1, .further = true}},
            Case{"FurtherAndLeaseForgottenAndExpiry", {.expiry = 1, .forgotten_lease = 1, .further = true}},
            Case{"FurtherAndVagueRefusalAndLapse", {.lapse = 1, .further = true, .vague = true}})),
    [](const auto& chosen) {
      const Mode mode = std::get<0>(chosen.param);
      return std::string(mode == Mode::kStrict  ? "Strict"
                         : mode == Mode::kGrace ? "Grace"
                                                : "Static") +
             std::get<1>(chosen.param).name;
    });

// The limit nobody can remove: a process that stops between its last look at the clock and the write. What is received
// is kept all the same, and a healthy grant is not given up.
TEST(RefreshInterleavingTest, SendingAfterTheLeaseLosesNothingThatWasReceived) {
  for (const Mode mode : {Mode::kGrace, Mode::kStatic}) {
    EXPECT_EQ(Ways(Explore(mode, {.pause = 1})), "");
  }
}

}  // namespace
}  // namespace sallyport::token_broker
