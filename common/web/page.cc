// SPDX-License-Identifier: Apache-2.0
#include "common/web/page.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_cat.h"

namespace sallyport::page {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// Length of the character at text[i] if it must not be shown: C0 and C1 controls (but tab and line feed), U+061C,
// U+200E/F, U+2028..202E, U+2066..2069, U+FEFF. 0 otherwise.
size_t HiddenCharacter(absl::string_view text, size_t i) {
  const auto at = [&](size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0U; };
  const unsigned first = at(0);
  if ((first < 0x20 && first != '\t' && first != '\n') || first == 0x7f) {
    return 1;
  }
  if ((first == 0xc2 && at(1) >= 0x80 && at(1) <= 0x9f) || (first == 0xd8 && at(1) == 0x9c)) {
    return 2;
  }
  if (first == 0xef && at(1) == 0xbb && at(2) == 0xbf) {
    return 3;
  }
  if (first == 0xe2 && at(1) == 0x80 && (at(2) == 0x8e || at(2) == 0x8f || (at(2) >= 0xa8 && at(2) <= 0xae))) {
    return 3;
  }
  if (first == 0xe2 && at(1) == 0x81 && at(2) >= 0xa6 && at(2) <= 0xa9) {
    return 3;
  }
  return 0;
}

// The drawing: two walls, two doors, and a dot where the reader stands. A leaf and its arc for an open door, a bar for
// a closed one.
Html Drawing(const Page& page) {
  const char* label = "You stand before the first door. Both doors are closed.";
  int x = 64;
  Html doors(R"(<path class="closed" d="M140 27v34"/><path class="closed" d="M300 27v34"/>)");
  switch (page.place) {
    case Place::kOutside:
      break;
    case Place::kFirstDoor:
      label = "You are at the first door, which is open. The second is closed.";
      x = 156;
      doors =
          R"(<path class="a1" d="M140 60h32a32 32 0 0 0-32-32z"/><path class="l1" d="M139 60h33"/><path class="closed" d="M300 27v34"/>)";
      break;
    case Place::kInside:
      label = "You are between the two doors. Both are closed.";
      x = 220;
      break;
    case Place::kBeyond:
      label = "The second door is open and you are through. The first is closed behind you.";
      x = 376;
      doors =
          R"(<path class="closed" d="M140 27v34"/><path class="a2" d="M300 28h-32a32 32 0 0 0 32 32z"/><path class="l2" d="M301 28h-33"/>)";
      break;
  }
  return Fill(
      R"(<svg class="passage" viewBox="0 0 440 88" role="img" aria-label="{}"><path class="way" d="M8 44h424"/>)"
      R"(<path class="w" d="M140 28V9h160v19M140 60v19h160V60"/>{}<text x="8" y="34">{}</text>)"
      R"(<text x="432" y="34" text-anchor="end">{}</text><circle class="you" cx="{}" cy="44" r="7"/></svg>)",
      {label, doors, page.left, page.right, x});
}

std::string Initials(absl::string_view name) {
  std::string initials;
  bool at_start = true;
  for (const char c : name) {
    const bool letter = std::isalpha(static_cast<unsigned char>(c)) != 0;
    if (letter && at_start && initials.size() < 2) {
      initials += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    }
    at_start = c == ' ' || c == '-' || c == '.';
  }
  return initials;
}

}  // namespace

std::string Escape(absl::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  for (size_t i = 0; i < text.size(); ++i) {
    if (const size_t hidden = HiddenCharacter(text, i); hidden > 0) {
      out += kReplacement;
      i += hidden - 1;
      continue;
    }
    switch (text[i]) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += text[i];
    }
  }
  return out;
}

Html Fill(absl::string_view pattern, std::initializer_list<Arg> args) {
  std::string out;
  auto arg = args.begin();
  while (true) {
    const size_t place = pattern.find("{}");
    if (place == absl::string_view::npos || arg == args.end()) {
      absl::StrAppend(&out, pattern);
      return Html(std::move(out), 0);
    }
    absl::StrAppend(&out, pattern.substr(0, place), arg->markup_);
    pattern.remove_prefix(place + 2);
    ++arg;
  }
}

