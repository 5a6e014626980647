// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/server_entry.h"

#include "absl/strings/str_cat.h"
#include <google/protobuf/util/message_differencer.h>

#include "common/http/url.h"
#include "common/json_log.h"
#include "common/proto_unknown.h"
#include "common/status_macros.h"
#include "common/text/string_view.h"
#include "services/edge/http/tls_context.h"
#include "services/edge/mcp/call_audit.h"

namespace sallyport::edge {
namespace {

using registry::v1::McpServer;
using Plan = registry::v1::CredentialPlan;
using Piece = Plan::Piece;

constexpr uint64_t kDefaultBodyLimit = 4 << 20;

std::atomic<uint64_t> next_serial{1};

std::chrono::milliseconds ToMillis(const google::protobuf::Duration& duration) {
  return std::chrono::milliseconds(duration.seconds() * 1000 + duration.nanos() / 1'000'000);
}

bool IsFor(const Piece& piece, ServerEntry::CallerKind kind) {
  return piece.callers() == Plan::ANY ||
         (piece.callers() == Plan::SIGNED_IN && kind == ServerEntry::CallerKind::kSignedIn) ||
         (piece.callers() == Plan::WITH_OWN_TOKEN && kind == ServerEntry::CallerKind::kPresented);
}

absl::Status CompileBrokerPiece(const Piece& piece, ServerEntry& entry) {
  switch (piece.source_case()) {
    case Piece::kUserConnection:
      entry.app_uid = piece.user_connection().app_uid();
      entry.app_slug = piece.user_connection().app_slug();
      entry.account = piece.user_connection().label();
      break;
    case Piece::kLiteral:
    case Piece::kStoredSecret:
    case Piece::kServiceToken:
    case Piece::kSignInToken:
    case Piece::kExchangedToken:
      break;
    case Piece::kStoredCredential:
      if (piece.stored_credential().match() == Plan::StoredCredential::PER_USER) {
        entry.credential_uid = piece.stored_credential().uid();
      }
      break;
    default:
      return absl::InvalidArgumentError("the broker resolves no such source");
  }
  if (piece.scope() != Plan::ORG && !entry.authenticates()) {
    return absl::InvalidArgumentError("a credential of the caller needs a verified caller");
  }
  for (const auto kind : {ServerEntry::CallerKind::kUnverified, ServerEntry::CallerKind::kSignedIn,
                          ServerEntry::CallerKind::kPresented}) {
    if (!IsFor(piece, kind)) continue;
    ServerEntry::BrokerNeed& need = entry.broker_needs[static_cast<size_t>(kind)];
    need.asked = true;
    need.per_caller = need.per_caller || piece.scope() != Plan::ORG;
    need.presented_token =
        need.presented_token || (piece.has_exchanged_token() && kind == ServerEntry::CallerKind::kPresented);
  }
  return absl::OkStatus();
}

absl::Status CompileEdgePiece(const Piece& piece, ServerEntry& entry) {
  ServerEntry::OwnHeader own;
  own.name = piece.name();
  own.prefix = piece.prefix();
  own.piece = piece.id();
  switch (piece.source_case()) {
    case Piece::kRequestHeader:
      // Other headers of the request go on by themselves.
      if (piece.name() != "Authorization" ||
          piece.request_header() != (entry.interactive ? "X-Sallyport-Authorization" : "Authorization")) {
        return absl::InvalidArgumentError("only the caller's own credential is passed on");
      }
      entry.app_passthrough = true;
      return absl::OkStatus();
    case Piece::kClaim:
      if (!entry.authenticates()) return absl::InvalidArgumentError("caller identity needs a verified caller");
      own.claim = piece.claim().name();
      own.json = piece.claim().json();
      break;
    case Piece::kPresentedToken:
      own.source = ServerEntry::OwnHeader::Source::kPresentedToken;
      own.id_token = piece.presented_token().kind() == Plan::ID;
      break;
    default:
      return absl::InvalidArgumentError("the edge renders no such source");
  }
  entry.own_headers.push_back(std::move(own));
  return absl::OkStatus();
}

// What of a plan CompilePlan hands on, beside the entry.
struct Compiled {
  std::vector<std::string> injected;  // Names that callers may not set.
  SecretTarget::Wanted secrets;
};

// The same for every caller, and nowhere in a request: the server itself must be made for it.
absl::Status CompileTargetPiece(const Piece& piece, const ServerEntry& entry, SecretTarget::Wanted& secrets) {
  if (piece.renderer() != Plan::BROKER || piece.scope() != Plan::ORG || piece.callers() != Plan::ANY ||
      !piece.has_stored_secret()) {
    return absl::InvalidArgumentError("an address or a client certificate is not the organization's own");
  }
  bool& wanted = piece.location() == Plan::URL ? secrets.url : secrets.certificate;
  const bool fits = piece.location() == Plan::URL ? entry.target.secret : entry.target.tls;
  if (wanted || !fits) return absl::InvalidArgumentError("the upstream takes no such address or client certificate");
  wanted = true;
  return absl::OkStatus();
}

absl::Status CompilePiece(const Piece& piece, ServerEntry& entry, Compiled& compiled) {
  if (piece.location() == Plan::URL || piece.location() == Plan::CLIENT_CERTIFICATE) {
    RETURN_IF_ERROR(CompileTargetPiece(piece, entry, compiled.secrets));
  } else if (piece.location() == Plan::QUERY && piece.renderer() == Plan::BROKER) {
    entry.api_key_query = piece.name();
  } else if (piece.location() == Plan::HEADER) {
    compiled.injected.push_back(piece.name());
  } else {
    return absl::InvalidArgumentError("a credential goes where this edge cannot put it");
  }
  switch (piece.renderer()) {
    case Plan::EDGE:
      return CompileEdgePiece(piece, entry);
    case Plan::BROKER:
      return CompileBrokerPiece(piece, entry);
    default:
      return absl::InvalidArgumentError("nobody renders a credential");
  }
}

// All of the plan or nothing: a rule that this edge does not know must not be missing from a request.
absl::Status CompilePlan(const Plan& plan, ServerEntry& entry, Compiled& compiled) {
  if (HasUnknownFields(plan)) return absl::InvalidArgumentError("the plan has parts that this edge does not know");
  bool has_app_auth = false;
  for (const Piece& piece : plan.pieces()) {
    RETURN_IF_ERROR(CompilePiece(piece, entry, compiled));
    has_app_auth = has_app_auth || piece.id() == "app_auth";
  }
  if (!has_app_auth) return absl::InvalidArgumentError("app authentication is missing from the plan");
  if (entry.target.secret && !compiled.secrets.url) {
    return absl::InvalidArgumentError("the address is missing from the plan");
  }
  return absl::OkStatus();
}

// As a registry that does not know them would lower it: a connection without the certificate is another one.
absl::Status CheckCertificate(const McpServer& server, const Compiled& compiled) {
  return server.policy().tls().client_cert().set() && !compiled.secrets.certificate
             ? absl::InvalidArgumentError("the client certificate is missing from the plan")
             : absl::OkStatus();
}

// Of a secret address all but path and query.
absl::Status CompileTarget(const McpServer& server, ServerEntry& entry) {
  const bool secret = server.has_secret_upstream_url();
  const std::string& address = secret ? server.upstream_origin() : server.upstream_url();
  ASSIGN_OR_RETURN(entry.target, ParseUpstreamUrl(address));
  // The services write origins in one way only.
  if (const auto url = Url::Parse(address); url.ok()) entry.target.origin = url->origin();
  entry.target.pool_key = absl::StrCat(server.uid(), "/", entry.serial);
  entry.target.secret = secret;
  if (const std::string& bundle = server.policy().tls().ca_bundle(); !bundle.empty()) {
    ASSIGN_OR_RETURN(entry.target.client_tls, ClientTls::Make({.ca_pem = bundle, .system_authorities = false}));
  }
  return absl::OkStatus();
}

// Once the target is complete but for its secrets: nothing dials it without them.
void AwaitSecrets(SecretTarget::Wanted secrets, ServerEntry& entry) {
  if (!secrets.url && !secrets.certificate) return;
  entry.secret_target = std::make_unique<SecretTarget>(entry.target, secrets);
  entry.target.host.clear();
  entry.target.port = 0;
}

absl::Status CompilePolicy(const registry::v1::Policy& policy, ServerEntry& entry) {
  entry.body_limit = policy.body_limit() > 0 ? static_cast<uint64_t>(policy.body_limit()) : kDefaultBodyLimit;
  entry.audit_required = policy.audit_required();
  if (policy.has_connect_timeout()) entry.target.connect_timeout = ToMillis(policy.connect_timeout());
  if (policy.has_first_byte_timeout()) entry.target.first_byte_timeout = ToMillis(policy.first_byte_timeout());
  ASSIGN_OR_RETURN(entry.allowed_client_networks,
                   ParseNetworks({policy.allowed_client_networks().begin(), policy.allowed_client_networks().end()},
                                 "policy.allowedClientNetworks"));
  return absl::OkStatus();
}

void CompileChallenges(const std::string& public_url, ServerEntry& entry) {
  if (entry.interactive) {
    entry.challenge = absl::StrCat("Bearer resource_metadata=\"", public_url,
                                   "/.well-known/oauth-protected-resource/mcp/", entry.slug, "\", scope=\"mcp\"");
  } else {
    entry.challenge = "Bearer";
  }
  entry.challenge_invalid = absl::StrCat(
      entry.challenge, entry.interactive ? ", " : " ",
      "error=\"invalid_token\", error_description=\"the access token is missing, expired or not for this server\"");
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ServerEntry>> CompileServer(const McpServer& server,
                                                                 const std::string& public_url) {
  auto entry = std::make_shared<ServerEntry>();
  entry->serial = next_serial.fetch_add(1);
  entry->uid = server.uid();
  entry->slug = server.slug();
  entry->display_name = server.display_name().empty() ? server.slug() : server.display_name();
  entry->version = server.version();
  entry->enabled = !server.has_enabled() || server.enabled();
  RETURN_IF_ERROR(CompileTarget(server, *entry));
  switch (server.agent_auth().method_case()) {
    case registry::v1::AgentAuth::kInteractive:
      entry->interactive = true;
      break;
    case registry::v1::AgentAuth::kPassthrough:
      entry->validates_jwt = server.agent_auth().passthrough().has_jwt_validation();
      break;
    default:
      return absl::InvalidArgumentError("agent authentication is of a kind this edge does not know");
  }
  Compiled compiled;
  RETURN_IF_ERROR(CompilePlan(server.credential_plan(), *entry, compiled));
  RETURN_IF_ERROR(CheckCertificate(server, compiled));
  RETURN_IF_ERROR(CompilePolicy(server.policy(), *entry));
  AwaitSecrets(compiled.secrets, *entry);
  ASSIGN_OR_RETURN(entry->rules, RequestRules::Compile({server.restricted_inbound_headers().begin(),
                                                        server.restricted_inbound_headers().end()},
                                                       compiled.injected));
  if (server.policy().forward_identity_headers()) {
    if (!server.agent_auth().has_passthrough() || !entry->app_passthrough)
      return absl::InvalidArgumentError("identity headers go on only with Passthrough in both directions");
    entry->rules.ForwardIdentity();
  }
  CompileChallenges(public_url, *entry);
  entry->audit_fields = ServerAuditFields(entry->uid, entry->slug);
  entry->metrics = std::make_shared<ServerMetrics>(entry->slug);
  return std::shared_ptr<const ServerEntry>(std::move(entry));
}

namespace {

// The entry that may serve on, or null.
std::shared_ptr<const ServerEntry> Unchanged(const RouteTable& old, const RegistrySnapshot::Server& server) {
  const auto entry = old.by_uid.find(server->uid());
  const auto source = old.sources_by_uid.find(server->uid());
  if (entry == old.by_uid.end() || source == old.sources_by_uid.end()) return nullptr;
  // The stream shares what did not change between its snapshots; a full one brings everything anew.
  const bool same =
      source->second == server || google::protobuf::util::MessageDifferencer::Equals(*source->second, *server);
  return same ? entry->second : nullptr;
}

}  // namespace

void Routes::Update(const RegistrySnapshot& snapshot) {
  const std::shared_ptr<const RouteTable> old = table();
  auto fresh = std::make_shared<RouteTable>();
  fresh->loaded = true;
  fresh->history = ConfigHistory::Of(snapshot);
  fresh->sources_by_uid = snapshot.servers_by_uid;
  const bool continued = old->history.ContinuedBy(snapshot);
  for (const auto& [uid, server] : snapshot.servers_by_uid) {
    std::shared_ptr<const ServerEntry> entry = continued ? Unchanged(*old, server) : nullptr;
    if (entry == nullptr) {
      auto compiled = CompileServer(*server, public_url_);
      if (!compiled.ok()) {
        // Not run with a rule missing: the route exists and answers 503 (see by_slug with a null entry).
        Log(LogLevel::kError, "server_not_executable", {{"server", server->slug()}, {"status", compiled.status()}});
        fresh->by_slug[server->slug()] = nullptr;
        continue;
      }
      entry = *std::move(compiled);
    }
    fresh->by_slug[server->slug()] = entry;
    fresh->by_uid[uid] = std::move(entry);
  }
  MutexLock lock(mu_);
  table_ = std::move(fresh);
  generation_.fetch_add(1, std::memory_order_acq_rel);
}

std::shared_ptr<const RouteTable> Routes::table() const {
  MutexLock lock(mu_);
  return table_;
}

}  // namespace sallyport::edge
