// SPDX-License-Identifier: Apache-2.0
#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/crypto/openssl.h"
#include "common/error.h"
#include "common/jose/jwk.h"
#include "common/jose/jws.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr auto kUnauthenticated = absl::StatusCode::kUnauthenticated;
constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

// RFC 7515 appendix A.2.
constexpr char kRsaN[] =
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-"
    "pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-"
    "UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_"
    "h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
constexpr char kRs256Token[] =
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
    "fQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_"
    "lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_"
    "nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0"
    "GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-"
    "eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhW"
    "kWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
// RFC 7515 appendix A.3.
constexpr char kP256Jwk[] =
    R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})";
constexpr char kEs256Input[] =
    "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVl"
    "fQ";
constexpr char kEs256Signature[] =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
// RFC 7515 appendix A.4.
constexpr char kP521Jwk[] =
    R"({"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"})";
constexpr char kEs512Token[] =
    "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-"
    "KGDKB34XO0aw_"
    "7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
// RFC 8037 appendix A.
constexpr char kEd25519Jwk[] = R"({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})";
constexpr char kEdDsaToken[] =
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-"
    "09PGcvMg3AIbQR6dWbhijcNR4ki4iylG"
    "jg5BhVsPt9g7sVvpAr_MuM0KAg";

std::string RsaJwk(const std::string& more = "") {
  return absl::StrCat(R"({"kty":"RSA","e":"AQAB","n":")", kRsaN, "\"", more, "}");
}

JwkSet SetOf(const std::string& jwk) {
  auto key = PublicKey::FromJwk(jwk);
  EXPECT_THAT(key, IsOk());
  return JwkSet({*key});
}

// Signs with any private key, as a stranger's issuer would.
class Signer {
 public:
  explicit Signer(const char* type, const char* group = nullptr, size_t bits = 2048) {
    const std::string name = type;
    if (name == "RSA") {
      pkey_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", bits));
    } else {
      pkey_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", group));
    }
  }
  std::string Number(const char* param) const {
    BIGNUM* number = nullptr;
    EXPECT_EQ(EVP_PKEY_get_bn_param(pkey_.get(), param, &number), 1);
    BignumPtr owner(number);
    std::string bytes(static_cast<size_t>(BN_num_bytes(number)), '\0');
    BN_bn2bin(number, reinterpret_cast<unsigned char*>(bytes.data()));
    return Base64UrlEncode(bytes);
  }
  std::string RsaJwkOf(const std::string& more = "") const {
    return absl::StrCat(R"({"kty":"RSA","e":")", Number(OSSL_PKEY_PARAM_RSA_E), R"(","n":")",
                        Number(OSSL_PKEY_PARAM_RSA_N), "\"", more, "}");
  }
  std::string RsaToken(const std::string& header, const char* digest, bool pss) const {
    const std::string input = absl::StrCat(Base64UrlEncode(header), ".", Base64UrlEncode("{}"));
    EvpMdCtxPtr context(EVP_MD_CTX_new());
    EVP_PKEY_CTX* pkey_context = nullptr;
    EXPECT_EQ(EVP_DigestSignInit_ex(context.get(), &pkey_context, digest, nullptr, nullptr, pkey_.get(), nullptr), 1);
    if (pss) {
      EVP_PKEY_CTX_set_rsa_padding(pkey_context, RSA_PKCS1_PSS_PADDING);
      EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey_context, RSA_PSS_SALTLEN_DIGEST);
    }
    std::string signature(1024, '\0');
    size_t size = signature.size();
    EXPECT_EQ(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, Bytes8(input),
                             input.size()),
              1);
    signature.resize(size);
    return absl::StrCat(input, ".", Base64UrlEncode(signature));
  }

 private:
  EvpPkeyPtr pkey_;
};

