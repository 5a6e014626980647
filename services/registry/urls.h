// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/http/url.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/registry/findings.h"

namespace sallyport::registry {

// Where something may be sent: origins as Url::origin() writes them, sorted, each once.
using Origins = std::vector<std::string>;
Origins MakeOrigins(std::vector<std::string> origins);
// As one text, parted by blanks, and back.
std::string JoinOrigins(const Origins& origins);
Origins SplitOrigins(const std::string& text);

// The URLs of a resource by the JSON names of their fields, parsed once for validation, origins and messages.
class ResourceUrls {
 public:
  ResourceUrls() = default;  // Where no field is asked for.
  explicit ResourceUrls(const v1::McpServer& server);
  explicit ResourceUrls(const v1::App& app);
  explicit ResourceUrls(const v1::Credential& credential);  // It has none.

  // nullptr: the field is empty.
  const absl::StatusOr<Url>* Find(const std::string& field) const;
  // Empty if the field is, or holds no URL.
  std::string Origin(const std::string& field) const;

  // Of a server: the one of upstreamUrl and secretUpstreamUrl that says where its requests go. Of a secret address that
  // is stored, and not given now, only the origin is known; it stands for the URL then.
  const std::string& upstream_field() const { return upstream_field_; }
  const absl::StatusOr<Url>* Upstream() const { return Find(upstream_field_); }
  std::string UpstreamOrigin() const { return Origin(upstream_field_); }

 private:
  void Add(const std::string& field, const std::string& url);
  std::map<std::string, absl::StatusOr<Url>> urls_;
  std::string upstream_field_ = "upstreamUrl";
};

// An MCP endpoint, which exactly one of two fields names: https anywhere the networks allow, plain http (warned about)
// to loopback and private networks. Warns of a query that can be read, too. Findings hold nothing of a URL.
void ValidateUpstreamUrl(const v1::McpServer& server, const ResourceUrls& urls,
                         const std::vector<std::string>& networks, Findings& findings);
// Authorization servers and key sets: https, or http to loopback where the networks name it.
void ValidateOAuthUrl(const absl::StatusOr<Url>& parsed, const std::string& field,
                      const std::vector<std::string>& networks, Findings& findings);
// Of an app: an OAuth URL without query and fragment (RFC 8414 section 2).
void ValidateIssuer(const std::string& url, const absl::StatusOr<Url>& parsed, const std::vector<std::string>& networks,
                    Findings& findings);
void ValidateCidr(const std::string& text, const std::string& field, Findings& findings);
// OK if it is a JWKS with at least one usable key.
absl::Status CheckJwks(const std::string& json);

}  // namespace sallyport::registry
