// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace sallyport::authn {

// A verified person (or workload), as a connector's token, a sign-in or a grant's row tells it.
struct Identity {
  // "<connector>:<value>", or "server-<uid>:<iss>|<value>" for keys an administrator gave a single server. Nothing else
  // is identity.
  std::string subject;
  // Connector id; empty for a server's own keys.
  std::string connector;
  // The connector's issuer; kLocalIssuer for local accounts.
  std::string issuer;
  std::string email;
  // As the issuer says. Emails and domains in rules count only if it is authoritative for the domain, too: see
  // Connectors::SpeaksFor.
  bool email_verified = false;
  std::string name;
  // In the provider's own words; rules name them as "<connector>:<group>" (group_names.h).
  std::vector<std::string> groups;
  // The provider sent no groups because there are too many (Entra: `_claim_names`, `hasgroups`).
  bool groups_overage = false;
};

inline constexpr char kLocalIssuer[] = "local";
// Subject of the API token that the one-time admin token is traded for. "sallyport" is a reserved connector id.
inline constexpr char kBootstrapSubject[] = "sallyport:admin-token";
// Begins the subject of an administrator that is a Kubernetes service account; behind it
// "<cluster>:<namespace>/<name>".
inline constexpr char kServiceAccountSubject[] = "sallyport:service-account:";
// The built-in OAuth client that API tokens are issued to.
inline constexpr char kCliClientId[] = "sallyport-cli";

}  // namespace sallyport::authn
