// SPDX-License-Identifier: Apache-2.0
#include "common/http/client.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <thread>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <curl/curl.h>
#include <sys/socket.h>

#include "common/crypto/openssl.h"
#include "common/error.h"
#include "common/files.h"
#include "common/http/curl_tunnel.h"
#include "common/http/egress_proxy.h"
#include "common/http/field.h"
#include "common/http/url.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

constexpr size_t kMaxResponseHeaders = 64 << 10;
constexpr long kMaxIdleSeconds = 30;
constexpr char kSystemBundle[] = "/etc/ssl/certs/ca-certificates.crt";

struct EasyDeleter {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
using EasyPtr = std::unique_ptr<CURL, EasyDeleter>;

// libcurl keeps copies of header lines; these are ours to wipe.
void WipeAndFree(curl_slist* lines) {
  for (curl_slist* line = lines; line != nullptr; line = line->next) {
    OPENSSL_cleanse(line->data, std::strlen(line->data));
  }
  curl_slist_free_all(lines);
}

// One exchange, from the call to its callback. Lives on the client's thread once it is started.
struct Exchange {
  HttpRequest request;
  HttpClient::Callback done;
  std::string origin;
  std::string host;
  bool https = true;
  const EgressPolicy* policy = nullptr;
  CurlTunnel tunnel;
  absl::Time deadline;
  HttpResponse response;
  size_t header_bytes = 0;
  bool too_long = false;
  bool dialled_refused = false;
  bool entered_gate = false;
  curl_slist* header_list = nullptr;
  EasyPtr easy;

  ~Exchange() {
    easy.reset();
    WipeAndFree(header_list);
    OPENSSL_cleanse(request.body.data(), request.body.size());
    for (auto& [name, value] : request.headers) OPENSSL_cleanse(value.data(), value.size());
  }
};

absl::Status CheckRequest(const HttpRequest& request) {
  if (!IsToken(request.method)) return absl::InvalidArgumentError("http: malformed method");
  for (const auto& [name, value] : request.headers) {
    if (!IsToken(name)) return absl::InvalidArgumentError("http: malformed header name");
    for (const char* framing : {"host", "content-length", "transfer-encoding", "connection", "expect"}) {
      if (absl::EqualsIgnoreCase(name, framing)) {
        return absl::InvalidArgumentError(absl::StrCat("http: header ", name, " is set by the client itself"));
      }
    }
    if (!IsFieldValue(value)) {
      return absl::InvalidArgumentError(absl::StrCat("http: header ", name, " has a character no header may have"));
    }
  }
  if (request.timeout <= absl::ZeroDuration()) return absl::DeadlineExceededError("http: no time left");
  return absl::OkStatus();
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto* exchange = static_cast<Exchange*>(user);
  const size_t bytes = size * count;
  if (exchange->response.body.size() + bytes > exchange->request.max_body) {
    exchange->too_long = true;
    return 0;  // Ends the transfer.
  }
  exchange->response.body.append(data, bytes);
  return bytes;
}

size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  auto* exchange = static_cast<Exchange*>(user);
  const size_t bytes = size * count;
  exchange->header_bytes += bytes;
  if (exchange->header_bytes > kMaxResponseHeaders) {
    exchange->too_long = true;
    return 0;
  }
  const absl::string_view line = absl::StripAsciiWhitespace(absl::string_view(data, bytes));
  const size_t colon = line.find(':');
  if (absl::StartsWith(line, "HTTP/")) {
    exchange->response.headers.clear();  // The head of an interim response (1xx) is not the answer's.
  } else if (colon != absl::string_view::npos) {
    exchange->response.headers.emplace_back(absl::AsciiStrToLower(line.substr(0, colon)),
                                            std::string(absl::StripAsciiWhitespace(line.substr(colon + 1))));
  }
  return bytes;
}

// The guard: libcurl asks for a socket for each address it is about to connect to.
curl_socket_t OnOpenSocket(void* user, curlsocktype /*purpose*/, curl_sockaddr* target) {
  auto* exchange = static_cast<Exchange*>(user);
  const auto address = IpAddress::FromSockaddr(&target->addr);
  // The proxy is the administrator's own choice, wherever it is.
  const bool allowed =
      address && (exchange->tunnel.proxy != nullptr ? !IsNeverDialled(*address)
                                                    : exchange->policy->MayDial(*address, exchange->https));
  if (!allowed) {
    exchange->dialled_refused = true;
    return CURL_SOCKET_BAD;
  }
  return socket(target->family, target->socktype | SOCK_CLOEXEC, target->protocol);
}

int OnCloseSocket(void* /*user*/, curl_socket_t fd) { return close(fd); }

