// SPDX-License-Identifier: Apache-2.0
#include "services/edge/api/page_handler.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/rpc/server.h"
#include "common/text/string_view.h"
#include "services/edge/http/header_rules.h"
#include "services/edge/http_errors.h"
#include "services/edge/request_credentials.h"

namespace sallyport::edge {
namespace {

constexpr char kBrokerPolicy[] = "script-src 'none'; object-src 'none'; base-uri 'none'";
constexpr absl::Duration kTimeout = absl::Seconds(20);  // A page may wait for an identity provider.
constexpr absl::Duration kPassportTimeout = absl::Seconds(5);

constexpr std::string_view kPageMethods = "GET, HEAD, POST, OPTIONS";

bool IsBrokerPage(std::string_view path) { return path.starts_with("/connect/") || path.starts_with("/callback/"); }

// "slug" of "/connect/slug" or "/connect/slug/done".
std::string Segment(std::string_view path) {
  const size_t begin = path.find('/', 1) + 1;
  return std::string(path.substr(begin, path.find('/', begin) - begin));
}

// Where clients of MCP 2025-03-26 look for the OAuth endpoints when they find no metadata ("Fallbacks for Servers
// without Metadata Discovery").
std::string_view Canonical(std::string_view path) {
  if (path == "/authorize") return "/oauth/authorize";
  if (path == "/token") return "/oauth/token";
  if (path == "/register") return "/oauth/register";
  return path;
}

bool IsOrBelow(std::string_view path, std::string_view root) {
  return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

// The cookies have a way of their own.
bool ReachesOwner(const HeaderField& field) {
  switch (field.id) {
    case HeaderId::kAuthorization:
    case HeaderId::kAccept:
    case HeaderId::kContentType:
    case HeaderId::kOrigin:
    case HeaderId::kUserAgent:
    case HeaderId::kMcpProtocolVersion:
      return true;
    default:
      return EqualIgnoreCase(field.name, "accept-language") || EqualIgnoreCase(field.name, "sec-fetch-site");
  }
}

}  // namespace

struct PageHandler::Rpc {
  ExchangeRef ref;
  bool to_broker = false;
  std::string cookie;
  std::string cors;  // Who may read the answer: an origin, "*", or nobody beside us.
  std::unique_ptr<grpc::ClientContext> passport_context = MakeClientContext(kPassportTimeout);
  authn::v1::GetPassportRequest passport_request;
  authn::v1::GetPassportResponse passport_response;
  std::unique_ptr<grpc::ClientContext> context = MakeClientContext(kTimeout);
  web::v1::WebRequest request;
  web::v1::WebResponse response;
};

PageHandler::PageHandler(const SiteOptions& site, const std::shared_ptr<grpc::Channel>& authn,
                         const std::shared_ptr<grpc::Channel>& token_broker)
    : site_(site),
      authn_(authn::v1::Authn::NewStub(authn)),
      authn_pages_(web::v1::Web::NewStub(authn)),
      broker_pages_(web::v1::Web::NewStub(token_broker)) {}

bool PageHandler::Owns(std::string_view path) {
  path = Canonical(path);
  return IsOrBelow(path, "/login") || path == "/logout" || path == "/signed-out" || IsOrBelow(path, "/oauth") ||
         IsOrBelow(path, "/.well-known") || IsOrBelow(path, "/connect") || IsOrBelow(path, "/callback");
}

OriginRule PageHandler::OriginRuleOf(std::string_view path) {
  path = Canonical(path);
  if (path == "/oauth/jwks" || IsOrBelow(path, "/.well-known")) return OriginRule::kAny;
  if (path == "/oauth/token" || path == "/oauth/register" || path == "/oauth/revoke") return OriginRule::kBearer;
  return OriginRule::kOwn;
}

bool PageHandler::IsHome(const RequestHead& head) {
  if (head.path != "/" || (head.method != "GET" && head.method != "HEAD")) return false;
  return head.ValueOf("accept").find("text/html") != std::string_view::npos;
}

void PageHandler::OnRequest(Exchange& exchange) {
  const RequestHead& head = exchange.head();
  const HeaderField* sent_origin = head.Find(HeaderId::kOrigin);
  // A document for all is the same for all: caches need not keep one for every origin.
  const std::string_view origin = OriginRuleOf(head.path) == OriginRule::kAny ? "*"
                                  : sent_origin != nullptr                    ? sent_origin->value
                                                                              : std::string_view();
  if (head.method == "OPTIONS") {
    const Field fields[] = {{"Allow", kPageMethods},
                            {"Vary", "Origin"},
                            {"Access-Control-Allow-Origin", origin},
                            {"Access-Control-Allow-Methods", kPageMethods},
                            {"Access-Control-Allow-Headers", "Authorization, Content-Type, MCP-Protocol-Version"},
                            {"Access-Control-Max-Age", "600"}};
    return exchange.Respond(204, std::span(fields, origin.empty() ? size_t{2} : std::size(fields)), "");
  }
  if (head.method != "GET" && head.method != "HEAD" && head.method != "POST") {
    return exchange.Respond(405, {{"Allow", kPageMethods}}, "");
  }
  auto rpc = std::make_shared<Rpc>();
  rpc->to_broker = IsBrokerPage(head.path);
  if (!rpc->to_broker) rpc->cors = std::string(origin);
  rpc->request.set_method(head.method == "HEAD" ? "GET" : std::string(head.method));
  rpc->request.set_path(std::string(Canonical(head.path)));
  rpc->request.set_query(std::string(head.query));
  rpc->request.set_body(std::string(exchange.body()));
  rpc->request.set_client_address(ClientAddressText(site_, exchange.client(), head));
  for (const HeaderField& field : head.fields()) {
    if (!ReachesOwner(field) || (rpc->to_broker && field.id == HeaderId::kAuthorization)) continue;
    web::v1::Header& header = *rpc->request.add_headers();
    header.set_name(absl::AsciiStrToLower(ToAbsl(field.name)));
    header.set_value(std::string(field.value));
  }
  rpc->cookie = CookiesOf(head);
  if (!rpc->to_broker && !rpc->cookie.empty()) {
    web::v1::Header& header = *rpc->request.add_headers();
    header.set_name("cookie");
    header.set_value(rpc->cookie);
  }
  rpc->ref = exchange.Defer();
  CallOwner(rpc);
}

void PageHandler::CallOwner(const std::shared_ptr<Rpc>& rpc) {
  if (!rpc->to_broker) {
    authn_pages_->async()->Handle(
        rpc->context.get(), &rpc->request, &rpc->response,
        [this, rpc, token = in_flight_.Add(rpc->context.get())](const grpc::Status& status) { Answer(rpc, status); });
    return;
  }
  if (rpc->cookie.empty()) return CallBroker(rpc);
  rpc->passport_request.set_cookie(rpc->cookie);
  rpc->passport_request.set_purpose(authn::v1::GetPassportRequest::LINK);
  const std::string slug = Segment(rpc->request.path());
  if (absl::StartsWith(rpc->request.path(), "/connect/")) {
    rpc->passport_request.set_server_slug(slug);
  } else {
    rpc->passport_request.set_app_slug(slug);
  }
  authn_->async()->GetPassport(
      rpc->passport_context.get(), &rpc->passport_request, &rpc->passport_response,
      [this, rpc, token = in_flight_.Add(rpc->passport_context.get())](const grpc::Status& status) {
        // Nobody signed in: the page sends them to sign in. Anything else is not to be taken for that.
        if (!status.ok() && status.error_code() != grpc::StatusCode::UNAUTHENTICATED) return Answer(rpc, status);
        if (status.ok()) rpc->request.set_passport(rpc->passport_response.passport());
        CallBroker(rpc);
      });
}

void PageHandler::CallBroker(const std::shared_ptr<Rpc>& rpc) {
  broker_pages_->async()->Handle(
      rpc->context.get(), &rpc->request, &rpc->response,
      [this, rpc, token = in_flight_.Add(rpc->context.get())](const grpc::Status& status) { Answer(rpc, status); });
}

void PageHandler::Answer(const std::shared_ptr<Rpc>& rpc, const grpc::Status& grpc_status) {
  const absl::Status status = FromGrpcStatus(grpc_status);
  // Not on loopback: it would bind all that listens there.
  const bool https = site_.public_url.starts_with("https://") && !site_.public_is_loopback;
  rpc->ref.Post([rpc, status, https](Exchange& exchange) {
    std::vector<Field> fields;
    // RFC 6797: browsers must not fall back to HTTP.
    if (https) fields.push_back({"Strict-Transport-Security", "max-age=31536000"});
    const bool has_cors =
        status.ok() && std::any_of(rpc->response.headers().begin(), rpc->response.headers().end(),
                                   [](const auto& header) { return header.name() == "access-control-allow-origin"; });
    // Also on a refusal: a client in a browser could not tell it from a network error.
    if (!rpc->cors.empty() && !has_cors) {
      fields.push_back({"Access-Control-Allow-Origin", rpc->cors});
      if (rpc->cors != "*") fields.push_back({"Vary", "Origin"});
    }
    if (!status.ok()) return RespondError(exchange, status, std::move(fields));
    // Beside the policy that comes with the page, which can only narrow it: the broker's pages need no script, and on
    // this origin one could act for whoever looks at them. Nor do they need cookies, which are authn's.
    if (rpc->to_broker) fields.push_back({"Content-Security-Policy", kBrokerPolicy});
    for (const web::v1::Header& header : rpc->response.headers()) {
      if (rpc->to_broker && header.name() == "set-cookie") continue;
      fields.push_back({header.name(), header.value()});
    }
    exchange.Respond(rpc->response.status(), fields, rpc->response.body());
  });
}

}  // namespace sallyport::edge
