// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unistd.h>

namespace sallyport {

// What this host calls itself (in a pod, the pod's name); `fallback` if it does not say.
inline std::string HostName(const std::string& fallback) {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 && name[0] != '\0' ? std::string(name) : fallback;
}

}  // namespace sallyport