absl::Status NotSent(absl::Status status) { return WithReason(std::move(status), "not_sent"); }

// What the transfer came to, whether or not the request left.
absl::Status StatusOf(const Exchange& exchange, CURLcode code) {
  const std::string& host = exchange.host;
  if (exchange.too_long || code == CURLE_FILESIZE_EXCEEDED) {
    return absl::ResourceExhaustedError(absl::StrCat("the answer of ", host, " is too long"));
  }
  switch (code) {
    case CURLE_OK:
      return absl::OkStatus();
    case CURLE_OPERATION_TIMEDOUT:
      return absl::DeadlineExceededError(absl::StrCat(host, " did not answer in time"));
    case CURLE_COULDNT_CONNECT:
      return absl::UnavailableError(absl::StrCat("cannot connect to ", host));
    case CURLE_COULDNT_RESOLVE_HOST:
      return absl::UnavailableError(absl::StrCat("the name ", host, " cannot be resolved"));
    case CURLE_PEER_FAILED_VERIFICATION:
      return absl::UnavailableError(absl::StrCat("the certificate of ", host, " is not valid for it"));
    case CURLE_SSL_CONNECT_ERROR:
      return absl::UnavailableError(absl::StrCat("TLS with ", host, " failed"));
    default:
      return absl::UnavailableError(
          absl::StrCat("the exchange with ", host, " failed (", curl_easy_strerror(code), ")"));
  }
}

// Bytes of the request that were written, in all attempts at it.
long SentBytes(CURL* easy) {
  long bytes = 0;
  return curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &bytes) == CURLE_OK ? bytes : 1;
}

absl::Status ResultOf(const Exchange& exchange, CURLcode code) {
  CURL* const easy = exchange.easy.get();
  if (const auto failure = exchange.tunnel.FailureOf(easy, code, exchange.https)) {
    return NotSent(exchange.tunnel.StatusOf(easy, *failure, exchange.host));
  }
  // Of a tunnel the bytes of CONNECT count too.
  const bool sent = SentBytes(easy) > 0 && (exchange.tunnel.proxy == nullptr || exchange.tunnel.opened);
  if (code == CURLE_OK || sent) return StatusOf(exchange, code);
  if (code == CURLE_COULDNT_CONNECT && exchange.dialled_refused) {
    return WithReason(absl::PermissionDeniedError(absl::StrCat(exchange.host, " is in a network that is not allowed")),
                      "network_not_allowed");
  }
  return NotSent(StatusOf(exchange, code));
}

ProviderGate::Outcome OutcomeOf(const absl::Status& status, int http_status) {
  if (status.ok()) return http_status >= 500 ? ProviderGate::Outcome::kFailure : ProviderGate::Outcome::kSuccess;
  const bool theirs = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  return theirs ? ProviderGate::Outcome::kFailure : ProviderGate::Outcome::kNeutral;
}

}  // namespace

std::string HttpResponse::Header(absl::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return "";
}

std::string HttpResponse::MediaType() const {
  const std::string type = Header("content-type");
  return absl::AsciiStrToLower(absl::StripAsciiWhitespace(absl::string_view(type).substr(0, type.find(';'))));
}

