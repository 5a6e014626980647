// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/findings.h"
#include "services/registry/urls.h"

namespace sallyport::registry {

// authn's connectors, by id.
struct ConnectorInfo {
  std::string type;  // "oidc" or "local".
  bool without_groups = false;
};
using Connectors = std::map<std::string, ConnectorInfo>;

// What a resource is checked against besides itself.
struct ValidationContext {
  // CIDR blocks; see config.v1.Egress. Loopback counts as reachable only when one of the blocks holds it.
  std::vector<std::string> upstream_networks;
  std::vector<std::string> oauth_networks;
  // Look up by slug; nullptr if there is none.
  std::function<const v1::App*(absl::string_view slug)> app;
  std::function<const v1::Credential*(absl::string_view slug)> credential;
  // nullopt while authn cannot be asked (then connector names are not checked).
  std::optional<Connectors> connectors;
  // For what has an end, such as certificates.
  absl::Time now = absl::UnixEpoch();
  // How clients may authenticate at the token endpoint of `issuer`, as it announces (RFC 8414 section 2); nullopt if
  // that cannot be learnt. Only ResourceTraits<v1::App>::Check asks.
  std::function<std::optional<std::vector<std::string>>(const std::string& issuer)> announced_methods;
};

// Checks everything that can be known from the message alone and the context. Field names in findings are those of JSON
// and YAML. `urls` are those of the same resource. Whether a secret is there is not looked at (draft.h); what is given
// now and has a form (an address, a certificate) is.
void ValidateMcpServer(const v1::McpServer& server, const ResourceUrls& urls, const ValidationContext& context,
                       Findings& findings);
void ValidateApp(const v1::App& app, const ResourceUrls& urls, const ValidationContext& context, Findings& findings);
// An app's client_auth that its issuer does not announce: it may work all the same, so a warning. `announced` is as in
// RFC 8414 section 2.
void WarnOfClientAuth(const v1::App& app, const std::vector<std::string>& announced, Findings& findings);
void ValidateCredential(const v1::Credential& credential, Findings& findings);
// What of an app depends on whether it has a client secret, stored or given.
void ValidateAppClient(const v1::App& app, bool has_secret, Findings& findings);

// Every field (and enum value) that is set and carries the option not_yet_supported: "not yet supported: <field>".
void RefuseUnsupported(const google::protobuf::Message& message, const std::string& prefix, Findings& findings);

}  // namespace sallyport::registry
