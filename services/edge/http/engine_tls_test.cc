// SPDX-License-Identifier: Apache-2.0
// TLS on both sides: the engine in front of a second engine that speaks https.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "services/edge/http/engine_test_support.h"
#include "services/edge/http/tls_context.h"
#include "tests/testing/connect_proxy.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::BodyOf;
using testing::EngineTest;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::Post;
using testing::RawSocket;
using testing::StatusOf;

// A self-signed certificate, in files.
struct TestCertificate {
  TestCertificate(const std::filesystem::path& directory, const std::string& name, const std::string& alternative) {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    X509_NAME* subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1,
                               -1, 0);
    X509_set_issuer_name(certificate, subject);
    for (const auto& [nid, value] : {std::pair{NID_subject_alt_name, alternative},
                                     std::pair{NID_basic_constraints, std::string("critical,CA:TRUE")}}) {
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
      X509_add_ext(certificate, extension, -1);
      X509_EXTENSION_free(extension);
    }
    X509_sign(certificate, key, EVP_sha256());
    certificate_file = directory / "cert.pem";
    key_file = directory / "key.pem";
    BIO* out = BIO_new_file(certificate_file.c_str(), "w");
    PEM_write_bio_X509(out, certificate);
    BIO_free(out);
    out = BIO_new_file(key_file.c_str(), "w");
    PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
    BIO_free(out);
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  std::string certificate_file;
  std::string key_file;
};

std::string Contents(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// A blocking TLS client.
class TlsClient {
 public:
  explicit TlsClient(uint16_t port, int highest = TLS1_3_VERSION, const std::string& alpn = "")
      : socket_(RawSocket::Connect(port)) {
    context_ = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context_, highest);
    SSL_CTX_set_security_level(context_, 0);
    ssl_ = SSL_new(context_);
    if (!alpn.empty()) {
      SSL_set_alpn_protos(ssl_, reinterpret_cast<const unsigned char*>(alpn.data()),
                          static_cast<unsigned int>(alpn.size()));
    }
    SSL_set_fd(ssl_, socket_->fd());
    connected = SSL_connect(ssl_) == 1;
    ERR_clear_error();
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  void Send(std::string_view text) { SSL_write(ssl_, text.data(), static_cast<int>(text.size())); }
  std::string ReadSize(size_t size) {
    std::string text;
    char bytes[16384];
    int got = 0;
    while (text.size() < size && (got = SSL_read(ssl_, bytes, sizeof(bytes))) > 0) {
      text.append(bytes, static_cast<size_t>(got));
    }
    return text;
  }
  std::string ReadToEnd() { return ReadSize(SIZE_MAX); }
  std::string PeerName() {
    char name[64] = {};
    X509* certificate = SSL_get1_peer_certificate(ssl_);
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof(name));
    X509_free(certificate);
    return name;
  }
  SSL* ssl() { return ssl_; }
  bool connected = false;

 private:
  std::unique_ptr<RawSocket> socket_;
  SSL_CTX* context_;
  SSL* ssl_;
};

// An https upstream that asks for a certificate, and answers with the name in the one it was shown, or "none".
class AskingUpstream {
 public:
  AskingUpstream(const TestCertificate& own, const std::string& client_authorities, int verify,
                 int highest = TLS1_3_VERSION)
      : context_(SSL_CTX_new(TLS_server_method())) {
    SSL_CTX_set_max_proto_version(context_, highest);
    SSL_CTX_use_certificate_file(context_, own.certificate_file.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context_, own.key_file.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_load_verify_file(context_, client_authorities.c_str());
    SSL_CTX_set_verify(context_, verify, nullptr);
    const unsigned char name = 1;
    SSL_CTX_set_session_id_context(context_, &name, 1);
    upstream_ = std::make_unique<testing::FakeUpstream>([this](RawSocket& socket) { Serve(socket); });
  }
  ~AskingUpstream() {
    upstream_.reset();
    SSL_CTX_free(context_);
  }
  uint16_t port() const { return upstream_->port(); }
  std::atomic<int> handshakes{0};
  std::atomic<int> resumed{0};

 private:
  void Serve(RawSocket& socket) {
    SSL* ssl = SSL_new(context_);
    SSL_set_fd(ssl, socket.fd());
    if (SSL_accept(ssl) == 1) {
      ++handshakes;
      resumed += SSL_session_reused(ssl);
      Answer(ssl);
    } else {
      socket.ShutdownSend();
      socket.ReadToEnd();  // A reset could overtake the alert.
    }
    ERR_clear_error();
    SSL_free(ssl);
  }
  static void Answer(SSL* ssl) {
    char name[64] = "none";
    if (X509* shown = SSL_get1_peer_certificate(ssl); shown != nullptr) {
      X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, name, sizeof(name));
      X509_free(shown);
    }
    const std::string answer = testing::JsonResponse(name);
    std::string request;
    char bytes[4096];
    int got = 0;
    while ((got = SSL_read(ssl, bytes, sizeof(bytes))) > 0) {
      request.append(bytes, static_cast<size_t>(got));
      if (!request.ends_with("\r\n\r\n{}")) continue;
      request.clear();
      SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
    }
  }

  SSL_CTX* context_;
  std::unique_ptr<testing::FakeUpstream> upstream_;
};

class EngineTlsTest : public EngineTest {
 protected:
  EngineTlsTest() {
    directory_ = std::filesystem::temp_directory_path() / ("edge_tls_" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_);
  }
  ~EngineTlsTest() override { std::filesystem::remove_all(directory_); }

  void UseCertificate(const std::string& name) {
    const TestCertificate made(directory_, name, "DNS:gw.example,DNS:localhost");
    options.certificate = made.certificate_file;
    options.private_key = made.key_file;
  }
  // An https upstream: an engine that answers by itself. Returns what to trust.
  std::string StartTlsUpstream(const std::string& alternative, const std::string& answer) {
    const std::filesystem::path directory = directory_ / "up";
    std::filesystem::create_directories(directory);
    const TestCertificate made(directory, "upstream", alternative);
    EngineOptions upstream_options{.listen = "127.0.0.1:0"};
    upstream_options.certificate = made.certificate_file;
    upstream_options.private_key = made.key_file;
    upstream_gateway_.on_request = [answer](Exchange& exchange) { exchange.Respond(200, {}, answer); };
    auto started = Engine::Start(upstream_options, upstream_gateway_);
    EXPECT_THAT(started, IsOk());
    upstream_engine_ = *std::move(started);
    return Contents(made.certificate_file);
  }
  void PointAt(const std::string& host, const std::string& ca_pem) {
    auto target = ParseUpstreamUrl("https://" + host + ":" + std::to_string(upstream_engine_->port()) + "/");
    ASSERT_THAT(target, IsOk());
    gateway.target = *std::move(target);
    auto tls = ClientTls::Make({.ca_pem = ca_pem, .system_authorities = false});
    ASSERT_THAT(tls, IsOk());
    gateway.target.client_tls = *tls;
  }

  TestCertificate MakeIn(const std::string& directory, const std::string& name) {
    std::filesystem::create_directories(directory_ / directory);
    return TestCertificate(directory_ / directory, name, "DNS:localhost");
  }
  static std::shared_ptr<const ClientCertificate> Identity(const TestCertificate& made) {
    auto certificate = ClientCertificate::FromPem(Contents(made.certificate_file) + Contents(made.key_file));
    EXPECT_THAT(certificate, IsOk());
    return certificate.ok() ? *certificate : nullptr;
  }
  void PointAt(const AskingUpstream& asking, const TestCertificate& trusted,
               std::shared_ptr<const ClientCertificate> shown, const std::string& pool_key,
               std::shared_ptr<const ClientTls> tls = nullptr) {
    gateway.target = *ParseUpstreamUrl("https://localhost:" + std::to_string(asking.port()) + "/");
    gateway.target.pool_key = pool_key;
    gateway.target.client_tls =
        tls != nullptr ? std::move(tls)
                       : *ClientTls::Make({.ca_pem = Contents(trusted.certificate_file), .system_authorities = false});
    gateway.target.client_certificate = std::move(shown);
  }

  std::filesystem::path directory_;
  testing::TestGateway upstream_gateway_;
  std::unique_ptr<Engine> upstream_engine_;
};

TEST_F(EngineTlsTest, ServesTlsWithKeepAliveAndLargeBodies) {
  UseCertificate("one");
  gateway.on_request = [](Exchange& exchange) { exchange.Respond(200, {}, exchange.body()); };
  StartEngine();
  TlsClient client(engine->port());
  ASSERT_TRUE(client.connected);
  const std::string body(2 << 20, 'x');
  client.Send(Post(body));
  const std::string response = client.ReadSize(body.size() + 1);
  EXPECT_EQ(StatusOf(response), 200);
  client.Send("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n");
  const std::string rest = response + client.ReadToEnd();
  EXPECT_EQ(rest.find(body), rest.find("\r\n\r\n") + 4);
  EXPECT_NE(rest.find("HTTP/1.1 200 OK", body.size()), std::string::npos);
}