struct HttpClient::State {
  explicit State(Options given) : options(std::move(given)), gate(options.gate) {
    clock = options.clock != nullptr ? options.clock : &system_clock;
    for (const ProxyFailure failure : kProxyFailures) proxy_failures[failure] = &ProxyFailureCounter(failure);
    if (options.policy.proxy() != nullptr && !options.policy.proxy()->authorization().empty()) {
      std::string line = absl::StrCat("Proxy-Authorization: ", options.policy.proxy()->authorization().Expose());
      proxy_headers = curl_slist_append(nullptr, line.c_str());
      OPENSSL_cleanse(line.data(), line.size());
    }
  }
  ~State() { WipeAndFree(proxy_headers); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void Run();
  void Start(std::unique_ptr<Exchange> exchange);
  void Finish(CURL* easy, CURLcode code);
  void Complete(std::unique_ptr<Exchange> exchange, const absl::Status& status);
  absl::Status Configure(Exchange& exchange);

  Options options;
  SystemClock system_clock;
  const Clock* clock;
  ProviderGate gate;
  std::string ca_pem;
  curl_slist* proxy_headers = nullptr;  // What only the proxy gets.
  std::map<ProxyFailure, prometheus::Counter*> proxy_failures;
  CURLM* multi = nullptr;
  std::atomic<size_t> exchanges{0};
  std::map<CURL*, std::unique_ptr<Exchange>> running;  // The thread's own.
  Mutex mu;
  std::deque<std::unique_ptr<Exchange>> waiting ABSL_GUARDED_BY(mu);
  bool stopping ABSL_GUARDED_BY(mu) = false;
  std::thread thread;
};

HttpClient::HttpClient(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create(Options options) {
  static const CURLcode initialized = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (initialized != CURLE_OK) return absl::InternalError("libcurl cannot be initialized");
  auto state = std::make_unique<State>(std::move(options));
  if (!state->options.ca_bundle.empty()) {
    ASSIGN_OR_RETURN(state->ca_pem, ReadFile(state->options.ca_bundle));
    // Beside the system's authorities, not instead of them. An image without any has only the configured ones.
    auto system = ReadFile(kSystemBundle);
    if (system.ok()) absl::StrAppend(&state->ca_pem, "\n", *system);
  }
  state->multi = curl_multi_init();
  if (state->multi == nullptr) return absl::InternalError("libcurl cannot be initialized");
  curl_multi_setopt(state->multi, CURLMOPT_MAXCONNECTS, 64L);
  State* raw = state.get();
  state->thread = std::thread([raw] { raw->Run(); });
  return std::unique_ptr<HttpClient>(new HttpClient(std::move(state)));
}

HttpClient::~HttpClient() {
  {
    MutexLock lock(state_->mu);
    state_->stopping = true;
  }
  curl_multi_wakeup(state_->multi);
  state_->thread.join();
  curl_multi_cleanup(state_->multi);
}

absl::StatusOr<HttpResponse> HttpClient::Fetch(HttpRequest request) {
  std::mutex mu;
  std::condition_variable ready;
  std::optional<absl::StatusOr<HttpResponse>> result;
  FetchAsync(std::move(request), [&](absl::StatusOr<HttpResponse> response) {
    const std::lock_guard<std::mutex> lock(mu);
    result = std::move(response);
    ready.notify_one();  // Under the lock: the waiter's stack goes away right after.
  });
  std::unique_lock<std::mutex> lock(mu);
  ready.wait(lock, [&] { return result.has_value(); });
  return *std::move(result);
}

void HttpClient::FetchAsync(HttpRequest request, Callback done) {
  auto exchange = std::make_unique<Exchange>();
  exchange->request = std::move(request);
  exchange->policy = &state_->options.policy;
  if (absl::Status status = CheckRequest(exchange->request); !status.ok()) return done(status);
  auto url = Url::Parse(exchange->request.url);
  if (!url.ok()) return done(url.status());
  if (absl::Status status = state_->options.policy.CheckUrl(*url); !status.ok()) return done(status);
  exchange->request.url = url->ToString();
  exchange->origin = url->origin();
  exchange->host = url->host();
  exchange->https = url->is_https();
  exchange->tunnel.proxy = state_->options.policy.ProxyFor(url->host());
  exchange->deadline = state_->clock->Now() + exchange->request.timeout;
  if (state_->exchanges.fetch_add(1) >= state_->options.max_exchanges) {
    state_->exchanges.fetch_sub(1);
    return done(NotSent(absl::ResourceExhaustedError("http: too many exchanges in flight")));
  }
  if (absl::Status status = state_->gate.Enter(exchange->origin, state_->clock->Now()); !status.ok()) {
    state_->exchanges.fetch_sub(1);
    return done(status);
  }
  exchange->entered_gate = true;
  exchange->done = std::move(done);
  {
    MutexLock lock(state_->mu);
    state_->waiting.push_back(std::move(exchange));
  }
  curl_multi_wakeup(state_->multi);
}

absl::Status HttpClient::State::Configure(Exchange& exchange) {
  exchange.easy.reset(curl_easy_init());
  CURL* const easy = exchange.easy.get();
  if (easy == nullptr) return absl::ResourceExhaustedError("http: out of memory");
  bool ok = true;
  const auto set = [&](CURLoption option, auto value) { ok = ok && curl_easy_setopt(easy, option, value) == CURLE_OK; };
  const HttpRequest& request = exchange.request;
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_PROTOCOLS_STR, exchange.https ? "https" : "http");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_QUICK_EXIT,
      1L);  // Giving up must not wait for a name resolution that hangs: all exchanges share the thread.
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(CURLOPT_MAXAGE_CONN, kMaxIdleSeconds);
  set(CURLOPT_FRESH_CONNECT, request.once ? 1L : 0L);
  set(CURLOPT_FORBID_REUSE, request.once ? 1L : 0L);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout / absl::Milliseconds(1)));
  set(CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>((exchange.deadline - clock->Now()) / absl::Milliseconds(1))));
  set(CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(request.max_body));
  set(CURLOPT_OPENSOCKETFUNCTION, &OnOpenSocket);
  set(CURLOPT_OPENSOCKETDATA, static_cast<void*>(&exchange));
  set(CURLOPT_CLOSESOCKETFUNCTION, &OnCloseSocket);
  set(CURLOPT_WRITEFUNCTION, &OnBody);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&exchange));
  set(CURLOPT_HEADERFUNCTION, &OnHeader);
  set(CURLOPT_HEADERDATA, static_cast<void*>(&exchange));
  if (!ca_pem.empty()) {
    curl_blob blob{ca_pem.data(), ca_pem.size(), CURL_BLOB_NOCOPY};
    set(CURLOPT_CAINFO_BLOB, &blob);
  }
  ok = ok && exchange.tunnel.Configure(easy, proxy_headers);
  const bool has_body = !request.body.empty() || request.method == "POST" || request.method == "PUT";
  if (request.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (has_body) {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    set(CURLOPT_POSTFIELDS, request.body.c_str());
  }
  set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  // "Expect" would cost a round trip; libcurl's guess of a content type is not wanted.
  exchange.header_list = curl_slist_append(exchange.header_list, "Expect:");
  bool has_type = false;
  for (const auto& [name, value] : request.headers) {
    has_type = has_type || absl::EqualsIgnoreCase(name, "content-type");
    // "Name;" is libcurl's way to send an empty value; "Name:" would suppress the header.
    std::string line = value.empty() ? absl::StrCat(name, ";") : absl::StrCat(name, ": ", value);
    exchange.header_list = curl_slist_append(exchange.header_list, line.c_str());
    OPENSSL_cleanse(line.data(), line.size());
  }
  if (has_body && !has_type) exchange.header_list = curl_slist_append(exchange.header_list, "Content-Type:");
  set(CURLOPT_HTTPHEADER, exchange.header_list);
  return ok ? absl::OkStatus() : absl::InternalError("http: libcurl refused an option");
}

void HttpClient::State::Start(std::unique_ptr<Exchange> exchange) {
  if (exchange->deadline <= clock->Now()) {
    const absl::Status status = NotSent(absl::DeadlineExceededError(absl::StrCat("no time left for ", exchange->host)));
    return Complete(std::move(exchange), status);
  }
  absl::Status status = Configure(*exchange);
  CURL* const easy = exchange->easy.get();
  if (status.ok() && curl_multi_add_handle(multi, easy) != CURLM_OK)
    status = absl::InternalError("http: libcurl failed");
  if (!status.ok()) return Complete(std::move(exchange), status);
  running.emplace(easy, std::move(exchange));
}

void HttpClient::State::Finish(CURL* easy, CURLcode code) {
  auto it = running.find(easy);
  if (it == running.end()) return;
  std::unique_ptr<Exchange> exchange = std::move(it->second);
  running.erase(it);
  long http_status = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &http_status);
  exchange->response.status = static_cast<int>(http_status);
  curl_multi_remove_handle(multi, easy);
  const absl::Status status = ResultOf(*exchange, code);
  if (const auto failure = exchange->tunnel.FailureOf(easy, code, exchange->https)) {
    proxy_failures[*failure]->Increment();
  }
  Complete(std::move(exchange), status);
}

void HttpClient::State::Complete(std::unique_ptr<Exchange> exchange, const absl::Status& status) {
  gate.Leave(exchange->origin, OutcomeOf(status, exchange->response.status), clock->Now());
  exchanges.fetch_sub(1);
  Callback done = std::move(exchange->done);
  HttpResponse response = std::move(exchange->response);
  exchange.reset();
  if (status.ok()) {
    done(std::move(response));
  } else {
    done(status);
  }
}

void HttpClient::State::Run() {
  while (true) {
    std::deque<std::unique_ptr<Exchange>> fresh;
    bool stop = false;
    {
      MutexLock lock(mu);
      fresh.swap(waiting);
      stop = stopping;
    }
    for (auto& exchange : fresh) {
      if (stop) {
        Complete(std::move(exchange), NotSent(absl::CancelledError("http: the client is shutting down")));
      } else {
        Start(std::move(exchange));
      }
    }
    if (stop) break;
    int active = 0;
    curl_multi_perform(multi, &active);
    int left = 0;
    while (CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg == CURLMSG_DONE) Finish(message->easy_handle, message->data.result);
    }
    curl_multi_poll(multi, nullptr, 0, 1000, nullptr);
  }
  while (!running.empty()) {
    std::unique_ptr<Exchange> exchange = std::move(running.begin()->second);
    running.erase(running.begin());
    curl_multi_remove_handle(multi, exchange->easy.get());
    Complete(std::move(exchange), absl::CancelledError("http: the client is shutting down"));
  }
}

}  // namespace sallyport