Html Lead(absl::string_view text) { return Fill(R"(<p class="lead">{}</p>)", {text}); }

Html Note(Tone tone, absl::string_view strong, absl::string_view text) {
  const char* kind = "note";
  const char* role = "note";
  switch (tone) {
    case Tone::kPlain:
      break;
    case Tone::kOk:
      kind = "note ok";
      role = "status";
      break;
    case Tone::kWarn:
      kind = "note warn";
      break;
    case Tone::kBad:
      kind = "note bad";
      role = "alert";
      break;
  }
  return Fill(R"(<div class="{}" role="{}"><div><b>{}</b> {}</div></div>)", {kind, role, strong, text});
}

Html WhoAmI(absl::string_view name, absl::string_view detail, absl::string_view not_you) {
  Html link;
  if (!not_you.empty()) {
    link = Fill(R"(<a href="{}">Not you?</a>)", {not_you});
  }
  return Fill(
      R"(<div class="whoami"><span class="face" aria-hidden="true">{}</span><span>{}<small>{}</small></span>{}</div>)",
      {Initials(name), name, detail, link});
}

Html Check(absl::string_view text) {
  return Fill(
      R"(<li><svg class="i" viewBox="0 0 16 16" aria-hidden="true"><path d="m3 8.5 3.3 3.3L13 4.7"/></svg><span>{}</span></li>)",
      {text});
}

Html HiddenField(absl::string_view name, absl::string_view value) {
  return Fill(R"(<input type="hidden" name="{}" value="{}">)", {name, value});
}

Html ButtonLink(absl::string_view href, absl::string_view label, bool primary) {
  return Fill(R"(<a class="btn wide{}" href="{}">{}</a>)", {primary ? " primary" : "", href, label});
}

Html QuietLink(absl::string_view href, absl::string_view label) {
  return Fill(R"(<a class="small center" href="{}">{}</a>)", {href, label});
}

std::string Render(const Page& page) {
  Html refresh;
  if (!page.refresh.empty()) {
    refresh = Fill(R"(<meta http-equiv="refresh" content="0;url={}">)", {page.refresh});
  }
  return Fill(R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">{}<title>{} · sallyport</title>
<link rel="stylesheet" href="/login/style.css"></head>
<body><main class="{}" id="main">{}<div class="card">{}</div></main>
<footer><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 1h14a4 4 0 0 1 4 4v.5H13a10 10 0 0 0 10 10V19a4 4 0 0 1-4 4H5a4 4 0 0 1-4-4v-.5h10a10 10 0 0 0-10-10V5a4 4 0 0 1 4-4z"/></svg><span>{}</span></footer>
</body></html>
)",
              {refresh, page.title, page.wide ? "room wide" : "room", Drawing(page), page.body, page.host})
      .str();
}

std::string RenderContinue(absl::string_view title, absl::string_view lead, absl::string_view target,
                           absl::string_view host) {
  Page page;
  page.title = std::string(title);
  page.place = Place::kInside;
  page.host = std::string(host);
  page.refresh = std::string(target);
  page.body = Fill(R"(<h1>{}</h1>{}<div class="stack">{}</div>)", {title, Lead(lead), ButtonLink(target, "Continue")});
  return Render(page);
}

const std::vector<std::pair<std::string, std::string>>& Headers() {
  static const auto& headers = *new std::vector<std::pair<std::string, std::string>>{
      {"content-type", "text/html; charset=utf-8"},
      {"content-security-policy",
       "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"},
      {"x-frame-options", "DENY"},
      {"x-content-type-options", "nosniff"},
      // Not "no-referrer": under that policy browsers send "Origin: null" with our own forms.
      {"referrer-policy", "same-origin"},
      {"cache-control", "no-store"},
      {"cross-origin-opener-policy", "same-origin"},
  };
  return headers;
}

}  // namespace sallyport::page
