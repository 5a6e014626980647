// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include <sys/stat.h>

namespace sallyport {

// Changes when the file does, whether it is written to or replaced; "absent" if there is none.
inline std::string FileIdentity(const std::string& path) {
  struct stat file {};
  if (::stat(path.c_str(), &file) != 0) {
    return "absent";
  }
  return absl::StrCat(file.st_ino, ".", file.st_size, ".", file.st_mtim.tv_sec, ".", file.st_mtim.tv_nsec);
}

}  // namespace sallyport
