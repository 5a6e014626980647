// SPDX-License-Identifier: Apache-2.0
#include "services/edge/api/api_handler.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/util/json_util.h>

#include "common/error.h"
#include "common/rpc/client_address.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "common/text/string_view.h"
#include "sallyport/audit/v1/audit.pb.h"
#include "sallyport/authn/v1/clients.pb.h"
#include "sallyport/common/v1/options.pb.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "services/edge/http_errors.h"
#include "services/edge/request_credentials.h"

namespace sallyport::edge {
namespace {

using google::protobuf::Message;
using google::protobuf::MessageFactory;

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr absl::Duration kPassportTimeout = absl::Seconds(5);
constexpr std::string_view kPrefix = "/api/";
constexpr std::string_view kInvalidToken = "Bearer error=\"invalid_token\"";

std::unique_ptr<Message> NewMessage(const google::protobuf::Descriptor* type) {
  return std::unique_ptr<Message>(MessageFactory::generated_factory()->GetPrototype(type)->New());
}

grpc::ByteBuffer ToBuffer(const Message& message) {
  const std::string bytes = message.SerializeAsString();
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

bool FromBuffer(const grpc::ByteBuffer& buffer, Message& message) {
  grpc::Slice slice;
  return buffer.DumpToSingleSlice(&slice).ok() && message.ParseFromArray(slice.begin(), static_cast<int>(slice.size()));
}

// A strict JSON check first: protobuf's reader takes duplicate and unquoted keys.
absl::Status ReadJson(std::string_view body, Message& message) {
  ASSIGN_OR_RETURN(const nlohmann::json checked, ParseJsonObject(body.empty() ? "{}" : ToAbsl(body)));
  const auto status = google::protobuf::util::JsonStringToMessage(checked.dump(), &message);
  if (!status.ok()) {
    // Its message may quote the input, which may hold a secret: only where, not what.
    std::string reason(status.message().data(), status.message().size());
    const size_t colon = reason.find(':');
    reason = colon == std::string::npos ? "does not fit the message" : reason.substr(0, colon);
    return WithReason(
        absl::InvalidArgumentError(absl::StrCat("the body is not this method's request: ", reason.substr(0, 64))),
        "bad_request");
  }
  return absl::OkStatus();
}

// "application/json", with or without parameters.
bool IsJson(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  const std::string_view rest = content_type.substr(std::min(kJson.size(), content_type.size()));
  return EqualIgnoreCase(content_type.substr(0, kJson.size()), kJson) &&
         (rest.empty() || rest.front() == ';' || rest.front() == ' ');
}

}  // namespace

struct ApiHandler::Rpc {
  ExchangeRef ref;
  Method method;
  std::string grpc_path;
  std::unique_ptr<Message> request;
  std::unique_ptr<grpc::ClientContext> passport_context = MakeClientContext(kPassportTimeout);
  authn::v1::GetPassportRequest passport_request;
  authn::v1::GetPassportResponse passport_response;
  std::unique_ptr<grpc::ClientContext> context;
  grpc::ByteBuffer request_buffer;
  grpc::ByteBuffer response_buffer;
};

ApiHandler::ApiHandler(const SiteOptions& site, const Channels& channels)
    : site_(site), authn_(authn::v1::Authn::NewStub(channels.authn)) {}

absl::StatusOr<std::unique_ptr<ApiHandler>> ApiHandler::Create(const SiteOptions& site, const Channels& channels) {
  std::unique_ptr<ApiHandler> api(new ApiHandler(site, channels));
  // A file whose messages nothing else here names would not be linked, and its services not be found.
  google::protobuf::LinkMessageReflection<authn::v1::ListOwnClientsRequest>();
  RETURN_IF_ERROR(api->AddService("sallyport.authn.v1.Authn", channels.authn));
  RETURN_IF_ERROR(api->AddService("sallyport.authn.v1.Clients", channels.authn));
  RETURN_IF_ERROR(api->AddService("sallyport.authn.v1.Revocation", channels.authn));
  RETURN_IF_ERROR(api->AddService("sallyport.token_broker.v1.TokenBroker", channels.token_broker));
  RETURN_IF_ERROR(api->AddService("sallyport.vault.v1.VaultAdmin", channels.vault));
  RETURN_IF_ERROR(api->AddService("sallyport.registry.v1.Registry", channels.registry));
  RETURN_IF_ERROR(api->AddService("sallyport.audit.v1.Audit", channels.registry));
  return api;
}

absl::Status ApiHandler::AddService(const std::string& full_name, const std::shared_ptr<grpc::Channel>& channel) {
  const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(full_name);
  if (service == nullptr) return absl::FailedPreconditionError(absl::StrCat("no service ", full_name));
  stubs_.push_back(std::make_unique<grpc::GenericStub>(channel));
  for (int i = 0; i < service->method_count(); ++i) {
    const auto* method = service->method(i);
    const auto access = method->options().GetExtension(common::v1::access);
    if (access == common::v1::ACCESS_UNSPECIFIED) {
      return absl::FailedPreconditionError(absl::StrCat(method->full_name(), " has no access option"));
    }
    if (access == common::v1::ACCESS_INTERNAL || access == common::v1::ACCESS_PLATFORM) continue;
    methods_[absl::StrCat(full_name, "/", method->name())] = {method, stubs_.back().get(),
                                                              access == common::v1::ACCESS_ANYONE};
  }
  return absl::OkStatus();
}

// A browser's request: it must have been made by our own page.
absl::Status ApiHandler::CheckCookieRequest(const RequestHead& head) const {
  const HeaderField* origin = head.Find(HeaderId::kOrigin);
  if (origin == nullptr || origin->value != site_.public_url || head.ValueOf("sec-fetch-site") != "same-origin") {
    return WithReason(absl::PermissionDeniedError("a request with a cookie must come from this site's own pages"),
                      "cross_site_request");
  }
  return absl::OkStatus();
}

void ApiHandler::OnRequest(Exchange& exchange) {
  const RequestHead& head = exchange.head();
  const auto fail = [&exchange](const absl::Status& status, std::vector<Field> extra = {}) {
    RespondError(exchange, status, std::move(extra));
  };
  const auto method = methods_.find(head.path.substr(kPrefix.size()));
  if (method == methods_.end()) return fail(absl::NotFoundError("there is no such method"));
  if (head.method != "POST") {
    return RespondError(exchange, 405, "method_not_allowed", "use POST", {{"Allow", "POST"}});
  }
  const HeaderField* content_type = head.Find(HeaderId::kContentType);
  if (content_type == nullptr || !IsJson(content_type->value)) {
    return RespondError(exchange, 415, "unsupported_media_type", "send Content-Type: application/json");
  }
  auto rpc = std::make_shared<Rpc>();
  rpc->method = method->second;
  rpc->grpc_path = absl::StrCat("/", method->first);
  rpc->request = NewMessage(rpc->method.descriptor->input_type());
  if (const absl::Status read = ReadJson(exchange.body(), *rpc->request); !read.ok()) return fail(read);

  if (!rpc->method.anyone) {
    const std::string_view bearer = BearerOf(head);
    const std::string cookies = CookiesOf(head);
    if (head.Find(HeaderId::kAuthorization) == nullptr && !cookies.empty()) {
      if (const absl::Status own_page = CheckCookieRequest(head); !own_page.ok()) return fail(own_page);
      rpc->passport_request.set_cookie(cookies);
    } else if (IsBearerToken(bearer)) {
      rpc->passport_request.set_api_token(std::string(bearer));
    } else if (!bearer.empty()) {
      return fail(absl::UnauthenticatedError("the Authorization header holds no bearer token"),
                  {{"WWW-Authenticate", kInvalidToken}});
    } else {
      return fail(absl::UnauthenticatedError("send Authorization: Bearer <token of `sallyport login`>"),
                  {{"WWW-Authenticate", "Bearer"}});
    }
    rpc->passport_request.set_purpose(authn::v1::GetPassportRequest::API);
  }
  rpc->ref = exchange.Defer();
  if (rpc->method.anyone) {
    rpc->context = MakeClientContext(kTimeout);
    rpc->context->AddMetadata(kClientAddressMetadata, ClientAddressText(site_, exchange.client(), head));
    return Invoke(rpc);
  }
  authn_->async()->GetPassport(
      rpc->passport_context.get(), &rpc->passport_request, &rpc->passport_response,
      [this, rpc, token = in_flight_.Add(rpc->passport_context.get())](const grpc::Status& status) {
        if (!status.ok()) return Fail(rpc->ref, FromGrpcStatus(status));
        rpc->context = MakeClientContext(kTimeout, rpc->passport_response.passport());
        Invoke(rpc);
      });
}

void ApiHandler::Fail(const ExchangeRef& ref, const absl::Status& status) {
  ref.Post([status](Exchange& exchange) {
    if (absl::IsUnauthenticated(status)) {
      return RespondError(exchange, status, {{"WWW-Authenticate", kInvalidToken}});
    }
    RespondError(exchange, status);
  });
}

void ApiHandler::Invoke(const std::shared_ptr<Rpc>& rpc) {
  rpc->request_buffer = ToBuffer(*rpc->request);
  rpc->method.stub->UnaryCall(
      rpc->context.get(), rpc->grpc_path, {}, &rpc->request_buffer, &rpc->response_buffer,
      [rpc, token = in_flight_.Add(rpc->context.get())](const grpc::Status& status) {
        if (!status.ok()) return Fail(rpc->ref, FromGrpcStatus(status));
        const std::unique_ptr<Message> response = NewMessage(rpc->method.descriptor->output_type());
        std::string json;
        google::protobuf::util::JsonPrintOptions options;
        options.always_print_primitive_fields = false;
        if (!FromBuffer(rpc->response_buffer, *response) ||
            !google::protobuf::util::MessageToJsonString(*response, &json, options).ok()) {
          return Fail(rpc->ref, absl::InternalError("an answer does not transcode"));
        }
        rpc->ref.Post([json](Exchange& exchange) {
          exchange.Respond(200, {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}}, json);
        });
      });
}

}  // namespace sallyport::edge
