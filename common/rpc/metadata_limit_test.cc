// SPDX-License-Identifier: Apache-2.0
// What a caller can do to a listener with the headers of a call, written byte by byte (RFC 9113, RFC 7541).
#include <atomic>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "common/listen.h"
#include "common/rpc/server.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "tests/testing/health_check.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsServing;

// RFC 7541 section 5.1.
std::string Number(size_t value, unsigned prefix_bits, unsigned first) {
  const size_t most = (size_t{1} << prefix_bits) - 1;
  std::string out;
  if (value < most) return {static_cast<char>(first | value)};
  out.push_back(static_cast<char>(first | most));
  for (value -= most; value >= 128; value >>= 7) out.push_back(static_cast<char>((value & 127) | 128));
  out.push_back(static_cast<char>(value));
  return out;
}
// Section 6.2: a literal field with a new name; `kept` adds it to the dynamic table.
std::string Field(const std::string& name, const std::string& value, bool kept = false) {
  return absl::StrCat(std::string(1, kept ? '\x40' : '\0'), Number(name.size(), 7, 0), name, Number(value.size(), 7, 0),
                      value);
}
// Section 6.1: the newest entry of the dynamic table.
std::string Newest() { return "\xbe"; }

std::string Frame(unsigned type, unsigned flags, unsigned stream, const std::string& payload) {
  std::string head(9, '\0');
  for (unsigned i = 0; i < 3; ++i) head[i] = static_cast<char>((payload.size() >> (16 - 8 * i)) & 255);
  head[3] = static_cast<char>(type);
  head[4] = static_cast<char>(flags);
  for (unsigned i = 0; i < 4; ++i) head[5 + i] = static_cast<char>((stream >> (24 - 8 * i)) & 255);
  return head + payload;
}

// HEADERS and CONTINUATION of a call without a body.
std::string Call(unsigned stream, const std::string& fields) {
  constexpr size_t kMost = 16'000;
  std::string out;
  for (size_t at = 0; at < fields.size(); at += kMost) {
    const bool first = at == 0;
    const bool last = at + kMost >= fields.size();
    out += Frame(first ? 1 : 9, (first ? 1u : 0u) | (last ? 4u : 0u), stream, fields.substr(at, kMost));
  }
  return out;
}

std::string Base(const std::string& scheme = "http", const std::string& te = "trailers") {
  return Field(":method", "POST") + Field(":scheme", scheme) + Field(":path", "/sallyport.authn.v1.Authn/GetKeys") +
         Field(":authority", "x") + Field("content-type", "application/grpc") + Field("te", te);
}

// Counts its calls, and answers with the metadata x-caller.
class Mirror final : public authn::v1::Authn::Service {
 public:
  explicit Mirror(std::atomic<int>& calls) : calls_(calls) {}
  grpc::Status GetKeys(grpc::ServerContext* context, const authn::v1::GetKeysRequest* /*request*/,
                       authn::v1::GetKeysResponse* response) override {
    ++calls_;
    for (const auto& [name, value] : context->client_metadata()) {
      if (name == "x-caller") response->set_jwks_json(std::string(value.data(), value.size()));
    }
    return grpc::Status::OK;
  }

 private:
  std::atomic<int>& calls_;
};

class MetadataLimitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    RpcServer::Options options;
    options.listen = "127.0.0.1:0";
    options.insecure_peer = "edge";
    ASSERT_OK_AND_ASSIGN(server_, RpcServer::Start(options, [this](const std::shared_ptr<const PeerIdentity>&) {
                           std::vector<std::unique_ptr<grpc::Service>> services;
                           services.push_back(std::make_unique<Mirror>(calls_));
                           return services;
                         }));
    server_->SetServing(true);
  }
  std::shared_ptr<grpc::Channel> Channel() {
    return *MakeChannel(absl::StrCat("127.0.0.1:", server_->port()), {}, "authn");
  }
  // True when the server ended the connection on which `frames` came.
  bool IsCutAfter(const std::string& frames) {
    const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return false;
    const timeval limit = {30, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    // The server's limit holds from the acknowledgement of its SETTINGS on.
    const std::string opening = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(4, 0, 0, "");
    (void)!send(fd.get(), opening.data(), opening.size(), MSG_NOSIGNAL);
    char buffer[4096];
    if (recv(fd.get(), buffer, sizeof(buffer), 0) <= 0) return false;
    const std::string rest = Frame(4, 1, 0, "") + frames;
    (void)!send(fd.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    for (;;) {
      const ssize_t n = recv(fd.get(), buffer, sizeof(buffer), 0);
      if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
      if (n < 0) return false;
    }
  }

  std::atomic<int> calls_ = 0;
  std::unique_ptr<RpcServer> server_;
};

// CVE-2023-1428: other releases of gRPC abort when one of these is followed by too much.
TEST_F(MetadataLimitTest, BadFieldsFollowedByTooMuchEndTheConnectionAndNotTheProcess) {
  const std::string too_much = Field("x", std::string(40'000, 'v'));
  for (const std::string& fields :
       {Base("http", "x"), Base("ftpx"), Base() + Field("grpclb_client_stats", "x"), Base()}) {
    EXPECT_TRUE(IsCutAfter(Call(1, fields + too_much)));
    EXPECT_TRUE(*IsServing(Channel()));
  }
  EXPECT_EQ(calls_, 0);
}

// CVE-2023-32731: other releases skip what follows in the frame and keep the connection, on which the two header tables
// then differ, so that a later call could have the fields of another one.
TEST_F(MetadataLimitTest, NoCallIsReadAfterOneThatWasTooLarge) {
  std::string large = Base() + Field("x-caller", std::string(3'000, 'a'), true);
  for (int i = 0; i < 12; ++i) large += Newest();
  large += Field("x-caller", "mallory", true);
  EXPECT_TRUE(IsCutAfter(Call(1, large) + Call(3, Base() + Newest())));
  EXPECT_EQ(calls_, 0);
}

// It would end the connection, which others share.
TEST_F(MetadataLimitTest, PassportThatIsTooLongIsCutBeforeItIsSent) {
  const auto channel = Channel();
  const auto stub = authn::v1::Authn::NewStub(channel);
  for (int i = 0; i < 20; ++i) {
    authn::v1::GetKeysResponse response;
    const auto context = MakeClientContext(absl::Seconds(30), std::string(i % 2 == 0 ? 40'000 : 100, 'p'));
    context->AddMetadata("x-caller", "ann");
    EXPECT_TRUE(stub->GetKeys(context.get(), {}, &response).ok());
  }
  EXPECT_EQ(calls_, 20);
}

}  // namespace
}  // namespace sallyport
