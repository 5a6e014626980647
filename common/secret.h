// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include <openssl/crypto.h>

namespace sallyport {

// Bytes that must not reach a log, a metric label or an error message.
// Move-only; wiped on destruction. Every reader writes Expose(), so `grep -rn 'Expose()'` is the list of places to
// review.
class Secret {
 public:
  Secret() = default;
  // Takes the only copy: `plain` is wiped before this returns.
  explicit Secret(std::string plain) : bytes_(plain.begin(), plain.end()) {
    OPENSSL_cleanse(plain.data(), plain.size());
  }
  // For views into buffers somebody else wipes.
  static Secret Copy(absl::string_view plain) {
    Secret secret;
    secret.bytes_.assign(plain.begin(), plain.end());
    return secret;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  Secret(Secret&&) noexcept = default;
  Secret& operator=(Secret&& other) noexcept {
    bytes_.swap(other.bytes_);  // The old bytes are wiped when `other` dies.
    return *this;
  }
  ~Secret() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

  Secret Clone() const { return Copy(Expose()); }
  absl::string_view Expose() const { return {bytes_.data(), bytes_.size()}; }
  bool empty() const { return bytes_.empty(); }

  // Constant-time in the contents; the length is not hidden.
  friend bool operator==(const Secret& a, const Secret& b) {
    return a.bytes_.size() == b.bytes_.size() &&
           (a.bytes_.empty() || CRYPTO_memcmp(a.bytes_.data(), b.bytes_.data(), a.bytes_.size()) == 0);
  }
  friend std::ostream& operator<<(std::ostream& os, const Secret& /*secret*/) { return os << "[redacted]"; }

 private:
  std::vector<char> bytes_;  // Not std::string: a moved-from short string keeps its bytes inline.
};

}  // namespace sallyport
