// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/http/client.h"
#include "common/http/networks.h"
#include "common/mutex.h"
#include "common/oauth/issuer_metadata.h"
#include "common/rpc/control_stream.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/token_endpoint.h"

namespace sallyport::token_broker {

// Puts together what it takes to talk to a provider: configuration, metadata of its issuer (kept 10 minutes, failures
// 10 s; what was once known serves until it can be had again), the client secret from the vault. Thread-safe, blocking.
class Providers {
 public:
  // All outlive this. `policy`: where OAuth URLs may lead, whoever names them.
  Providers(const std::shared_ptr<grpc::Channel>& authn, HttpClient& http, EgressPolicy policy, SecretReader& secrets,
            TaskRunner& behind, const Clock& clock);

  // UNAVAILABLE reason provider_unavailable if the metadata that it takes cannot be had now; without metadata that only
  // tells more, the provider says so (metadata_missing). FAILED_PRECONDITION, with retry_after, if an endpoint that it
  // takes from metadata is one that could not be configured.
  absl::StatusOr<Provider> ForApp(const registry::v1::App& app);
  // True if a connection whose tokens came from this origin was made at another provider than the app has now. Does not
  // block: false while the token endpoint is not known, which is then asked for behind the caller.
  bool HasMoved(const registry::v1::App& app, const std::string& token_origin);
  // Looks behind the caller whether settings of apps contradict what their issuers announce, and says so: a warning in
  // the log and the metric sallyport_broker_app_findings. What cannot be fetched now is looked at when it is used.
  void Examine(std::shared_ptr<const RegistrySnapshot> snapshot);
  // A sign-in connector, for refreshing sign-in tokens.
  absl::StatusOr<Provider> ForConnector(const std::string& id);

 private:
  void ExamineAll();
  void NoteClientAuth(const registry::v1::App& app, const oauth::IssuerMetadata& metadata);
  void SetFinding(const std::string& app_uid, const std::string& slug, const std::string& method);
  // For the endpoints of `provider`, as far as the secret is meant to go there; a revocation endpoint elsewhere is left
  // out. `…_announced`: the issuer's metadata names the endpoint.
  absl::Status ReadClientSecret(const vault::v1::RecordName& record, int64_t version, bool token_announced,
                                bool revocation_announced, Provider* provider);
  // Takes an endpoint from metadata, where the configuration names none.
  absl::Status Fill(const char* field, const std::string& endpoint, std::string* url) const;

  std::unique_ptr<authn::v1::Authn::Stub> authn_;
  oauth::HttpFetcher fetcher_;
  oauth::MetadataCache metadata_;
  const EgressPolicy policy_;
  SecretReader& secrets_;
  TaskRunner& behind_;
  const Clock& clock_;
  Mutex mu_;
  // Apps, by uid, whose client_auth their issuer does not announce: slug and client_auth.
  std::map<std::string, std::pair<std::string, std::string>> contradicted_ ABSL_GUARDED_BY(mu_);
  // To be examined; null: nothing is.
  std::shared_ptr<const RegistrySnapshot> unexamined_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker
