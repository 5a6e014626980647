// SPDX-License-Identifier: Apache-2.0
#include "services/registry/audit_names.h"

#include <set>

#include <gmock/gmock.h>

#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/registry/audit_store.h"
#include "services/registry/registry_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Code = absl::StatusCode;

constexpr char kAda[] = "okta:00u1";
constexpr char kClient[] = "mcp_1";

class AuditNamesTest : public EngineTest {
 protected:
  // A moment before now, so that an erasure comes later.
  audit::v1::Event Event(const std::string& type, const std::string& subject, const std::string& client_id,
                         absl::Duration ago = absl::Minutes(1)) {
    audit::v1::Event event;
    event.set_source("authn");
    event.set_boot("b1");
    event.set_sequence(++sequence_);
    event.set_type(type);
    event.set_subject(subject);
    event.set_client_id(client_id);
    *event.mutable_at() = ToTimestamp(clock_.Now() - ago);
    return event;
  }
  audit::v1::Event Login(const std::string& name, const std::string& email, absl::Duration ago = absl::Minutes(1)) {
    audit::v1::Event event = Event("login", kAda, "browser", ago);
    event.set_user_name(name);
    event.set_user_email(email);
    return event;
  }
  audit::v1::Event Registered(const std::string& client_id, const std::string& name,
                              absl::Duration ago = absl::Minutes(1)) {
    audit::v1::Event event = Event("client.registered", "", client_id, ago);
    event.set_client_name(name);
    return event;
  }
  absl::Status Append(const std::vector<audit::v1::Event>& events) {
    audit::v1::AppendRequest request;
    for (const auto& event : events) *request.add_events() = event;
    return store().Append(request).status();
  }
  AuditStore store() { return AuditStore(*database_); }
  // The newest event of a type.
  audit::v1::Event Newest(const std::string& type) {
    audit::v1::ListEventsRequest request;
    request.set_type(type);
    const auto response = store().List(request);
    EXPECT_THAT(response, IsOk());
    return response.ok() && response->events_size() > 0 ? response->events(0) : audit::v1::Event();
  }
  absl::StatusOr<audit::v1::EraseNamesResponse> Erase(const std::string& subject, const std::string& client_id = "") {
    audit::v1::EraseNamesRequest request;
    request.set_subject(subject);
    request.set_client_id(client_id);
    return store().EraseNames(request, [](Transaction&) { return absl::OkStatus(); });
  }
  int64_t Count(const std::string& table) {
    int64_t count = 0;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const auto row, tx.QueryRow("SELECT COUNT(*) AS n FROM " + table));
      count = row->Int("n");
      return absl::OkStatus();
    }),
                IsOk());
    return count;
  }
  // Everything an event's row holds.
  std::string StoredEvents() {
    std::string all;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT body FROM audit_event"));
      for (const Row& row : rows) all += row.BytesAt("body");
      return absl::OkStatus();
    }),
                IsOk());
    return all;
  }

  uint64_t sequence_ = 0;
};
INSTANTIATE_ENGINES(AuditNamesTest);

TEST_P(AuditNamesTest, StandBesideEveryEventOfTheirIdsAndInNone) {
  audit::v1::Event call = Event("mcp.admitted", kAda, kClient, absl::Hours(3));  // Before any name was known.
  ASSERT_THAT(Append({call, Registered(kClient, "Claude"), Login("Ada Lovelace", "ada@example.com")}), IsOk());

  const audit::v1::Event shown = Newest("mcp.admitted");
  EXPECT_EQ(shown.user_name(), "Ada Lovelace");
  EXPECT_EQ(shown.user_email(), "ada@example.com");
  EXPECT_EQ(shown.client_name(), "Claude");
  EXPECT_THAT(StoredEvents(), Not(HasSubstr("Ada")));
  EXPECT_THAT(StoredEvents(), Not(HasSubstr("ada@")));
  EXPECT_THAT(StoredEvents(), Not(HasSubstr("Claude")));
}

