// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/registered_clients.h"

#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/files.h"
#include "services/authn/authn_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kSecret[] = "0123456789abcdef0123456789abcdef";

class RegisteredClientsTest : public ::testing::Test {
 protected:
  using Config = google::protobuf::RepeatedPtrField<config::v1::RegisteredClient>;

  std::string SecretFile(const std::string& content) {
    const std::string path = absl::StrCat(directory_.path(), "/secret-", ++files_);
    EXPECT_THAT(WriteFileAtomic(path, content), IsOk());
    return path;
  }
  Config One() {
    Config config;
    auto* client = config.Add();
    client->set_client_id("chatbot");
    client->set_client_secret_file(SecretFile(absl::StrCat(kSecret, "\n")));
    client->add_redirect_uris("https://chat.example.com/cb");
    client->add_approved_servers("github");
    return config;
  }
  static std::vector<std::string> Fields(const Config& config) {
    std::vector<std::string> fields;
    for (const auto& violation : DetailOf(ValidateRegisteredClients(config)).violations) {
      fields.push_back(violation.field);
    }
    return fields;
  }

  TempDirectory directory_;
  int files_ = 0;
};

TEST_F(RegisteredClientsTest, HaveTheHashOfTheirSecretAlone) {
  Config config = One();
  ASSERT_OK_AND_ASSIGN(const std::vector<Client> clients, ReadRegisteredClients(config));
  ASSERT_THAT(clients, SizeIs(1));
  EXPECT_EQ(clients[0].id, "chatbot");
  EXPECT_EQ(clients[0].metadata.client_name, "chatbot");
  EXPECT_EQ(clients[0].secret_hash, ClientSecretHash(kSecret));
  EXPECT_THAT(clients[0].secret_hash, Not(HasSubstr(kSecret)));
  EXPECT_TRUE(clients[0].IsApprovedFor("github"));
  EXPECT_FALSE(clients[0].IsApprovedFor("git"));
  EXPECT_TRUE(clients[0].AllowsRedirect("https://chat.example.com/cb"));
  EXPECT_FALSE(clients[0].AllowsRedirect("https://chat.example.com/cb/"));
  config[0].set_display_name("Chat Platform");
  ASSERT_OK_AND_ASSIGN(const std::vector<Client> named, ReadRegisteredClients(config));
  EXPECT_EQ(named[0].metadata.client_name, "Chat Platform");
}

TEST_F(RegisteredClientsTest, RefusalsNameTheField) {
  const auto with = [this](const std::function<void(config::v1::RegisteredClient&)>& change) {
    Config config = One();
    change(config[0]);
    return Fields(config);
  };
  for (const char* id : {"", "Chatbot", "chat_bot", "clt_x", "https://chat.example.com", "sallyport-cli"}) {
    EXPECT_THAT(with([&](auto& client) { client.set_client_id(id); }), ElementsAre("clients[0].clientId")) << id;
  }
  EXPECT_THAT(with([](auto& client) { client.set_display_name("a\nb"); }), ElementsAre("clients[0].displayName"));
  EXPECT_THAT(with([](auto& client) { client.set_display_name(std::string(81, 'a')); }),
              ElementsAre("clients[0].displayName"));
  EXPECT_THAT(with([](auto& client) { client.clear_client_secret_file(); }),
              ElementsAre("clients[0].clientSecretFile"));
  EXPECT_THAT(with([](auto& client) { client.set_client_secret_file("/none"); }),
              ElementsAre("clients[0].clientSecretFile"));
  const std::string long_enough(40, 'a');
  const std::vector<std::string> secrets = {std::string(31, 'a'), std::string(513, 'a'), long_enough + "\ttab",
                                            long_enough + "\xc3\xa9", long_enough + "\nsecond"};
  for (const std::string& secret : secrets) {
    EXPECT_THAT(with([&](auto& client) { client.set_client_secret_file(SecretFile(secret)); }),
                ElementsAre("clients[0].clientSecretFile"))
        << secret;
  }
  EXPECT_THAT(with([](auto& client) { client.clear_redirect_uris(); }), ElementsAre("clients[0].redirectUris"));
  for (const char* uri :
       {"", "chat", "http://chat.example.com/cb", "http://127.0.0.1/cb", "cursor://x/cb", "https://localhost/cb",
        "https://vscode.dev/redirect", "https://chat.example.com/cb#x", "https://*.example.com/cb"}) {
    EXPECT_THAT(with([&](auto& client) { client.add_redirect_uris(uri); }), ElementsAre("clients[0].redirectUris[1]"))
        << uri;
  }
  EXPECT_THAT(with([](auto& client) { client.add_approved_servers("Git Hub"); }),
              ElementsAre("clients[0].approvedServers[1]"));
  Config twice = One();
  *twice.Add() = twice[0];
  EXPECT_THAT(Fields(twice), ElementsAre("clients[1].clientId"));
  EXPECT_THAT(Fields({}), ::testing::IsEmpty());
}

TEST_F(RegisteredClientsTest, NoRefusalRepeatsTheSecret) {
  Config config = One();
  config[0].set_client_secret_file(SecretFile("too-short-secret"));
  EXPECT_THAT(std::string(ValidateRegisteredClients(config).message()), Not(HasSubstr("too-short-secret")));
}

}  // namespace
}  // namespace sallyport::authn::web
