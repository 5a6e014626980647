// SPDX-License-Identifier: Apache-2.0
// Callers whose account at the app is not linked: what they get instead of a dead end, and how their call goes on.
#include "absl/strings/str_cat.h"
#include <openssl/evp.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/rpc/server.h"
#include "common/text/string_view.h"
#include "services/edge/edge_state.h"
#include "services/edge/mcp/mcp_handler.h"

namespace sallyport::edge {
namespace {

constexpr absl::Duration kRpcTimeout = absl::Seconds(5);
// Below the shortest request timeout of known clients (60 s), with room for the call itself.
constexpr absl::Duration kHold = absl::Seconds(25);
constexpr auto kLookAgain = std::chrono::seconds(1);
constexpr absl::Duration kHoldGet = absl::Minutes(30);
constexpr std::string_view kOwnState = "sp1.";
constexpr char kListChanged[] =
    "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

bool IsCallThatNeedsTheAccount(std::string_view method) {
  return method != "initialize" && method != "server/discover" && method != "ping" && method != "tools/list";
}

}  // namespace

token_broker::v1::Call McpHandler::BindingOf(const McpCall& call) const {
  token_broker::v1::Call binding;
  binding.set_method(std::string(call.message.method));
  binding.set_name(std::string(call.message.name));
  binding.set_arguments_digest(Sha256(ToAbsl(call.message.arguments)));
  return binding;
}

// --- a retried call that carries our requestState ---

bool McpHandler::ResumeIfAsked(Exchange& exchange, McpCall& call) {
  if (!call.scanned || !call.message.request_state.starts_with(kOwnState) || call.principal == nullptr) return false;
  for (const RpcMessage::InputResponse& response : call.message.input_responses) {
    if (!response.key.starts_with(kInputKeyPrefix)) continue;
    if (response.action == "decline" || response.action == "cancel") {
      call.rule = "link.declined";
      RespondJson(exchange, call, 200, DeclinedReply(call.message, DeclinedThing(call, response.key)));
      return true;
    }
  }
  Resume(exchange, call);
  return true;
}

std::string McpHandler::DeclinedThing(const McpCall& call, std::string_view key) const {
  if (!call.entry->app_uid.empty()) return doors_.AppName(*call.entry) + " account";
  if (const auto own = doors_.OwnCredentialOf(*call.entry); own.has_value()) return own->app_display_name();
  // A consent, whose request is named after the connector.
  return std::string(key.substr(kInputKeyPrefix.size())) + " account";
}

void McpHandler::Resume(Exchange& exchange, McpCall& call) {
  struct Rpc {
    std::unique_ptr<grpc::ClientContext> context;
    token_broker::v1::ResumeLinkRequest request;
    token_broker::v1::ResumeLinkResponse response;
  };
  auto rpc = std::make_shared<Rpc>();
  rpc->context = MakeClientContext(kRpcTimeout, call.principal->passport);
  rpc->request.set_server_uid(call.entry->uid);
  *rpc->request.mutable_call() = BindingOf(call);
  rpc->request.set_request_state(std::string(call.message.request_state));
  doors_.broker().async()->ResumeLink(
      rpc->context.get(), &rpc->request, &rpc->response,
      [this, rpc, ref = exchange.Defer(), token = in_flight_.Add(rpc->context.get())](const grpc::Status& status) {
        const absl::Status result = FromBroker(status);
        ref.Post([this, result](Exchange& live) {
          McpCall& waiting = CallOf(live);
          if (absl::IsInvalidArgument(result)) {
            return Refuse(live, waiting,
                          {.status = 400,
                           .rpc_code = -32602,
                           .reason = "request_state_mismatch",
                           .message = "requestState is not for this call, or has expired"});
          }
          if (!result.ok()) return RefuseStatus(live, waiting, result);
          waiting.resumed = true;
          CutOwnMembers(live, waiting);
          // What was resolved before may still say "not linked".
          waiting.principal->set_credentials(nullptr, waiting.account);
          DoorTwo(live, waiting);
        });
      });
}

// The upstream must see the call as the client first made it.
void McpHandler::CutOwnMembers(Exchange& exchange, McpCall& call) {
  const RpcMessage& message = call.message;
  std::vector<RpcMessage::Range> members = {message.request_state_range};
  std::vector<RpcMessage::Range> own;
  for (const RpcMessage::InputResponse& response : message.input_responses) {
    if (response.key.starts_with(kInputKeyPrefix)) own.push_back(response.range);
  }
  if (own.size() == message.input_responses.size()) {
    if (!message.input_responses_range.empty()) members.push_back(message.input_responses_range);
  } else {
    members.insert(members.end(), own.begin(), own.end());
  }
  const std::vector<RpcMessage::Range> cuts = WidenToMembers(exchange.body(), members);
  for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) exchange.CutBody(cut->begin, cut->end - cut->begin);
  // Views into the body have moved.
  if (ScanRpcMessage(exchange.body(), call.message) != ScanError::kNone) {
    Log(LogLevel::kError, "cut_broke_body");
    call.scanned = false;
  }
}

