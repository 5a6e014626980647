// SPDX-License-Identifier: Apache-2.0
#include "services/authn/refusals.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/json_log.h"
#include "common/metrics.h"
#include "services/authn/authn_testing.h"
#include "services/authn/connectors.h"
#include "services/authn/errors.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

// What is logged while this lives.
class CapturedLog {
 public:
  CapturedLog() {
    EXPECT_EQ(pipe(pipe_), 0);
    SetLogDescriptor(pipe_[1]);
  }
  ~CapturedLog() { Close(); }
  // Lines of `event`, and no more from then on.
  std::vector<std::string> Lines(const std::string& event) {
    Close();
    std::string text;
    char buffer[4096];
    for (ssize_t size = 0; (size = read(pipe_[0], buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<size_t>(size));
    }
    close(pipe_[0]);
    std::vector<std::string> lines;
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      if (absl::StrContains(line, absl::StrCat("\"event\":\"", event, "\""))) {
        lines.emplace_back(line);
      }
    }
    return lines;
  }

 private:
  void Close() {
    if (pipe_[1] >= 0) {
      SetLogDescriptor(STDOUT_FILENO);
      close(pipe_[1]);
      pipe_[1] = -1;
    }
  }
  int pipe_[2] = {-1, -1};
};

double Count(const std::string& reason) {
  return MetricCounter("sallyport_authn_tokens_refused_total", "", {{"reason", reason}}).Value();
}

TEST(RefusalsTest, CountsByReasonFromZero) {
  Refusals refusals;
  EXPECT_THAT(SerializeMetrics(), HasSubstr("sallyport_authn_tokens_refused_total{reason=\"bad_signature\"}"));
  const double expired = Count("expired");
  const double other = Count("other");
  const double unknown = Count("unknown_key");
  refusals.Note(InvalidToken("expired"), "github", kNow);
  refusals.Note(InvalidToken("nobody-knows-this-word"), "github", kNow);
  refusals.Note(WithReason(absl::UnavailableError(""), "unknown_key"), "github", kNow);
  EXPECT_EQ(Count("expired"), expired + 1);
  EXPECT_EQ(Count("other"), other + 1);
  EXPECT_EQ(Count("unknown_key"), unknown + 1);
  // Neither success nor an outage is a refused token.
  for (const absl::Status& status :
       {absl::OkStatus(), KeysUnavailable("down"), absl::Status(absl::PermissionDeniedError("no"))}) {
    refusals.Note(status, "github", kNow);
  }
  EXPECT_EQ(Count("other"), other + 1);
}

TEST(RefusalsTest, AFloodOfOneReasonIsFewLinesAndHidesNoOther) {
  Refusals refusals;
  CapturedLog log;
  for (int i = 0; i < 1000; ++i) {
    refusals.Note(InvalidToken("malformed_token"), "github", kNow);
  }
  refusals.Note(InvalidToken("wrong_audience"), "github", kNow);
  refusals.Note(InvalidToken("malformed_token"), "github", kNow + absl::Seconds(5));
  const std::vector<std::string> lines = log.Lines("token_refused");
  ASSERT_THAT(lines, SizeIs(12));
  EXPECT_THAT(lines[10], HasSubstr(R"("reason":"wrong_audience")"));
  EXPECT_THAT(lines[11], HasSubstr(R"("unlogged":990)"));
}

TEST(RefusalsTest, AForeignIssuerIsLoggedWithBothStringsAndTheRemedy) {
  TestIssuer idp("https://idp.example/tenant/");
  FakeFetcher fetcher;
  JwksCache jwks(fetcher);
  FakeVaultClient vault;
  google::protobuf::RepeatedPtrField<config::v1::Connector> config;
  config.Add()->set_id("corp");
  config[0].mutable_oidc()->set_issuer("https://idp.example/tenant");
  config[0].mutable_oidc()->set_client_id("client");
  nlohmann::json discovery = nlohmann::json::parse(idp.Discovery());
  discovery["issuer"] = "https://idp.example/tenant";
  fetcher.Serve("https://idp.example/tenant/.well-known/openid-configuration", DumpJson(discovery));
  fetcher.Serve("https://idp.example/tenant//jwks", idp.Jwks());
  ASSERT_OK_AND_ASSIGN(const auto connectors, Connectors::Create(config, jwks, vault));
  CapturedLog log;

  const absl::Status refused =
      connectors->Find("corp")
          ->VerifyIdToken(idp.Token(kNow, {{"aud", "client"}, {"nonce", "n"}}, "JWT"), {"n", ""}, kNow)
          .status();

  EXPECT_EQ(ReasonOf(refused), "wrong_issuer");
  const std::vector<std::string> lines = log.Lines("issuer_not_expected");
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], HasSubstr(R"("said":"https://idp.example/tenant/")"));
  EXPECT_THAT(lines[0], HasSubstr(R"("expected":"https://idp.example/tenant")"));
  EXPECT_THAT(lines[0], HasSubstr("oidc.issuer"));
}

TEST(RefusalsTest, WhatAStrangerWroteIsShortenedAndOneLine) {
  CapturedLog log;
  const std::string said = absl::StrCat("https://x.example/\n", std::string(100'000, 'a'));
  LogForeignIssuer(
      {.where = "token", .subject = "github", .said = said, .expected = {"https://idp.example"}, .remedy = "-"},
      kNow + absl::Hours(1));
  const std::vector<std::string> lines = log.Lines("issuer_not_expected");
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_LT(lines[0].size(), 600U);
  EXPECT_THAT(lines[0], HasSubstr("example/\\n"));
}

}  // namespace
}  // namespace sallyport::authn