TEST_P(AuditNamesTest, NewestWinsWhateverTheOrderAndAnEmptyOneSaysNothing) {
  ASSERT_THAT(Append({Login("New", "new@example.com", absl::Minutes(1)), Login("Old", "", absl::Minutes(9))}), IsOk());
  ASSERT_THAT(Append({Login("Older", "older@example.com", absl::Minutes(10))}), IsOk());
  EXPECT_EQ(Newest("login").user_name(), "New");
  EXPECT_EQ(Newest("login").user_email(), "new@example.com");
  ASSERT_THAT(Append({Login("Newest", "", absl::Seconds(5))}), IsOk());
  EXPECT_EQ(Newest("login").user_name(), "Newest");
  EXPECT_EQ(Newest("login").user_email(), "new@example.com");
}

TEST_P(AuditNamesTest, ABatchSentTwiceIsStillTheSameBatch) {
  const std::vector<audit::v1::Event> batch = {Registered(kClient, "Claude"), Login("Ada", "ada@example.com")};
  ASSERT_THAT(Append(batch), IsOk());
  ASSERT_THAT(Erase(kAda), IsOk());
  std::vector<audit::v1::Event> without = batch;
  for (auto& event : without) ASSERT_TRUE(event.ParseFromString(AuditNames::SerializeWithoutNames(event)));
  EXPECT_THAT(Append(without), IsOk()) << "names are no part of what an event is";
  EXPECT_THAT(Append(batch), IsOk());
  EXPECT_EQ(Newest("login").user_name(), "") << "and sending again brings no erased name back";
  EXPECT_EQ(Count("audit_event"), 2);
}

TEST_P(AuditNamesTest, ErasedNamesAreGoneFromOldEventsUntilALaterSignIn) {
  ASSERT_THAT(Append({Login("Ada Lovelace", "ada@example.com"), Event("consent", "okta:00u2", kClient)}), IsOk());
  const audit::v1::Event on_its_way = Login("Ada Lovelace", "ada@example.com", absl::Seconds(30));

  auto erased = Erase(kAda);
  ASSERT_THAT(erased, IsOk());
  EXPECT_TRUE(erased->erased());
  ASSERT_THAT(Append({on_its_way}), IsOk());

  EXPECT_EQ(Newest("login").user_name(), "");
  EXPECT_EQ(Newest("login").user_email(), "");
  EXPECT_EQ(Newest("login").subject(), kAda) << "the event itself stays";
  EXPECT_FALSE(Erase(kAda)->erased()) << "there is nothing any more";
  EXPECT_FALSE(Erase("okta:nobody")->erased());

  ASSERT_THAT(Append({Login("Ada King", "king@example.com", -absl::Minutes(1))}), IsOk());
  EXPECT_EQ(Newest("login").user_name(), "Ada King");
}

TEST_P(AuditNamesTest, AClientsNameCanBeErasedToo) {
  ASSERT_THAT(Append({Registered(kClient, "Ada's laptop")}), IsOk());
  EXPECT_TRUE(Erase("", kClient)->erased());
  EXPECT_EQ(Newest("client.registered").client_name(), "");
  EXPECT_THAT(Erase("", ""), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Erase(kAda, kClient), StatusIs(Code::kInvalidArgument));
}

TEST_P(AuditNamesTest, AnErasureThatIsNotRecordedDoesNotHappen) {
  ASSERT_THAT(Append({Login("Ada", "ada@example.com")}), IsOk());
  audit::v1::EraseNamesRequest request;
  request.set_subject(kAda);
  EXPECT_THAT(store().EraseNames(request, [](Transaction&) { return absl::UnavailableError("full"); }),
              StatusIs(Code::kUnavailable));
  EXPECT_EQ(Newest("login").user_name(), "Ada");
}

TEST_P(AuditNamesTest, OnlyAuthnSaysWhoSomebodyIs) {
  audit::v1::Event forged = Login("Mallory", "ceo@example.com");
  forged.set_source("edge/0");
  forged.set_client_name("Claude");
  ASSERT_THAT(Append({forged}), IsOk());
  EXPECT_EQ(Newest("login").user_name(), "");
  EXPECT_EQ(Newest("login").client_name(), "");
  EXPECT_THAT(StoredEvents(), Not(HasSubstr("Mallory")));
}

