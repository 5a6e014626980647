// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/files.h"
#include "tests/testing/http_server.h"
#include "tests/testing/process.h"
#include "tools/cli/cli.h"
#include "tools/cli/credentials.h"

namespace sallyport::cli {

inline constexpr absl::Duration kHour = absl::Hours(1);

// A terminal, a home directory and a gateway that answers what a test tells it to.
class CliTest : public ::testing::Test {
 protected:
  CliTest()
      : home_(testing::MakeServerDirectory("cli-test")),
        gateway_([this](const testing::TestHttpServer::Request& request) { return Answer(request); }),
        terminal_{.in = in_,
                  .out = out_,
                  .err = err_,
                  .environment = [this](const char* name) { return environment_[name]; },
                  .now = [this] { return now_; },
                  .open_browser = [this](const std::string& url) { return browser_ && browser_(url); },
                  .ask_secret = [](const std::string&) -> absl::StatusOr<Secret> {
                    return absl::UnavailableError("no terminal");
                  }} {
    environment_["HOME"] = home_;
    environment_["SALLYPORT_URL"] = gateway_.origin();
  }
  ~CliTest() override { testing::RemoveTree(home_); }

  int Run(const std::vector<std::string>& arguments) { return cli::Run(arguments, terminal_); }

  void SignIn(absl::Duration left = kHour, const std::string& refresh_token = "") {
    Credentials credentials;
    credentials.url = gateway_.origin();
    Login& login = credentials.logins[gateway_.origin()];
    login.access_token = Secret(std::string("saved-token"));
    login.refresh_token = Secret(std::string(refresh_token));
    login.expires_at = now_ + left;
    ASSERT_TRUE(SaveCredentials(CredentialsFile(), credentials).ok());
  }
  std::string CredentialsFile() const { return home_ + "/.config/sallyport/credentials.json"; }
  std::string WriteHome(const std::string& name, const std::string& content) {
    const std::string path = home_ + "/" + name;
    EXPECT_TRUE(WriteFileAtomic(path, content).ok());
    return path;
  }

  virtual testing::TestHttpServer::Response Answer(const testing::TestHttpServer::Request& request) {
    requests_.push_back(request);
    const auto found = answers_.find(request.target);
    if (found == answers_.end()) return {.status = 404, .headers = {}, .body = R"({"error":"not_found"})", .raw = ""};
    return found->second;
  }
  void Reply(const std::string& target, const std::string& body, int status = 200) {
    answers_[target] = {.status = status, .headers = {{"Content-Type", "application/json"}}, .body = body, .raw = ""};
  }

  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  std::string home_;
  std::map<std::string, std::string> environment_;
  std::map<std::string, testing::TestHttpServer::Response> answers_;
  std::vector<testing::TestHttpServer::Request> requests_;
  std::function<bool(const std::string&)> browser_;
  std::istringstream in_;
  std::ostringstream out_;
  std::ostringstream err_;
  testing::TestHttpServer gateway_;
  Terminal terminal_;
};

}  // namespace sallyport::cli