TEST(Rfc7515, AppendixA2Rs256) { EXPECT_THAT(VerifyJws(kRs256Token, SetOf(RsaJwk())), IsOk()); }
TEST(Rfc7515, AppendixA3Es256) {
  EXPECT_THAT(VerifyJws(absl::StrCat(kEs256Input, ".", kEs256Signature), SetOf(kP256Jwk)), IsOk());
}
TEST(Rfc7515, AppendixA4Es512) { EXPECT_THAT(VerifyJws(kEs512Token, SetOf(kP521Jwk)), IsOk()); }
TEST(Rfc8037, AppendixA4EdDsa) {
  auto jws = VerifyJws(kEdDsaToken, SetOf(kEd25519Jwk));
  ASSERT_THAT(jws, IsOk());
  EXPECT_EQ(jws->payload, "Example of Ed25519 signing");
}
TEST(Rfc8037, AppendixA3Thumbprint) {
  EXPECT_EQ(PublicKey::FromJwk(kEd25519Jwk)->Thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}
TEST(Rfc7638, Section31Thumbprint) {
  auto key = PublicKey::FromJwk(
      R"({"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"})");
  ASSERT_THAT(key, IsOk());
  EXPECT_EQ(key->Thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
  EXPECT_EQ(key->kid(), "2011-04-29");
}

constexpr struct {
  const char* alg;
  const char* digest;
  bool pss;
} kRsaAlgorithms[] = {{"RS256", "SHA256", false}, {"RS384", "SHA384", false}, {"RS512", "SHA512", false},
                      {"PS256", "SHA256", true},  {"PS384", "SHA384", true},  {"PS512", "SHA512", true}};

TEST(JwsTest, EveryRsaAlgorithmVerifiesWithItsOwnKey) {
  const Signer signer("RSA");
  for (const auto& c : kRsaAlgorithms) {
    SCOPED_TRACE(c.alg);
    const std::string token = signer.RsaToken(absl::StrCat(R"({"alg":")", c.alg, "\"}"), c.digest, c.pss);
    EXPECT_THAT(VerifyJws(token, SetOf(signer.RsaJwkOf(absl::StrCat(R"(,"alg":")", c.alg, "\"")))), IsOk());
  }
}

TEST(JwsTest, AnRsaKeyWithoutAlgVerifiesEveryRsaAlgorithmAndNoOther) {
  const Signer signer("RSA");
  const JwkSet keys = SetOf(signer.RsaJwkOf());
  for (const auto& c : kRsaAlgorithms) {
    SCOPED_TRACE(c.alg);
    const std::string header = absl::StrCat(R"({"alg":")", c.alg, "\"}");
    EXPECT_THAT(VerifyJws(signer.RsaToken(header, c.digest, c.pss), keys), IsOk());
    // A signature of the other padding under this name.
    EXPECT_EQ(ReasonOf(VerifyJws(signer.RsaToken(header, c.digest, !c.pss), keys).status()), "bad_signature");
  }
  EXPECT_FALSE(keys.keys()[0].Supports(JwsAlgorithm::kEs256));
}

