// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/files.h"
#include "common/http/url.h"
#include "common/jose/jwk.h"
#include "common/status_macros.h"
#include "services/authn/issuer_check.h"
#include "services/authn/platforms/platform_config.h"
#include "services/authn/platforms/service_account.h"

namespace sallyport::authn::platforms {
namespace {

using config::v1::KubernetesCluster;

constexpr size_t kMaxClaim = 512;
constexpr absl::string_view kApiServer = "kubernetes.default.svc";

bool IsClaimText(const std::string& text) {
  return !text.empty() && text.size() <= kMaxClaim && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c));
  });
}

std::string FieldOf(int index) { return absl::StrCat("kubernetes[", index, "]"); }

// What API servers call themselves where nothing else is configured: https://kubernetes.default.svc[.<cluster domain>],
// which every pod's default token has as its audience, whatever the issuer is.
bool IsApiServers(absl::string_view audience) {
  absl::ConsumePrefix(&audience, "https://");
  absl::ConsumeSuffix(&audience, "/");
  return audience == kApiServer || absl::StartsWith(audience, absl::StrCat(kApiServer, "."));
}

// What was said of the clusters before this one.
struct Seen {
  std::set<std::string> ids;
  std::map<std::pair<std::string, std::string>, std::string> fields;  // By issuer and audience.
};

absl::Status CheckTokens(const std::string& field, const KubernetesCluster& cluster, Seen& seen) {
  if (!IsClaimText(cluster.issuer())) {
    return InvalidField(field + ".issuer", "is required: `iss` of the cluster's tokens, byte for byte");
  }
  const std::string audience = field + ".audience";
  if (!IsClaimText(cluster.audience())) {
    return InvalidField(audience, "is required: `aud` of the tokens that are meant for the gateway, such as sallyport");
  }
  if (cluster.audience() == cluster.issuer() || IsApiServers(cluster.audience())) {
    return InvalidField(audience,
                        "is the API server's own: whoever has such a token can act in the cluster; project tokens for "
                        "an audience of the gateway's, such as sallyport");
  }
  const auto [other, is_new] = seen.fields.try_emplace({cluster.issuer(), cluster.audience()}, field);
  return is_new ? absl::OkStatus()
                : InvalidField(audience, absl::StrCat("is that of ", other->second,
                                                      ", which has the same issuer: give each an audience of its own"));
}

absl::Status CheckKeys(const std::string& field, const KubernetesCluster& cluster) {
  if (cluster.has_jwks_file()) {
    const absl::StatusOr<std::string> text = ReadFile(cluster.jwks_file());
    const absl::Status parsed = text.ok() ? JwkSet::Parse(*text).status() : text.status();
    return parsed.ok() ? parsed : InvalidField(field + ".jwksFile", parsed.message());
  }
  if (cluster.has_jwks_url()) {
    return Url::Parse(cluster.jwks_url()).ok()
               ? absl::OkStatus()
               : InvalidField(field + ".jwksUrl",
                              "must be an absolute URL, such as https://kubernetes.default.svc/openid/v1/jwks");
  }
  if (cluster.has_token_review_url()) {
    const absl::StatusOr<Url> url = Url::Parse(cluster.token_review_url());
    return url.ok() && url->origin() == cluster.token_review_url()
               ? absl::OkStatus()
               : InvalidField(field + ".tokenReviewUrl",
                              "must be the origin of the API server, such as https://kubernetes.default.svc");
  }
  return InvalidField(field, "needs jwksUrl, jwksFile or tokenReviewUrl");
}

absl::Status CheckFiles(const std::string& field, const KubernetesCluster& cluster) {
  std::vector<absl::Status> checks;
  for (const auto& [name, file] :
       {std::pair(".caBundle", &cluster.ca_bundle()), std::pair(".tokenFile", &cluster.token_file())}) {
    checks.push_back(!file->empty() && cluster.has_jwks_file()
                         ? InvalidField(field + name, "is for jwksUrl and tokenReviewUrl: leave it out with jwksFile")
                         : CheckReadable(field + name, *file));
  }
  return MergeViolations(checks);
}

absl::Status CheckCluster(const std::string& field, const KubernetesCluster& cluster, Seen& seen) {
  absl::Status id;
  if (!IsName(cluster.id())) {
    id = InvalidField(field + ".id", "must be 1 to 63 of a-z, 0-9 and '-'");
  } else if (!seen.ids.insert(cluster.id()).second) {
    id = InvalidField(field + ".id", "occurs twice");
  }
  return MergeViolations(
      {id, CheckTokens(field, cluster, seen), CheckKeys(field, cluster), CheckFiles(field, cluster)});
}

}  // namespace

absl::Status ValidateClusters(const google::protobuf::RepeatedPtrField<KubernetesCluster>& config) {
  std::vector<absl::Status> checks;
  Seen seen;
  for (int i = 0; i < config.size(); ++i) {
    checks.push_back(CheckCluster(FieldOf(i), config[i], seen));
  }
  return MergeViolations(checks);
}

absl::Status CheckClusterNetworks(const google::protobuf::RepeatedPtrField<KubernetesCluster>& config,
                                  const EgressPolicy& policy) {
  std::vector<absl::Status> checks;
  for (int i = 0; i < config.size(); ++i) {
    const bool review = config[i].has_token_review_url();
    const absl::StatusOr<Url> url = Url::Parse(review ? config[i].token_review_url() : config[i].jwks_url());
    // ValidateClusters says what is no URL.
    if (url.ok()) {
      checks.push_back(CheckNetwork(FieldOf(i) + (review ? ".tokenReviewUrl" : ".jwksUrl"), *url, policy));
    }
  }
  return MergeViolations(checks);
}

}  // namespace sallyport::authn::platforms
