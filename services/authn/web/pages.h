// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "services/authn/identity.h"

namespace sallyport::authn::web {

// The pages as documents; pure. Every text in them is escaped (common/web/page.h).

// "<client> wants to use <server>", on the pages before the sign-in. Empty when somebody just signs in.
struct Errand {
  std::string client;
  std::string server;
};

struct LoginChoice {
  std::string id;
  std::string display_name;
  bool local = false;
};
// `again`: whoever is signed in wants to be somebody else, so the provider is to ask.
std::string LoginPage(const std::vector<LoginChoice>& choices, const Errand& errand, absl::string_view return_to,
                      bool again, absl::string_view host);

struct LocalLogin {
  std::string connector;
  std::string return_to;
  std::string csrf;
  std::string username;
  // -1: no attempt yet. 0: paused.
  int tries_left = -1;
  bool has_other_ways = false;
};
std::string LocalLoginPage(const LocalLogin& form, const Errand& errand, absl::string_view host);

struct Consent {
  Identity user;
  std::string connector_name;
  std::string client_name;
  // By the administrator, who vouches for the name.
  bool client_is_registered = false;
  // Where the code goes: a host, or "scheme:".
  std::string redirect_host;
  // From there to a program on this computer (LeadsToLocalProgram).
  bool local_program = false;
  // The user allowed the same program before: one click, and no list of what it may.
  bool allowed_before = false;
  std::string server_name;
  std::string resource;
  // When the client named no server: those to choose from.
  struct Choice {
    std::string slug;
    std::string name;
    std::string resource;
  };
  std::vector<Choice> choices;
  // The user has to link an account at the app next.
  bool links_app = false;
  bool is_api = false;
  std::string transaction;
  std::string csrf;
  // What was missing when the form was sent.
  std::string note;
};
std::string ConsentPage(const Consent& consent, absl::string_view host);

struct Problem {
  std::string title;
  std::string lead;
  // To send to an administrator: a stable code.
  std::string code;
  // One way on; none when `href` is empty.
  std::string href;
  std::string label;
};
std::string ErrorPage(const Problem& problem, absl::string_view host);

std::string LogoutPage(const Identity& user, absl::string_view csrf, absl::string_view host);
// Where a person was signed in who has just signed out here: that session goes on. Empty name: nowhere else.
struct ProviderSession {
  std::string name;
  // Ends it, too; empty if the provider offers no such address.
  std::string sign_out_url;
};
std::string SignedOutPage(const ProviderSession& provider, absl::string_view host);

// For somebody who is signed in and came for nothing in particular.
std::string HomePage(const Identity& user, absl::string_view public_url, absl::string_view host);

}  // namespace sallyport::authn::web