TEST_F(EngineTlsTest, RefusesOldVersionsAndOtherProtocols) {
  UseCertificate("one");
  StartEngine();
  EXPECT_FALSE(TlsClient(engine->port(), TLS1_1_VERSION).connected);
  EXPECT_FALSE(TlsClient(engine->port(), TLS1_3_VERSION, "\x02h2").connected);
  EXPECT_TRUE(TlsClient(engine->port(), TLS1_2_VERSION, "\x02h2\x08http/1.1").connected);
  const auto plain = Connect();
  plain->Send("GET / HTTP/1.1\r\nHost: gw\r\n\r\n");
  EXPECT_EQ(plain->ReadToEnd().find("HTTP/1.1"), std::string::npos);
}

TEST_F(EngineTlsTest, ASilentHandshakeIsClosed) {
  UseCertificate("one");
  options.limits.tls_handshake = std::chrono::milliseconds(200);
  StartEngine();
  const auto client = Connect();
  EXPECT_EQ(client->ReadToEnd(), "");
  EXPECT_TRUE(client->ended());
}

TEST_F(EngineTlsTest, ReloadsAChangedCertificateAndKeepsTheOldOneIfItIsBroken) {
  UseCertificate("one");
  options.certificate_check = std::chrono::milliseconds(100);
  std::atomic<int> reports{0};
  options.log = [&](std::string_view) { ++reports; };
  StartEngine();
  EXPECT_EQ(TlsClient(engine->port()).PeerName(), "one");
  std::ofstream(options.certificate) << "broken";
  ASSERT_TRUE(Eventually([&] { return reports > 0; }));
  EXPECT_EQ(TlsClient(engine->port()).PeerName(), "one");
  UseCertificate("two");
  EXPECT_TRUE(Eventually([&] { return TlsClient(engine->port()).PeerName() == "two"; }));
}

TEST_F(EngineTlsTest, BadCertificatesStopTheStart) {
  UseCertificate("one");
  options.private_key = options.certificate;
  EXPECT_THAT(Engine::Start(options, gateway), StatusIs(absl::StatusCode::kInvalidArgument, "private_key"));
  options.certificate = "/nonexistent";
  EXPECT_THAT(Engine::Start(options, gateway), StatusIs(absl::StatusCode::kInvalidArgument, "certificate"));
}

