// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

// Server-rendered pages without script: escaping, the common frame, the style sheet, the headers every page carries.
namespace sallyport::page {

// Escapes & < > " ' for element content and quoted attribute values. Control characters and characters that reorder
// text (bidirectional overrides and isolates) become U+FFFD, so that a name cannot disguise what stands beside it.
std::string Escape(absl::string_view text);

class Arg;

// Trusted markup. Text becomes markup only through Escape: there is no way in from a string.
class Html {
 public:
  Html() = default;
  // `markup` is a literal of ours.
  template <std::size_t N>
  Html(const char (&markup)[N]) : markup_(markup, N - 1) {}  // NOLINT(google-explicit-constructor)
  static Html Text(absl::string_view text) { return Html(Escape(text), 0); }

  Html& operator+=(const Html& more) {
    markup_ += more.markup_;
    return *this;
  }
  const std::string& str() const { return markup_; }
  bool empty() const { return markup_.empty(); }

 private:
  friend Html Fill(absl::string_view pattern, std::initializer_list<Arg> args);
  Html(std::string markup, int /*trusted*/) : markup_(std::move(markup)) {}
  std::string markup_;
};

// What Fill puts in: Html as it is, everything else escaped.
class Arg {
 public:
  Arg(const Html& html) : markup_(html.str()) {}           // NOLINT(google-explicit-constructor)
  Arg(const std::string& text) : markup_(Escape(text)) {}  // NOLINT(google-explicit-constructor)
  Arg(absl::string_view text) : markup_(Escape(text)) {}   // NOLINT(google-explicit-constructor)
  Arg(const char* text) : markup_(Escape(text)) {}         // NOLINT(google-explicit-constructor)
  Arg(int number) : markup_(std::to_string(number)) {}     // NOLINT(google-explicit-constructor)

 private:
  friend Html Fill(absl::string_view pattern, std::initializer_list<Arg> args);
  std::string markup_;
};

// Replaces the first "{}" of `pattern` (a literal of ours) by the first argument, and so on. As many arguments as
// places.
//   Fill("<h1>Connect {}</h1>", {name})
Html Fill(absl::string_view pattern, std::initializer_list<Arg> args);

// Where the reader stands on the drawing above the card: before the first door, in it, between the doors, past the
// second.
enum class Place { kOutside, kFirstDoor, kInside, kBeyond };

struct Page {
  std::string title;  // Of the window.
  Place place = Place::kOutside;
  std::string left = "You";  // Captions of the drawing: who comes, and where to.
  std::string right;
  Html body;  // Inside the card: begins with <h1>.
  bool wide = false;
  std::string host;  // In the footer.
  // Navigates there at once. For what follows a form: `form-action 'self'` blocks redirects off the origin after a
  // POST. The body carries a link to the same place.
  std::string refresh;
};

// The whole document; links /login/style.css.
std::string Render(const Page& page);

// Ready-made parts; texts are escaped.
Html Lead(absl::string_view text);
enum class Tone { kPlain, kOk, kWarn, kBad };
Html Note(Tone tone, absl::string_view strong, absl::string_view text);
// Round initials, name, second line; `not_you` is the address behind "Not you?" (no link when empty).
Html WhoAmI(absl::string_view name, absl::string_view detail, absl::string_view not_you);
Html Check(absl::string_view text);  // One line of <ul class="may">.
Html HiddenField(absl::string_view name, absl::string_view value);
Html ButtonLink(absl::string_view href, absl::string_view label, bool primary = true);
Html QuietLink(absl::string_view href, absl::string_view label);

// A page that goes on by itself to `target`: title, a sentence, a link with the same target, and the refresh.
std::string RenderContinue(absl::string_view title, absl::string_view lead, absl::string_view target,
                           absl::string_view host);

// Headers of every page, names in lower case: content-type, content-security-policy (default-src 'none'; style-src
// 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'), x-frame-options, x-content-type-options,
// referrer-policy, cache-control no-store, cross-origin-opener-policy.
const std::vector<std::pair<std::string, std::string>>& Headers();

// The style sheet, light and dark. Served at /login/style.css as text/css.
absl::string_view StyleSheet();

}  // namespace sallyport::page