TEST(JwsTest, RefusalsSayWhichCheckFailed) {
  const Signer signer("RSA");
  const JwkSet keys = SetOf(signer.RsaJwkOf(R"(,"kid":"k","alg":"RS256")"));
  const auto reason = [&keys](const std::string& token) { return ReasonOf(VerifyJws(token, keys).status()); };
  const std::string good = signer.RsaToken(R"({"alg":"RS256","kid":"k"})", "SHA256", false);
  ASSERT_THAT(VerifyJws(good, keys), IsOk());

  EXPECT_EQ(reason(good.substr(0, good.rfind('.')) + ".AAAA"), "bad_signature");
  EXPECT_EQ(reason(Signer("RSA").RsaToken(R"({"alg":"RS256","kid":"k"})", "SHA256", false)), "bad_signature");
  EXPECT_EQ(reason(signer.RsaToken(R"({"alg":"RS384","kid":"k"})", "SHA384", false)), "algorithm");
  for (const char* alg : {"none", "HS256", "RS1"}) {
    EXPECT_EQ(reason(absl::StrCat(Base64UrlEncode(absl::StrCat(R"({"alg":")", alg, "\"}")), ".e30.AA")), "algorithm");
  }
  EXPECT_THAT(VerifyJws(signer.RsaToken(R"({"alg":"RS256","kid":"other"})", "SHA256", false), keys),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST(JwsTest, OwnSignatureVerifiesAndSurvivesExport) {
  ASSERT_OK_AND_ASSIGN(PrivateKey key, PrivateKey::GenerateP256());
  ASSERT_OK_AND_ASSIGN(PrivateKey restored, PrivateKey::FromPkcs8(key.ToPkcs8()));
  ASSERT_OK_AND_ASSIGN(std::string token, SignJws("payload", "at+jwt", restored));
  ASSERT_OK_AND_ASSIGN(JwkSet set, JwkSet::Parse(JwkSet({key.public_key()}).ToJson()));

  ASSERT_OK_AND_ASSIGN(Jws jws, VerifyJws(token, set));

  EXPECT_EQ(jws.payload, "payload");
  EXPECT_EQ(jws.typ, "at+jwt");
  EXPECT_EQ(jws.kid, key.kid());
  EXPECT_EQ(restored.kid(), key.kid());
}

TEST(JwsTest, ChangedPayloadDoesNotVerify) {
  ASSERT_OK_AND_ASSIGN(PrivateKey key, PrivateKey::GenerateP256());
  ASSERT_OK_AND_ASSIGN(std::string token, SignJws("payload", "at+jwt", key));
  token[token.find('.') + 1] ^= 1;
  EXPECT_THAT(VerifyJws(token, JwkSet({key.public_key()})), StatusIs(kUnauthenticated));
}

TEST(JwsTest, RefusesEveryMalformedHeader) {  // J1, J6, J7, J8
  const char* headers[] = {
      R"({"alg":"none"})",
      R"({"alg":"None"})",
      R"({"alg":"nOnE"})",
      R"({"alg":""})",
      R"({})",
      R"({"alg":"es256"})",
      R"({"alg":["ES256"]})",
      R"({"alg":"HS256"})",
      R"({"alg":"ES256","crit":["b64"]})",
      R"({"alg":"ES256","crit":[]})",
      R"({"alg":"ES256","crit":"x"})",
      R"({"alg":"ES256","b64":false})",
      R"({"alg":"ES256","zip":"DEF"})",
      R"({"alg":"ES256","enc":"A256GCM"})",
      R"({"alg":"RSA-OAEP","enc":"A256GCM"})",
      R"({"alg":"ES256","alg":"ES256"})",
      R"({"alg":"ES256","kid":7})",
      R"({"alg":"ES256","kid":""})",
      R"({"alg":"ES256","typ":1})",
      R"(["ES256"])",
      R"({"alg":"ES256"} x)",
      "",
      "\xef\xbb\xbf{\"alg\":\"ES256\"}",
  };
  for (const char* header : headers) {
    SCOPED_TRACE(header);
    EXPECT_THAT(ParseJws(absl::StrCat(Base64UrlEncode(header), ".e30.", kEs256Signature)), StatusIs(kUnauthenticated));
  }
  const std::string long_kid = absl::StrCat(R"({"alg":"ES256","kid":")", std::string(257, 'k'), "\"}");
  EXPECT_THAT(ParseJws(absl::StrCat(Base64UrlEncode(long_kid), ".e30.AA")), StatusIs(kUnauthenticated));
}

TEST(JwsTest, RefusesEveryMalformedSerialization) {  // J1, J5, J8
  const std::string good = absl::StrCat(kEs256Input, ".", kEs256Signature);
  const std::string tokens[] = {"",
                                ".",
                                "..",
                                std::string(kEs256Input),
                                absl::StrCat(kEs256Input, "."),
                                absl::StrCat(good, "."),
                                absl::StrCat(good, ".AA"),
                                absl::StrCat(".", good),
                                absl::StrCat(good, "=="),
                                absl::StrCat(good, "\n"),
                                absl::StrCat(" ", good),
                                absl::StrCat(good.substr(0, good.size() - 1), "R"),  // Trailing bits are not zero.
                                absl::StrCat(good.substr(0, 30), "+", good.substr(31)),
                                absl::StrCat(good.substr(0, 30), std::string(1, '\0'), good.substr(31)),
                                R"({"payload":"e30","signatures":[]})"};
  for (const std::string& token : tokens) {
    SCOPED_TRACE(token);
    EXPECT_THAT(VerifyJws(token, SetOf(kP256Jwk)), StatusIs(kUnauthenticated));
  }
}