// --- the link signal ---

void McpHandler::NeedsLink(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link) {
  // The broker spoke of an account of nobody.
  if (call.principal == nullptr) return RefuseStatus(exchange, call, absl::UnavailableError("no caller to link"));
  call.rule = "link_required";
  const std::string_view method = exchange.head().method;
  if (method == "GET") return HoldGet(exchange, call, link);
  if (method == "DELETE") {
    if (call.synthetic) synthetic_.Erase(call.upstream_session);
    return RespondEmpty(exchange, call, 200);
  }
  if (call.message.kind == RpcMessage::Kind::kNotification || call.message.kind == RpcMessage::Kind::kResponse) {
    return RespondEmpty(exchange, call, 202);
  }
  if (call.message.kind == RpcMessage::Kind::kBatch) {
    return Refuse(exchange, call,
                  {.status = 400,
                   .rpc_code = -32600,
                   .reason = "link_required",
                   .message = "link the account first, with a single request"});
  }
  if (!IsCallThatNeedsTheAccount(call.message.method)) return AnswerSynthetically(exchange, call, link);
  if (call.resumed && clock_.Now() < (call.held ? call.held_until : absl::InfiniteFuture()))
    return Hold(exchange, call, link);
  SendSignal(exchange, call, link);
}

void McpHandler::AnswerSynthetically(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link) {
  const std::string& app = link.app_display_name().empty() ? link.app_slug() : link.app_display_name();
  const std::string body =
      SyntheticReply(call.message, call.entry->display_name, app, link.credential() ? app : app + " account");
  std::string session;
  if (call.message.method == "initialize" && !call.message.modern) {
    const uint8_t capabilities = call.message.elicitation_url ? kCapabilityElicitationUrl : uint8_t{0};
    const std::string id = synthetic_.Create(call.entry->uid, call.principal->subject, call.message.params);
    if (const auto tagger = doors_.tagger(); !id.empty() && tagger != nullptr) {
      session = tagger->Tag(call.principal->subject, call.entry->uid, id, capabilities, call.chosen_account());
    }
  }
  const Field field = {"Mcp-Session-Id", session};
  RespondJson(exchange, call, 200, body, std::span<const Field>(&field, session.empty() ? 0 : 1));
}

void McpHandler::SendSignal(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link) {
  const LinkForm form =
      ChooseLinkForm(call.message, call.has_session && (call.capabilities & kCapabilityElicitationUrl) != 0);
  struct Rpc {
    std::unique_ptr<grpc::ClientContext> context;
    token_broker::v1::StartLinkRequest request;
    token_broker::v1::StartLinkResponse response;
  };
  auto rpc = std::make_shared<Rpc>();
  rpc->context = MakeClientContext(kRpcTimeout, call.principal->passport);
  rpc->request.set_server_uid(call.entry->uid);
  rpc->request.set_app_uid(link.app_uid());
  rpc->request.set_claims(link.claims());
  rpc->request.set_account(link.account());
  if (form == LinkForm::kInputRequired) *rpc->request.mutable_call() = BindingOf(call);
  const std::string& app_slug = link.app_slug();
  doors_.broker().async()->StartLink(
      rpc->context.get(), &rpc->request, &rpc->response,
      [this, rpc, form, app_slug, ref = exchange.Defer(),
       token = in_flight_.Add(rpc->context.get())](const grpc::Status& status) {
        const absl::Status result = FromBroker(status);
        ref.Post([this, rpc, result, form, app_slug](Exchange& live) {
          McpCall& waiting = CallOf(live);
          if (!result.ok()) return RefuseStatus(live, waiting, result);
          const LinkSignal signal = {rpc->response.url(), rpc->response.elicitation_id(), rpc->response.request_state(),
                                     rpc->response.message(), app_slug};
          int http_status = 200;
          const std::string body = LinkReply(waiting.message, form, signal, &http_status);
          RespondJson(live, waiting, http_status, body);
        });
      });
}

