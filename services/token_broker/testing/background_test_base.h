// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/audit/segment.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "services/token_broker/background.h"
#include "services/token_broker/ending_apps.h"
#include "services/token_broker/endings.h"
#include "services/token_broker/http_token_endpoint.h"
#include "services/token_broker/revoker.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/test_certs.h"

namespace sallyport::token_broker::testing {

// A provider that notes which tokens it is asked about, and a clock that stands still. What lies under /up/ always
// answers, with a token; app "up" has its endpoints there.
class RevokingTestBase : public BrokerTestBase {
 protected:
  static constexpr char kUp[] = "app_up";

  RevokingTestBase() : BrokerTestBase(clock_for_all_) {
    registry::v1::App* up = peers_.registry.AddApp();
    *up = *app_;
    up->set_uid(kUp);
    up->set_slug("up");
    up->set_token_url(provider_.Url("/up/token"));
    up->set_revocation_url(provider_.Url("/up/revoke"));
    provider_.SetHandler([this](const HttpProvider::Request& request) {
      MutexLock lock(mu_);
      const auto token = request.form.find("token");
      asked_.push_back(absl::StrCat(request.path, " ", token == request.form.end() ? "" : token->second));
      return absl::StartsWith(request.path, "/up/") ? up_ : answer_;
    });
  }
  void Answer(int status, const std::string& body = "") {
    MutexLock lock(mu_);
    answer_ = {status, body, "application/json", ""};
  }
  std::vector<std::string> asked() {
    MutexLock lock(mu_);
    return asked_;
  }
  int CountAsked(const std::string& path) {
    const std::vector<std::string> all = asked();
    return static_cast<int>(std::count_if(all.begin(), all.end(),
                                          [&](const std::string& one) { return absl::StartsWith(one, path + " "); }));
  }
  // As a link puts it, with refresh token "rt-of-<subject>" and tokens that have ended; due from now on.
  void PutDue(const std::string& subject, const std::string& connection) {
    PutLinked(subject, connection, "rt-of-" + subject);
    MakeDue(subject, connection, "OK");
  }
  // As a link to either app puts it.
  void PutLinked(const std::string& subject, const std::string& connection, const std::string& refresh_token) {
    const std::string origins = absl::StrCat(OriginOf(provider_.Url("/")), " ", OriginOf(provider_.Url("/")));
    PutConnection(subject, connection, absl::Hours(2), absl::Hours(1), refresh_token, {{kBoundTo, origins}});
  }
  void MakeDue(const std::string& subject, const std::string& connection, const std::string& state) {
    vault::v1::PutRequest put;
    *put.mutable_record() = ConnectionRecord(subject, connection);
    put.set_payload(peers_.vault.Head(put.record()));
    put.set_keep_generation(true);
    *put.mutable_labels() = peers_.vault.MetadataOf(put.record()).labels();
    *put.mutable_next_at() = ToTimestamp(clock_.Now());
    put.set_state(state);
    EXPECT_TRUE(peers_.vault.Put(put, PassportOf(subject)).ok());
  }
  static std::string PassportOf(const std::string& subject) { return "passport-of:" + subject; }
  std::vector<vault::v1::RecordMetadata> Owed() { return peers_.vault.Revocations(); }
  bool IsThere(const ConnectionKey& key) {
    return !peers_.vault.Head(ConnectionRecord(key.subject, key.connection)).empty();
  }

