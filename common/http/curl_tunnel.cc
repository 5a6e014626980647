// SPDX-License-Identifier: Apache-2.0
#include "common/http/curl_tunnel.h"

#include "absl/strings/str_cat.h"

namespace sallyport {
namespace {

// Before each attempt at the request, on a new connection or one that was kept.
int OnOpened(void* user, char* /*peer*/, char* /*local*/, int /*peer_port*/, int /*local_port*/) {
  static_cast<CurlTunnel*>(user)->opened = true;
  return CURL_PREREQFUNC_OK;
}

// The proxy's status for CONNECT; 0 if none came.
long AnswerOf(CURL* easy) {
  long answer = 0;
  curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &answer);
  return answer;
}

}  // namespace

bool CurlTunnel::Configure(CURL* easy, curl_slist* proxy_headers) {
  bool ok = true;
  const auto set = [&](CURLoption option, auto value) { ok = ok && curl_easy_setopt(easy, option, value) == CURLE_OK; };
  set(CURLOPT_NOPROXY, "");  // Else the environment's no_proxy would lead a request round the proxy.
  if (proxy == nullptr) {
    set(CURLOPT_PROXY, "");  // Also keeps the environment's proxies out.
    return ok;
  }
  set(CURLOPT_PROXY, proxy->url().c_str());
  set(CURLOPT_PROXYTYPE, static_cast<long>(CURLPROXY_HTTP));
  set(CURLOPT_HTTPPROXYTUNNEL, 1L);
  set(CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));  // The proxy gets none of the request's fields.
  set(CURLOPT_PROXYHEADER, proxy_headers);
  set(CURLOPT_PREREQFUNCTION, &OnOpened);
  set(CURLOPT_PREREQDATA, static_cast<void*>(this));
  return ok;
}

std::optional<ProxyFailure> CurlTunnel::FailureOf(CURL* easy, CURLcode code, bool https) const {
  if (proxy == nullptr || opened || code == CURLE_OK) return std::nullopt;
  const long answer = AnswerOf(easy);
  // The tunnel was opened, and TLS with the host failed. A broken head of such an answer is a RECV_ERROR.
  if (answer >= 200 && answer <= 299 && https && code != CURLE_RECV_ERROR) return std::nullopt;
  if (code == CURLE_COULDNT_RESOLVE_PROXY || code == CURLE_COULDNT_CONNECT) return ProxyFailure::kUnreachable;
  if (answer == 407) return ProxyFailure::kUnauthorized;
  if (answer >= 300) return ProxyFailure::kRefused;
  return code == CURLE_OPERATION_TIMEDOUT ? ProxyFailure::kTimeout : ProxyFailure::kBadResponse;
}

absl::Status CurlTunnel::StatusOf(CURL* easy, ProxyFailure failure, const std::string& host) const {
  const std::string name = absl::StrCat("the egress proxy ", ConnectAuthority(proxy->host(), proxy->port()));
  switch (failure) {
    case ProxyFailure::kUnreachable:
      return absl::UnavailableError(absl::StrCat("cannot connect to ", name));
    case ProxyFailure::kTimeout:
      return absl::DeadlineExceededError(absl::StrCat(name, " did not connect to ", host, " in time"));
    case ProxyFailure::kUnauthorized:
      return absl::UnavailableError(absl::StrCat(
          name, " refuses our credentials (407); check username and passwordFile of deployment.egress.proxy"));
    case ProxyFailure::kRefused:
      return absl::UnavailableError(
          absl::StrCat(name, " does not connect to ", host, " (status ", AnswerOf(easy), ")"));
    case ProxyFailure::kBadResponse:
      break;
  }
  return absl::UnavailableError(absl::StrCat(name, " did not answer properly"));
}

}  // namespace sallyport