TEST_P(AuditNamesTest, WhatAClientCallsItselfIsBoundedAndHarmless) {
  const std::string evil = std::string("sallyport-cli\x1b[2J\xe2\x80\xae\n\0", 22) + std::string(10'000, 'x');
  ASSERT_THAT(Append({Registered(kClient, evil), Registered(std::string("mcp\0_2", 6), "NUL in its id")}), IsOk());
  audit::v1::ListEventsRequest request;
  const auto events = store().List(request);
  ASSERT_THAT(events, IsOk());
  for (const auto& event : events->events()) {
    EXPECT_LE(event.client_name().size(), 256U);
    EXPECT_THAT(event.client_name(), Not(HasSubstr("\x1b")));
    EXPECT_THAT(event.client_name(), Not(HasSubstr("\xe2\x80\xae")));
    EXPECT_THAT(event.client_name(), Not(HasSubstr("\n")));
    EXPECT_THAT(event.client_name(), Not(IsEmpty()));
  }
  // An id longer than the key, cut within a character.
  std::string euros;
  for (int i = 0; i < 100; ++i) euros += "\xe2\x82\xac";
  EXPECT_THAT(Append({Registered(euros, "long id", absl::Seconds(5))}), IsOk());
  EXPECT_EQ(Newest("client.registered").client_name(), "long id");
}

TEST_P(AuditNamesTest, StrangersWhoRegisterDisplaceNoClientInUse) {
  audit::v1::Event consent = Event("consent", kAda, "mcp_used", absl::Hours(24));
  consent.set_client_name("In use");
  ASSERT_THAT(Append({consent}), IsOk());
  constexpr int kMost = 150;
  for (int round = 0; round < 3; ++round) {
    audit::v1::AppendRequest flood;
    for (int i = 0; i < 250; ++i) {
      *flood.add_events() = Registered(absl::StrCat("mcp_stranger", round, "_", i), std::string(1000, 'x'),
                                       absl::Minutes(60 - 10 * round) - absl::Milliseconds(i));
    }
    ASSERT_THAT(Write([&](Transaction& tx) { return AuditNames::Learn(tx, flood, kMost); }), IsOk());
    EXPECT_EQ(Count("audit_client"), kMost + 1);
  }
  EXPECT_EQ(Count("audit_client WHERE client_id = 'mcp_stranger2_249'"), 1) << "the newest stay";
  EXPECT_EQ(Count("audit_client WHERE client_id = 'mcp_stranger2_0'"), 0);
  EXPECT_EQ(Newest("consent").client_name(), "In use");
}

TEST_P(AuditNamesTest, AClientThatSomebodyUsesIsNoStrangerAnyMore) {
  ASSERT_THAT(Append({Registered(kClient, "Claude", absl::Minutes(3))}), IsOk());
  audit::v1::Event consent = Event("consent", kAda, kClient, absl::Minutes(2));
  consent.set_client_name("Claude");
  ASSERT_THAT(Append({consent, Registered(kClient, "Claude 2", absl::Minutes(1))}), IsOk());
  EXPECT_EQ(Count("audit_client WHERE used = 1"), 1);
  EXPECT_EQ(Newest("consent").client_name(), "Claude 2");
}

TEST_P(AuditNamesTest, NamesOutliveTheEventsByTheLongestGrantAndThenGo) {
  ASSERT_THAT(Append({Login("Ada", "ada@example.com"), Registered(kClient, "Claude")}), IsOk());
  ASSERT_THAT(store().DeleteBefore(clock_.Now() + absl::Hours(24 * 30)), IsOk());
  EXPECT_EQ(Count("audit_event"), 0);
  EXPECT_EQ(Count("audit_person"), 1);
  ASSERT_THAT(store().DeleteBefore(clock_.Now() + absl::Hours(24 * 32)), IsOk());
  EXPECT_EQ(Count("audit_person"), 0);
  EXPECT_EQ(Count("audit_client"), 0);
}

}  // namespace
}  // namespace sallyport::registry