  FakeClock clock_for_all_{absl::FromUnixSeconds(1'700'000'000)};
  Mutex mu_;
  HttpProvider::Response answer_ = {200, "", "application/json", ""};
  const HttpProvider::Response up_ = {
      200, R"({"access_token":"at1","refresh_token":"rt1","token_type":"bearer","expires_in":3600})"};
  std::vector<std::string> asked_;
};

// The parts that end connections, over the same peers, with an audit that can be read.
class BackgroundTestBase : public RevokingTestBase {
 protected:
  void SetUp() override {
    RevokingTestBase::SetUp();
    HttpClient::Options options;
    options.policy = policy_;
    options.gate.failures_to_open = 1'000'000;  // Both apps are of one origin here.
    options.gate.max_in_flight = 64;
    http_ = *HttpClient::Create(std::move(options));
    endpoint_ = std::make_unique<HttpTokenEndpoint>(*http_, clock_);
    secrets_ = std::make_unique<SecretReader>(peers_.vault, clock_);
    providers_ = std::make_unique<Providers>(peers_.Channel(), *http_, policy_, *secrets_, runner_, clock_);
    cache_ = std::make_unique<TokenCache>(peers_.vault, nullptr, clock_);
    refresher_ =
        std::make_unique<Refresher>(peers_.vault, *endpoint_, cache_.get(), clock_, Refresher::Options{}, nullptr);
    control_ = std::make_unique<ControlStream>(peers_.Channel(), clock_);
    control_->Start();
    ASSERT_TRUE(control_->WaitForSnapshot(absl::Seconds(10)));
    connections_ =
        std::make_unique<Connections>(peers_.vault, *cache_, *refresher_, *providers_, control_.get(), clock_);
    invalidations_ = std::make_unique<Invalidations>(peers_.Channel(), *cache_, runner_);
    AuditSegments::Options auditing;
    auditing.directory = audit_directory_.path() + "/audit";
    auditing.source = "token_broker/test";
    segments_ = *AuditSegments::Open(auditing, clock_);
    audit_ = std::make_unique<AuditLog>(segments_.get());
    revocations_ = std::make_unique<Revocations>(peers_.vault, *control_, *providers_, *endpoint_, *audit_, clock_);
    revoker_ = std::make_unique<Revoker>(peers_.vault, *invalidations_, *revocations_, clock_);
    MakeBackground(absl::InfiniteDuration());
  }
  void MakeBackground(absl::Duration idle_revoke_after) {
    endings_.reset();
    ending_apps_.reset();
    background_.reset();
    renewals_ = std::make_unique<Renewals>(peers_.vault, *connections_, *refresher_, *invalidations_, *audit_, clock_,
                                           idle_revoke_after);
    background_ =
        std::make_unique<Background>(peers_.vault, *renewals_, *revocations_, clock_, /*interval=*/absl::Hours(1));
    ending_apps_ = std::make_unique<EndingApps>(peers_.Channel(), *control_, peers_.vault, *invalidations_,
                                                background_->revocations(), *audit_, clock_);
    endings_ = std::make_unique<Endings>(*control_, peers_.vault, *cache_, *invalidations_, ended_subjects_,
                                         *revocations_, background_->revocations(), *audit_, clock_);
  }
  void TearDown() override {
    refresher_->Shutdown(absl::Seconds(10));
    ending_apps_->Stop();
    background_->Stop();
    control_->Stop();
    runner_.Stop();
    RevokingTestBase::TearDown();
  }
  // Makes revocations of connections of `count` users of the app, the oldest first; refresh tokens "rt-<prefix><n>".
  void Owe(const std::string& prefix, int count, const std::string& connection = kApp) {
    for (int i = 0; i < count; ++i) {
      const std::string subject = absl::StrCat("corp:", prefix, i);
      PutLinked(subject, connection, absl::StrCat("rt-", prefix, i));
      vault::v1::OweRevocationRequest owe;
      *owe.mutable_record() = ConnectionRecord(subject, connection);
      EXPECT_TRUE(peers_.vault.OweRevocation(owe, PassportOf(subject)).ok());
    }
    clock_for_all_.Advance(absl::Seconds(10));  // For so long they are left to whom has ended the connections.
  }
  absl::Time NextAt(const std::string& subject, const std::string& connection = kApp) {
    return FromTimestamp(peers_.vault.MetadataOf(ConnectionRecord(subject, connection)).next_at());
  }
  // What was recorded, as "type rule subject".
  std::vector<std::string> Audited() {
    std::vector<std::string> entries;
    for (const audit::v1::Event& event : Events()) {
      entries.push_back(absl::StrCat(event.type(), " ", event.rule(), " ", event.subject()));
    }
    return entries;
  }
  std::vector<audit::v1::Event> Events() {
    std::vector<audit::v1::Event> events;
    for (const auto& file : std::filesystem::directory_iterator(segments_->directory())) {
      if (file.path().extension() != ".seg") continue;
      const auto reader = AuditSegmentReader::Open(file.path().string());
      if (!reader.ok()) continue;
      std::string bytes;
      while ((*reader)->Next(&bytes).ok()) {
        audit::v1::Event event;
        EXPECT_TRUE(event.ParseFromString(bytes));
        events.push_back(std::move(event));
      }
    }
    return events;
  }
  // Until the control stream says so; false after a minute.
  template <typename Predicate>
  bool Await(Predicate predicate) {
    for (int i = 0; i < 6'000; ++i) {
      if (predicate()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  TaskRunner runner_{2, 100};
  const EgressPolicy policy_{{*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback};
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<HttpTokenEndpoint> endpoint_;
  std::unique_ptr<SecretReader> secrets_;
  std::unique_ptr<Providers> providers_;
  std::unique_ptr<TokenCache> cache_;
  std::unique_ptr<Refresher> refresher_;
  std::unique_ptr<ControlStream> control_;
  std::unique_ptr<Connections> connections_;
  std::unique_ptr<Invalidations> invalidations_;
  EndedSubjects ended_subjects_{clock_};
  ::sallyport::testing::TempDirectory audit_directory_;
  std::unique_ptr<AuditSegments> segments_;
  std::unique_ptr<AuditLog> audit_;
  std::unique_ptr<Revocations> revocations_;
  std::unique_ptr<Revoker> revoker_;
  std::unique_ptr<Renewals> renewals_;
  std::unique_ptr<Background> background_;
  std::unique_ptr<EndingApps> ending_apps_;
  std::unique_ptr<Endings> endings_;
};

}  // namespace sallyport::token_broker::testing