TEST(JwsTest, RefusesTokensBeyondTheLimit) {  // J15
  EXPECT_THAT(ParseJws(std::string(kMaxJwsSize + 1, 'a')), StatusIs(kUnauthenticated, "too long"));
}

TEST(JwsTest, HeaderKeysAndKidTricksDoNotChooseTheKey) {  // J6
  ASSERT_OK_AND_ASSIGN(PrivateKey attacker, PrivateKey::GenerateP256());
  const std::string header =
      absl::StrCat(R"({"alg":"ES256","jwk":)", attacker.public_key().ToJwk(),
                   R"(,"jku":"https://attacker.example/jwks","x5u":"https://attacker.example/"})");
  const std::string input = absl::StrCat(Base64UrlEncode(header), ".e30");
  ASSERT_OK_AND_ASSIGN(std::string signature, attacker.Sign(input));
  EXPECT_THAT(VerifyJws(absl::StrCat(input, ".", Base64UrlEncode(signature)), SetOf(kP256Jwk)),
              StatusIs(kUnauthenticated));
  for (const char* kid : {"../../etc/passwd", "' OR 1=1"}) {
    const std::string named = absl::StrCat(R"({"alg":"ES256","kid":")", kid, "\"}");
    EXPECT_THAT(VerifyJws(absl::StrCat(Base64UrlEncode(named), ".e30.AA"), SetOf(kP256Jwk)),
                StatusIs(absl::StatusCode::kNotFound));
  }
}

TEST(JwsTest, RefusesAnAlgorithmThatIsNotTheKeys) {  // J3
  const Signer signer("RSA");
  const JwkSet rs256 = SetOf(signer.RsaJwkOf(R"(,"kid":"k","alg":"RS256")"));
  EXPECT_THAT(VerifyJws(signer.RsaToken(R"({"alg":"PS256","kid":"k"})", "SHA256", true), rs256),
              StatusIs(kUnauthenticated));
  EXPECT_THAT(VerifyJws(signer.RsaToken(R"({"alg":"RS384","kid":"k"})", "SHA384", false), rs256),
              StatusIs(kUnauthenticated));
  auto p521 = PublicKey::FromJwk(kP521Jwk);
  EXPECT_THAT(p521->Verify(JwsAlgorithm::kEs256, "x", std::string(64, 'x')), StatusIs(kUnauthenticated));
  auto ed25519 = PublicKey::FromJwk(kEd25519Jwk);
  EXPECT_THAT(ed25519->Verify(JwsAlgorithm::kEs256, "x", std::string(64, 'x')), StatusIs(kUnauthenticated));
}

TEST(JwsTest, RefusesEcdsaSignaturesThatAreNotRawNumbersInRange) {  // J4
  auto key = PublicKey::FromJwk(kP256Jwk);
  const std::string good = *Base64UrlDecode(kEs256Signature);
  ASSERT_THAT(key->Verify(JwsAlgorithm::kEs256, kEs256Input, good), IsOk());
  const std::string zero(32, '\0');
  std::string order;
  for (const int byte :
       {0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51}) {
    order.push_back(static_cast<char>(byte));
  }
  const std::string r = good.substr(0, 32);
  const std::string s = good.substr(32);
  for (const std::string& bad :
       {zero + s, r + zero, zero + zero, order + s, r + order, std::string(64, '\xff'), good.substr(1), good + "x",
        std::string("\0", 1) + good, std::string(), std::string(16'000, 'x'), std::string("\x30\x44") + good}) {
    EXPECT_THAT(key->Verify(JwsAlgorithm::kEs256, kEs256Input, bad), StatusIs(kUnauthenticated));
  }
}

TEST(JwkTest, RefusesKeysThatMustNotVerify) {  // J2, J9
  const std::string small = Signer("RSA", nullptr, 1024).RsaJwkOf();
  const std::string jwks[] = {
      small,
      R"({"kty":"oct","k":"c2VjcmV0"})",
      R"({"kty":"RSA","e":"AQ","n":")" + std::string(kRsaN) + "\"}",
      R"({"kty":"RSA","e":"Ag","n":")" + std::string(kRsaN) + "\"}",
      R"({"kty":"RSA","e":"AQAB"})",
      R"({"kty":"RSA","e":"AQAB","n":""})",
      RsaJwk(R"(,"d":"AQ")"),
      RsaJwk(R"(,"k":"AQ")"),
      RsaJwk(R"(,"use":"enc")"),
      RsaJwk(R"(,"key_ops":["sign"])"),
      RsaJwk(R"(,"key_ops":"verify")"),
      RsaJwk(R"(,"alg":"HS256")"),
      RsaJwk(R"(,"alg":"ES256")"),
      RsaJwk(R"(,"alg":7)"),
      RsaJwk(R"(,"kid":7)"),
      RsaJwk(R"(,"kty":"EC")"),
      absl::StrCat(R"({"kty":"RSA","e":"AQAB","n":")", kRsaN, "==\"}"),
      // Not on the curve, coordinates too short, unknown curve, P-384 name with P-256 numbers.
      R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1"})",
      R"({"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVE","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})",
      R"({"kty":"EC","crv":"secp256k1","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})",
      R"({"kty":"EC","crv":"P-384","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})",
      R"({"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})",
      R"({"kty":"OKP","crv":"Ed25519","x":"11qY"})",
      R"({"kty":"rsa"})",
      "[]",
      "",
  };
  for (const std::string& jwk : jwks) {
    SCOPED_TRACE(jwk);
    EXPECT_THAT(PublicKey::FromJwk(jwk), StatusIs(kInvalidArgument));
  }
}