// --- waiting for the user to come back ---

void McpHandler::Await(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link,
                       absl::Time until) {
  const bool first = !call.held;
  if (first) {
    call.held = true;
    call.held_until = until;
  }
  call.waiting_for = absl::StrCat(call.principal->subject, "\n", link.app_uid(), "\n", link.account());
  {
    MutexLock lock(waiters_mu_);
    waiters_[call.waiting_for].push_back({&exchange, exchange.Defer()});
  }
  // After what its end undoes: the client may be gone, and with it all of the call.
  if (first && !StartHeldStream(exchange, call)) return;
  std::chrono::milliseconds left(absl::ToInt64Milliseconds(call.held_until - clock_.Now()));
  // The account may have been linked between the broker's answer and our waiting for it: that would not be told again.
  if (first && exchange.head().method == "POST") left = std::min<std::chrono::milliseconds>(left, kLookAgain);
  // Whatever the wall clock says by then: it may have been set back.
  exchange.Wake(std::max(left, std::chrono::milliseconds(1)), [this](Exchange& live) {
    McpCall& waiting = CallOf(live);
    if (!waiting.waiting_for.empty()) WakeUp(live, waiting);
  });
}

bool McpHandler::StartHeldStream(Exchange& exchange, McpCall& call) {
  const bool open = call.origin.empty()
                        ? exchange.StartStream({})
                        : exchange.StartStream({{"Access-Control-Allow-Origin", call.origin}, {"Vary", "Origin"}});
  return open && streams_.Opened(exchange, call);
}

void McpHandler::Hold(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link) {
  Await(exchange, call, link, clock_.Now() + kHold);
}

void McpHandler::HoldGet(Exchange& exchange, McpCall& call, const token_broker::v1::LinkRequired& link) {
  if (call.held && clock_.Now() >= call.held_until) return exchange.EndStream();
  Await(exchange, call, link, clock_.Now() + kHoldGet);
}

void McpHandler::WakeUp(Exchange& exchange, McpCall& call) {
  StopWaiting(call, &exchange);
  if (exchange.head().method == "GET") {
    if (clock_.Now() < call.held_until) exchange.WriteEvent(kListChanged);
    return exchange.EndStream();
  }
  call.principal->set_credentials(nullptr, call.account);
  // Through door one too: the caller may have been revoked meanwhile.
  StartAnew(exchange, call);
}

void McpHandler::StopWaiting(McpCall& call, const void* exchange) {
  if (call.waiting_for.empty()) return;
  MutexLock lock(waiters_mu_);
  if (const auto found = waiters_.find(call.waiting_for); found != waiters_.end()) {
    std::erase_if(found->second, [exchange](const Waiter& waiter) { return waiter.exchange == exchange; });
    if (found->second.empty()) waiters_.erase(found);
  }
  call.waiting_for.clear();
}

void McpHandler::OnConnection(const std::string& key) {
  std::vector<Waiter> woken;
  {
    MutexLock lock(waiters_mu_);
    const auto found = waiters_.find(key);
    if (found == waiters_.end()) return;
    woken = found->second;
  }
  for (const Waiter& waiter : woken) {
    waiter.ref.Post([this, key](Exchange& live) {
      McpCall& waiting = CallOf(live);
      if (waiting.waiting_for == key) WakeUp(live, waiting);
    });
  }
}

}  // namespace sallyport::edge
