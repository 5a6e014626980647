// SPDX-License-Identifier: Apache-2.0
#include "common/listen.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <netdb.h>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/config/service_config.h"
#include "common/error.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Addresses Resolve(const std::string& host, const std::string& port) {
  addrinfo hints = {};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    found = nullptr;
  }
  return {found, [](addrinfo* list) {
            if (list != nullptr) {
              freeaddrinfo(list);
            }
          }};
}

// On failure an empty descriptor, and errno says why.
Fd Open(const addrinfo& place, int port, bool both_families, int backlog) {
  sockaddr_storage address = {};
  memcpy(&address, place.ai_addr, place.ai_addrlen);
  if (port != 0) {
    // The same place in both kinds of address.
    reinterpret_cast<sockaddr_in*>(&address)->sin_port = htons(static_cast<uint16_t>(port));
  }
  Fd fd(socket(place.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  const int off = 0;
  if (fd.get() < 0 || setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      (both_families && setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0) ||
      bind(fd.get(), reinterpret_cast<sockaddr*>(&address), place.ai_addrlen) != 0 || listen(fd.get(), backlog) != 0) {
    const int error = errno;
    fd = Fd();
    errno = error;
  }
  return fd;
}

// A host without IPv6, or without that address of the name.
bool IsNotThere(int error) {
  return error == EAFNOSUPPORT || error == EADDRNOTAVAIL || error == EPROTONOSUPPORT || error == ENOPROTOOPT;
}

absl::Status CannotListen(const std::string& address, int error) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", strerror(error)));
}

}  // namespace

absl::StatusOr<std::vector<Fd>> ListenOn(const std::string& address, const std::string& field, ListenMode mode,
                                         int backlog) {
  RETURN_IF_ERROR(CheckListenAddress(field, address));
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  std::vector<Fd> sockets;
  if (mode == ListenMode::kAll && (host == "0.0.0.0" || host == "::")) {
    const Addresses any = Resolve("::", port);
    Fd both = any == nullptr ? Fd() : Open(*any, 0, true, backlog);
    if (both.get() >= 0) {
      sockets.push_back(std::move(both));
      return sockets;
    }
    if (any != nullptr && !IsNotThere(errno)) {
      return CannotListen(address, errno);
    }
    host = "0.0.0.0";
  }
  const Addresses found = Resolve(host, port);
  if (found == nullptr) {
    return InvalidField(field, absl::StrCat(host, " is no address of this host"));
  }
  int last_error = EADDRNOTAVAIL;
  for (const addrinfo* place = found.get(); place != nullptr; place = place->ai_next) {
    Fd fd = Open(*place, sockets.empty() ? 0 : PortOf(sockets.front()), false, backlog);
    if (fd.get() >= 0) {
      sockets.push_back(std::move(fd));
    } else {
      last_error = errno;
      // Half of a name's addresses, the others being another program's, would fail for some callers only.
      if (!IsNotThere(last_error)) {
        return CannotListen(address, last_error);
      }
    }
    if (mode == ListenMode::kFirst) {
      break;
    }
  }
  if (sockets.empty()) {
    return CannotListen(address, last_error);
  }
  return sockets;
}

int PortOf(const Fd& socket) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return 0;
  }
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
}

}  // namespace sallyport