TEST(JwkTest, RefusesModuliWithTheRocaFingerprint) {  // J9, CVE-2017-15361
  // 65537^a mod M, as the flawed generator makes its primes' residues; completed to 2048 odd bits without leaving the
  // subgroup.
  BignumPtr primorial(BN_new());
  BN_one(primorial.get());
  for (const BN_ULONG prime : std::initializer_list<BN_ULONG>{
           2,  3,  5,  7,  11, 13,  17,  19,  23,  29,  31,  37,  41,  43,  47,  53,  59,  61,  67, 71,
           73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}) {
    BN_mul_word(primorial.get(), prime);
  }
  BignumPtr modulus(BN_new());
  BN_set_bit(modulus.get(), 2047);
  OpenSslPtr<BN_CTX, BN_CTX_free> context(BN_CTX_new());
  BN_div(nullptr, nullptr, modulus.get(), primorial.get(), context.get());
  BignumPtr rest(BN_new());
  BN_mod(rest.get(), modulus.get(), primorial.get(), context.get());
  BN_sub(modulus.get(), modulus.get(), rest.get());
  BN_add(modulus.get(), modulus.get(), primorial.get());
  BN_add_word(modulus.get(), 65537);
  std::string bytes(static_cast<size_t>(BN_num_bytes(modulus.get())), '\0');
  BN_bn2bin(modulus.get(), reinterpret_cast<unsigned char*>(bytes.data()));
  EXPECT_THAT(PublicKey::FromJwk(absl::StrCat(R"({"kty":"RSA","e":"AQAB","n":")", Base64UrlEncode(bytes), "\"}")),
              StatusIs(kInvalidArgument, "ROCA"));
}

TEST(JwkSetTest, LeavesOutRefusedKeysAndSaysWhy) {
  auto set = JwkSet::Parse(absl::StrCat(R"({"keys":[{"kty":"oct","k":"AQ","kid":"s"},)", kP256Jwk, "]}"));
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(set->keys().size(), 1U);
  ASSERT_EQ(set->refused().size(), 1U);
  EXPECT_EQ(set->refused()[0].find("keys[0]"), 0U);
}

