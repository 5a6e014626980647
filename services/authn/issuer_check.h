// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/http/networks.h"
#include "common/mutex.h"
#include "services/authn/connectors.h"

namespace sallyport::authn {

// An issuer inside a network that `deployment.egress.oauthNetworks` does not name is never reached, so nobody signs in
// with it and none of its tokens is taken.

// May `url`, which `field` holds, be reached? As far as that can be said without resolving names: INVALID_ARGUMENT with
// the remedy.
absl::Status CheckNetwork(const std::string& field, const Url& url, const EgressPolicy& policy);

// What can be said of issuers' URLs without resolving names: INVALID_ARGUMENT naming `connectors[i].oidc.issuer`.
absl::Status CheckIssuerNetworks(const google::protobuf::RepeatedPtrField<config::v1::Connector>& config,
                                 const EgressPolicy& policy);

// The same for names, found out by asking each issuer for its metadata, once. One that is refused is asked again with
// every Run until it no longer is. An issuer that could be asked is settled: what its name resolves to later must not
// take the gateway out of service. Thread-safe.
class IssuerCheck {
 public:
  // Blocking, up to a fetch for each issuer that is not settled.
  void Run(const Connectors& connectors, absl::Time now);
  // OK, or UNAVAILABLE naming the field of an issuer that may not be reached.
  absl::Status Ready() const;

 private:
  mutable Mutex mu_;
  std::set<std::string> settled_ ABSL_GUARDED_BY(mu_);
  absl::Status refused_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::authn
