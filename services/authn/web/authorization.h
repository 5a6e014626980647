// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport::authn::web {

// An authorization request that was found valid, and how far its user has come. What lies in a browser transaction.
struct Authorization {
  std::string client_id;
  std::string client_name;
  std::string redirect_uri;
  std::string state;
  std::string code_challenge;
  // Empty while the client has named no server and its user has chosen none.
  std::string resource;
  // Empty for the API of the command line, and while there is no resource.
  std::string server_uid;
  // The client named no server: what stands above was chosen for one user.
  bool named_none = false;
  // "login", "consent" or empty.
  std::string prompt;
  absl::Time begun_at = absl::InfinitePast();
  // Set when the user has consented and was sent to link an account: only this user may come back.
  std::string linking_subject;
  // No page was shown: the administrator has approved the client for the server.
  bool approved = false;

  bool needs_server() const { return resource.empty(); }
  bool is_api() const { return server_uid.empty() && !resource.empty(); }
  // Without the stand-in for a client that calls itself nothing.
  std::string own_client_name() const;
};

std::string EncodeAuthorization(const Authorization& authorization);
absl::StatusOr<Authorization> DecodeAuthorization(absl::string_view text);

}  // namespace sallyport::authn::web