TEST(JwkSetTest, KeysForEncryptionAreLeftOutWithoutAWord) {
  const std::string encryption[] = {
      RsaJwk(R"(,"kid":"e1","use":"enc")"),
      RsaJwk(R"(,"kid":"e2","use":"enc","alg":"RSA-OAEP-256")"),
      RsaJwk(R"(,"kid":"e3","alg":"RSA-OAEP")"),
      RsaJwk(R"(,"kid":"e4","alg":"RSA1_5")"),
      RsaJwk(R"(,"kid":"e5","key_ops":["encrypt","wrapKey"])"),
      R"({"kty":"EC","kid":"e6","alg":"ECDH-ES+A256KW","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})",
      R"({"kty":"OKP","kid":"e7","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})",
  };
  for (const std::string& jwk : encryption) {
    SCOPED_TRACE(jwk);
    auto set = JwkSet::Parse(absl::StrCat(R"({"keys":[)", jwk, ",", kP256Jwk, "]}"));
    ASSERT_THAT(set, IsOk());
    EXPECT_EQ(set->keys().size(), 1U);
    EXPECT_TRUE(set->refused().empty());
  }
  // Nothing else is passed over: not one that verifies, too, and no private key.
  for (const std::string& jwk : {RsaJwk(R"(,"key_ops":["encrypt","sign"])"), RsaJwk(R"(,"use":"enc","d":"AQ")"),
                                 RsaJwk(R"(,"use":"other")"), RsaJwk(R"(,"alg":"HS256")")}) {
    SCOPED_TRACE(jwk);
    auto set = JwkSet::Parse(absl::StrCat(R"({"keys":[)", jwk, ",", kP256Jwk, "]}"));
    ASSERT_THAT(set, IsOk());
    EXPECT_EQ(set->refused().size(), 1U);
  }
  EXPECT_THAT(JwkSet::Parse(absl::StrCat(R"({"keys":[)", encryption[0], "]}")), StatusIs(kInvalidArgument));
}

TEST(JwkSetTest, TwoKeysOfOneKidAreBothLeftOut) {
  const std::string rsa = RsaJwk(R"(,"kid":"a")");
  const std::string other = Signer("RSA").RsaJwkOf(R"(,"kid":"a")");
  EXPECT_THAT(JwkSet::Parse(absl::StrCat(R"({"keys":[)", rsa, ",", other, "]}")), StatusIs(kInvalidArgument));
  auto repeated = JwkSet::Parse(absl::StrCat(R"({"keys":[)", rsa, ",", rsa, "]}"));
  ASSERT_THAT(repeated, IsOk());
  EXPECT_EQ(repeated->keys().size(), 1U);
}

TEST(JwkSetTest, RefusesWhatIsNoSet) {
  std::string many = R"({"keys":[)";
  for (int i = 0; i < 101; ++i) absl::StrAppend(&many, i == 0 ? "" : ",", kP256Jwk);
  const std::string documents[] = {"",
                                   "{}",
                                   "[]",
                                   R"({"keys":{}})",
                                   R"({"keys":[]})",
                                   "<html>",
                                   many + "]}",
                                   std::string(JwkSet::kMaxBytes + 1, ' ') + R"({"keys":[]})"};
  for (const std::string& document : documents) EXPECT_THAT(JwkSet::Parse(document), StatusIs(kInvalidArgument));
}

TEST(JwkSetTest, WithoutKidOnlyAnUnambiguousKeyIsFound) {
  auto a = PublicKey::FromJwk(kP256Jwk);
  ASSERT_OK_AND_ASSIGN(PrivateKey b, PrivateKey::GenerateP256());
  EXPECT_THAT(JwkSet({*a}).Find(std::nullopt, JwsAlgorithm::kEs256), IsOk());
  EXPECT_THAT(JwkSet({*a, b.public_key()}).Find(std::nullopt, JwsAlgorithm::kEs256),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(JwkSet({*a, b.public_key()}).Find(b.kid(), JwsAlgorithm::kEs256), IsOk());
}

TEST(PrivateKeyTest, RefusesWhatIsNoP256Key) {
  EXPECT_THAT(PrivateKey::FromPkcs8(Secret(std::string(""))), StatusIs(kInvalidArgument));
  EXPECT_THAT(PrivateKey::FromPkcs8(Secret(std::string("not der"))), StatusIs(kInvalidArgument));
  ASSERT_OK_AND_ASSIGN(PrivateKey key, PrivateKey::GenerateP256());
  EXPECT_THAT(PrivateKey::FromPkcs8(Secret(std::string(key.ToPkcs8().Expose()) + "x")), StatusIs(kInvalidArgument));
}

}  // namespace
}  // namespace sallyport
