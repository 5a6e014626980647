// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/resource.h"

#include "absl/strings/match.h"

#include "common/http/url.h"

namespace sallyport::authn::web {

std::string NormalizeResource(absl::string_view resource) {
  const absl::StatusOr<Url> url = Url::Parse(resource);
  if (!url.ok()) {
    return "";
  }
  std::string path = url->path();
  if (absl::EndsWith(path, "/")) {
    path.pop_back();
  }
  return url->origin() + path;
}

bool NamesNoServer(absl::string_view resource, absl::string_view public_url) {
  return resource.empty() || NormalizeResource(resource) == public_url;
}

}  // namespace sallyport::authn::web
