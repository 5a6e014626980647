// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sallyport::edge {

class ClientCertificate;  // tls_context.h
class ClientTls;

// Where a request goes. Immutable; made once for each version of a server's configuration.
struct UpstreamTarget {
  // Connections are pooled per worker under this name. Give each server its own (uid and version), so that no two share
  // a connection, and so that a changed TLS setting or client certificate dials anew.
  std::string pool_key;
  bool tls = false;
  std::string host;  // Name or literal address, without brackets, lower case.
  uint16_t port = 0;
  std::string host_header;                                // "name", "name:8080", "[::1]:8080"
  std::string path;                                       // As in the URL, still percent-encoded; begins with '/'.
  std::string query;                                      // Of the URL itself, without '?'.
  std::string origin;                                     // "https://name:8443", default port omitted.
  bool secret = false;                                    // Path and query are not to be told to anybody.
  std::chrono::milliseconds connect_timeout{5'000};       // Name resolution, connection and TLS handshake together.
  std::chrono::milliseconds first_byte_timeout{300'000};  // From the last byte sent to the whole response head.
  // Trust for https; nullptr: the engine's default.
  std::shared_ptr<const ClientTls> client_tls;
  // What an https upstream is shown that asks for a certificate; nullptr: nothing.
  std::shared_ptr<const ClientCertificate> client_certificate;
};

// From an absolute http or https URL without userinfo and fragment; pool_key is the origin until set otherwise.
// INVALID_ARGUMENT says what is wrong.
absl::StatusOr<UpstreamTarget> ParseUpstreamUrl(std::string_view url);

}  // namespace sallyport::edge
