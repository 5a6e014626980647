// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "services/edge/http/upstream_target.h"

namespace sallyport::edge {

// Where the calls of one server go whose address or client certificate is a secret: made of what the broker has
// resolved. What is resolved again and has not changed gives the same target, so that all callers of the server share
// its connections; anything else gives one with a pool of its own. Thread-safe.
class SecretTarget {
 public:
  struct Wanted {
    bool url = false;
    bool certificate = false;
  };
  // `base` is complete but for what is wanted; its origin is that of the address.
  SecretTarget(UpstreamTarget base, Wanted wanted) : base_(std::move(base)), wanted_(wanted) {}

  // Empty: was not resolved. FAILED_PRECONDITION reason credential_missing if something is wanted that is not there or
  // cannot be used, PERMISSION_DENIED reason origin_not_allowed if the address is of another origin. The target wipes
  // its address when it goes.
  absl::StatusOr<std::shared_ptr<const UpstreamTarget>> Make(std::string_view url, std::string_view certificate_pem);

 private:
  absl::StatusOr<UpstreamTarget> Build(std::string_view url, std::string_view certificate_pem) const;

  const UpstreamTarget base_;
  const Wanted wanted_;
  Mutex mu_;
  std::string digest_ ABSL_GUARDED_BY(mu_);  // Of what `last_` was made of.
  // Lives as long as credentials hold it: no secret stays here when they are gone.
  std::weak_ptr<const UpstreamTarget> last_ ABSL_GUARDED_BY(mu_);
  uint64_t made_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::edge