TEST_F(EngineTlsTest, ForwardsToAVerifiedHttpsUpstream) {
  const std::string large(300'000, 'y');
  PointAt("localhost", StartTlsUpstream("DNS:localhost", large));
  StartEngine();
  const auto client = Connect();
  for (int i = 0; i < 3; ++i) {
    client->Send(Post(std::string(100'000, 'x')));
    EXPECT_EQ(BodyOf(client->ReadMessage()), large);
  }
  EXPECT_EQ(engine->counters().upstream_reuses, 2u);
}

TEST_F(EngineTlsTest, AddressesAreVerifiedToo) {
  PointAt("127.0.0.1", StartTlsUpstream("IP:127.0.0.1", "ok"));
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "ok");
}

TEST_F(EngineTlsTest, AnotherNameOrAnUnknownAuthorityIsRefused) {
  const std::string trusted = StartTlsUpstream("DNS:other.example", "secret");
  PointAt("localhost", trusted);
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(BodyOf(client->ReadMessage()), HasSubstr("upstream_tls"));

  StartTlsUpstream("DNS:localhost", "secret");
  PointAt("localhost", trusted);
  client->Send(Post("{}"));
  EXPECT_THAT(BodyOf(client->ReadMessage()), HasSubstr("upstream_tls"));
  EXPECT_TRUE(upstream_gateway_.done().empty());
}

TEST_F(EngineTlsTest, TlsGoesThroughTheTunnelToTheUpstreamsName) {
  // The name does not resolve here: only the proxy knows it.
  const std::string trusted = StartTlsUpstream("DNS:far.example", "ok");
  ::sallyport::testing::ConnectProxy proxy;
  options.proxy =
      std::make_shared<const UpstreamProxy>(UpstreamProxy{"127.0.0.1", proxy.port(), Secret::Copy("Basic eA==")});
  PointAt("far.example", trusted);
  StartEngine();
  const auto client = Connect();
  for (int i = 0; i < 3; ++i) {
    client->Send(Post(R"({"id":"sealed"})"));
    EXPECT_EQ(BodyOf(client->ReadMessage()), "ok");
  }
  EXPECT_EQ(proxy.heads().size(), 1u);
  EXPECT_THAT(proxy.passed(), ::testing::Not(HasSubstr("sealed")));
  // A proxy that leads to somebody else.
  PointAt("other.example", trusted);
  client->Send(Post("{}"));
  EXPECT_THAT(BodyOf(client->ReadMessage()), HasSubstr("upstream_tls"));
  EXPECT_EQ(upstream_gateway_.done().size(), 3u);
}

TEST_F(EngineTlsTest, BadAuthoritiesAreRefused) {
  EXPECT_THAT(ClientTls::Make({.ca_pem = "nothing"}), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(EngineTlsTest, BadClientCertificatesAreRefused) {
  const TestCertificate one = MakeIn("one", "one");
  const TestCertificate two = MakeIn("two", "two");
  const std::string leaf = Contents(one.certificate_file);
  for (const std::string& pem :
       {std::string(), std::string("nothing"), leaf, Contents(one.key_file), leaf + Contents(two.key_file),
        Contents(two.certificate_file) + leaf + Contents(one.key_file)}) {
    EXPECT_THAT(ClientCertificate::FromPem(pem), StatusIs(absl::StatusCode::kInvalidArgument)) << pem;
  }
}

TEST_F(EngineTlsTest, ShowsItsCertificateToAnUpstreamThatAsks) {
  const TestCertificate server = MakeIn("server", "server");
  const TestCertificate client = MakeIn("client", "client");
  StartEngine();
  const auto caller = Connect();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    AskingUpstream asking(server, client.certificate_file, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, version);
    PointAt(asking, server, Identity(client), "a/" + std::to_string(version));
    for (int i = 0; i < 2; ++i) {
      caller->Send(Post("{}"));
      EXPECT_EQ(BodyOf(caller->ReadMessage()), "client");
    }
    EXPECT_EQ(asking.handshakes, 1);
  }
}

TEST_F(EngineTlsTest, WithoutACertificateNoneIsShown) {
  const TestCertificate server = MakeIn("server", "server");
  AskingUpstream asking(server, server.certificate_file, SSL_VERIFY_PEER);
  PointAt(asking, server, nullptr, "a");
  StartEngine();
  const auto caller = Connect();
  caller->Send(Post("{}"));
  EXPECT_EQ(BodyOf(caller->ReadMessage()), "none");
}

TEST_F(EngineTlsTest, ARefusedOrMissingCertificateIsAFailureOfTls) {
  const TestCertificate server = MakeIn("server", "server");
  const TestCertificate known = MakeIn("known", "known");
  const TestCertificate stranger = MakeIn("stranger", "stranger");
  StartEngine();
  const auto caller = Connect();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    AskingUpstream asking(server, known.certificate_file, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, version);
    for (const auto& shown : {Identity(stranger), std::shared_ptr<const ClientCertificate>()}) {
      PointAt(asking, server, shown, "a");
      caller->Send(Post("{}"));
      EXPECT_THAT(BodyOf(caller->ReadMessage()), HasSubstr("upstream_tls")) << version;
    }
    EXPECT_EQ(asking.handshakes, 0);
  }
}

TEST_F(EngineTlsTest, NeitherConnectionNorSessionIsSharedBetweenCertificates) {
  const TestCertificate server = MakeIn("server", "server");
  const TestCertificate one = MakeIn("one", "one");
  const TestCertificate two = MakeIn("two", "two");
  const std::string both = directory_ / "both.pem";
  std::ofstream(both) << Contents(one.certificate_file) << Contents(two.certificate_file);
  AskingUpstream asking(server, both, SSL_VERIFY_PEER);
  const auto first = Identity(one);
  const auto second = Identity(two);
  // As one server has it, whose certificate is replaced.
  const std::shared_ptr<const ClientTls> tls =
      *ClientTls::Make({.ca_pem = Contents(server.certificate_file), .system_authorities = false});
  StartEngine();
  const auto caller = Connect();
  const auto call = [&](const std::shared_ptr<const ClientCertificate>& shown, const std::string& key) {
    PointAt(asking, server, shown, key, tls);
    caller->Send(Post("{}"));
    return BodyOf(caller->ReadMessage());
  };
  EXPECT_EQ(call(first, "a/1"), "one");
  EXPECT_EQ(call(second, "a/2"), "two");
  EXPECT_EQ(call(nullptr, "a/3"), "none");
  EXPECT_EQ(call(first, "a/1"), "one");
  EXPECT_EQ(asking.handshakes, 3);
  EXPECT_EQ(asking.resumed, 0);
}

TEST_F(EngineTlsTest, AuthoritiesOfOneTargetVouchForNoOther) {
  const TestCertificate server = MakeIn("server", "server");
  const TestCertificate other = MakeIn("other", "other");
  AskingUpstream asking(server, server.certificate_file, SSL_VERIFY_NONE);
  PointAt(asking, other, nullptr, "a");
  StartEngine();
  const auto caller = Connect();
  caller->Send(Post("{}"));
  EXPECT_THAT(BodyOf(caller->ReadMessage()), HasSubstr("upstream_tls"));
}

}  // namespace
}  // namespace sallyport::edge
