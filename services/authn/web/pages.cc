// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/pages.h"

#include "absl/strings/str_cat.h"

#include "common/text/utf8.h"
#include "common/web/page.h"
#include "services/authn/web/urls.h"

namespace sallyport::authn::web {
namespace {

using page::Fill;
using page::Html;
using page::Page;
using page::Place;

Page Begin(absl::string_view title, Place place, const Errand& errand, absl::string_view host) {
  Page page;
  page.title = std::string(title);
  page.place = place;
  page.left = errand.client.empty() || place == Place::kOutside ? "You" : errand.client;
  page.right = errand.server;
  page.host = std::string(host);
  return page;
}

Html ArrowIcon() {
  return R"(<svg class="i" viewBox="0 0 16 16" aria-hidden="true"><path d="M9.5 2.5h3a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-3M2.5 8h7M7 5.5 9.5 8 7 10.5"/></svg>)";
}

std::string NameOf(const Identity& user) {
  return !user.name.empty() ? user.name : !user.email.empty() ? user.email : user.subject;
}

// A button's worth of a name.
std::string ShortName(const Identity& user) {
  constexpr size_t kMax = 32;
  std::string name = NameOf(user);
  if (name.size() <= kMax) {
    return name;
  }
  name.resize(kMax);
  while (!name.empty() && !IsValidUtf8(name)) {
    name.pop_back();
  }
  return absl::StrCat(name, "…");
}

Html WarningFor(const Consent& consent) {
  if (!consent.local_program) {
    return {};
  }
  return page::Note(page::Tone::kWarn, absl::StrCat("Did you just start this from ", consent.client_name, "?"),
                    "Any program on this computer could ask in its name. If not, choose Don’t allow.");
}

Html ClientFact(const Consent& consent) {
  return consent.client_is_registered
             ? Fill(R"(<span class="host">{}</span>, registered by your administrator)", {consent.client_name})
             : Fill(R"(says it is <span class="host">{}</span>, not verified)", {consent.client_name});
}

Html ServerFact(const Consent& consent) {
  if (!consent.choices.empty()) {
    return {};
  }
  return Fill(R"(<dt>{}</dt><dd><span class="host">{}</span><br><code class="muted">{}</code></dd>)",
              {consent.is_api ? "Use" : "Server", consent.server_name, consent.resource});
}

// Nothing is chosen beforehand: the client did not say what it is for, so nobody but the user can.
Html ChoicesOf(const Consent& consent) {
  Html lines;
  for (const Consent::Choice& choice : consent.choices) {
    lines += Fill(R"(<label class="pick"><input type="radio" name="server" value="{}" required>)"
                  R"(<span>{}<br><code class="muted">{}</code></span></label>)",
                  {choice.slug, choice.name, choice.resource});
  }
  if (lines.empty()) {
    return {};
  }
  return Fill(
      R"(<fieldset class="stack tight"><legend class="small muted">{} did not say which server it wants to use. )"
      R"(Choose one:</legend>{}</fieldset>)",
      {consent.client_name, lines});
}

Html PermissionsOf(const Consent& consent) {
  if (consent.is_api) {
    return page::Check("Manage this gateway with the roles you have");
  }
  const std::string server = consent.choices.empty() ? consent.server_name : std::string("the server you choose");
  Html lines = page::Check(absl::StrCat("Call the tools of ", server, " in your name"));
  lines += page::Check("Stay connected for up to 30 days, or until you remove it (sallyport clients remove)");
  return lines;
}

}  // namespace

std::string LoginPage(const std::vector<LoginChoice>& choices, const Errand& errand, absl::string_view return_to,
                      bool again, absl::string_view host) {
  Html providers;
  Html locals;
  for (const LoginChoice& choice : choices) {
    const std::string query =
        EncodeQuery({{"connector", choice.id}, {"switch", again ? "1" : ""}, {"return_to", std::string(return_to)}});
    if (choice.local) {
      locals += Fill(R"(<a class="btn quiet wide" href="{}">{}</a>)",
                     {absl::StrCat("/login/local?", query),
                      choice.display_name == choice.id ? std::string("Use a local account") : choice.display_name});
    } else {
      providers += Fill(R"(<a class="btn wide idp" href="{}">{}Continue with {}</a>)",
                        {absl::StrCat("/login?", query), ArrowIcon(), choice.display_name});
    }
  }
  Page page = Begin("Sign in", Place::kOutside, errand, host);
  const std::string lead = errand.client.empty() ? "Show who you are."
                                                 : absl::StrCat(errand.client, " wants to use ", errand.server,
                                                                ". First, show who you are.");
  page.body = Fill(R"(<h1>Sign in</h1>{})", {page::Lead(lead)});
  if (!providers.empty()) {
    page.body += Fill(R"(<div class="stack tight">{}</div>)", {providers});
  }
  if (!locals.empty()) {
    const Html divider = providers.empty() ? Html() : Html(R"(<div class="or">or</div>)");
    page.body += Fill(R"(<div class="stack">{}{}</div>)", {divider, locals});
  }
  if (choices.empty()) {
    page.body += page::Note(page::Tone::kWarn, "Nobody can sign in yet.", "This gateway has no connector configured.");
  }
  return page::Render(page);
}

std::string LocalLoginPage(const LocalLogin& form, const Errand& errand, absl::string_view host) {
  Html note;
  if (form.tries_left == 0) {
    note = page::Note(page::Tone::kBad, "Too many attempts.", "Sign-in with this name is paused for 15 minutes.");
  } else if (form.tries_left > 0) {
    const std::string rest = form.tries_left == 1
                                 ? "1 more try, then a pause of 15 minutes."
                                 : absl::StrCat(form.tries_left, " more tries, then a pause of 15 minutes.");
    note = page::Note(page::Tone::kBad, "Name or password is wrong.", rest);
  }
  Html fields = page::HiddenField("csrf", form.csrf);
  fields += page::HiddenField("return_to", form.return_to);
  fields += page::HiddenField("connector", form.connector);
  Page page = Begin("Sign in with a local account", Place::kOutside, errand, host);
  page.body = Fill(
      R"(<h1>Local account</h1>{}<form class="stack" method="post" action="/login/local">{}{})"
      R"(<div class="field"><label for="u">Name</label><input class="input" id="u" name="username" autocomplete="username" autocapitalize="none" spellcheck="false" required value="{}"></div>)"
      R"(<div class="field"><label for="p">Password</label><input class="input" id="p" name="password" type="password" autocomplete="current-password" required{}></div>)"
      R"(<button class="btn primary wide">Sign in</button></form>)",
      {page::Lead("For the first setup, for trying things out and for emergencies."), note, fields, form.username,
       form.tries_left >= 0 ? Html(R"( aria-invalid="true")") : Html()});
  if (form.has_other_ways) {
    const std::string href = absl::StrCat("/login?", EncodeQuery({{"return_to", form.return_to}}));
    page.body += Fill(R"(<div class="stack">{}</div>)", {page::QuietLink(href, "Other ways to sign in")});
  }
  return page::Render(page);
}

std::string ConsentPage(const Consent& consent, absl::string_view host) {
  Page page = Begin(absl::StrCat("Allow ", consent.client_name), Place::kFirstDoor,
                    {consent.client_name, consent.server_name}, host);
  page.wide = true;
  const std::string who = consent.user.email.empty() ? consent.connector_name
                                                     : absl::StrCat(consent.user.email, ", ", consent.connector_name);
  const std::string not_you = absl::StrCat(
      "/login?",
      EncodeQuery({{"switch", "1"}, {"return_to", absl::StrCat("/oauth/continue?txn=", consent.transaction)}}));
  const Html program = consent.local_program ? Html(", a program on this computer") : Html();
  Html hidden = page::HiddenField("txn", consent.transaction);
  hidden += page::HiddenField("csrf", consent.csrf);
  page.body = Fill(R"(<h1>Let {} use {} as you?</h1><div class="stack">{})",
                   {consent.client_name, consent.server_name, page::WhoAmI(NameOf(consent.user), who, not_you)});
  if (!consent.note.empty()) {
    page.body += page::Note(page::Tone::kBad, consent.note, "");
  }
  page.body += Fill(R"(<dl class="facts"><dt>Client</dt><dd>{}</dd><dt>Sends you back to</dt>)"
                    R"(<dd><span class="host">{}</span>{}</dd>{}</dl>)",
                    {ClientFact(consent), consent.redirect_host, program, ServerFact(consent)});
  if (!consent.allowed_before) {
    page.body += Fill(R"(<div class="stack tight"><p class="small muted">{} may:</p><ul class="may">{}</ul></div>)",
                      {consent.client_name, PermissionsOf(consent)});
  }
  const std::string yes =
      consent.allowed_before ? absl::StrCat("Continue as ", ShortName(consent.user)) : std::string("Allow");
  page.body += Fill(R"({}<form class="stack" method="post" action="/oauth/consent">{}{}<div class="pair">)"
                    R"(<button class="btn wide" name="decision" value="deny" formnovalidate>Don’t allow</button>)"
                    R"(<button class="btn primary wide" name="decision" value="allow">{}</button></div></form>)",
                    {WarningFor(consent), hidden, ChoicesOf(consent), yes});
  if (consent.links_app) {
    page.body += Fill(
        R"(<p class="tiny muted center">{} never sees your password or token at {}. If your account is not connected yet, you are asked next.</p>)",
        {consent.client_name, consent.server_name});
  }
  page.body += "</div>";
  return page::Render(page);
}

std::string ErrorPage(const Problem& problem, absl::string_view host) {
  Page page = Begin(problem.title, Place::kOutside, {}, host);
  Html way;
  if (!problem.href.empty()) {
    way = page::ButtonLink(problem.href, problem.label);
  }
  page.body = Fill(
      R"(<h1>{}</h1>{}<div class="stack">{}<p class="small muted">If it happens again, send this to your administrator:</p><pre class="code">{}</pre></div>)",
      {problem.title, page::Lead(problem.lead), way, problem.code});
  return page::Render(page);
}

std::string LogoutPage(const Identity& user, absl::string_view csrf, absl::string_view host) {
  Page page = Begin("Sign out", Place::kInside, {}, host);
  page.body = Fill(
      R"(<h1>Sign out?</h1>{}<div class="stack">{}<form method="post" action="/logout">{}<button class="btn primary wide">Sign out</button></form>{}</div>)",
      {page::Lead("This ends the session in this browser. Agents you allowed keep working."),
       page::WhoAmI(NameOf(user), user.email, ""), page::HiddenField("csrf", csrf),
       page::QuietLink("/", "Stay signed in")});
  return page::Render(page);
}

std::string SignedOutPage(const ProviderSession& provider, absl::string_view host) {
  Page page = Begin("Signed out", Place::kOutside, {}, host);
  Html ways;
  if (!provider.name.empty()) {
    ways += page::Note(page::Tone::kWarn, absl::StrCat("Your session at ", provider.name, " goes on."),
                       provider.sign_out_url.empty()
                           ? absl::StrCat("Whoever uses this browser can sign in again with it. Sign out at ",
                                          provider.name, ", too, if others use this browser.")
                           : std::string("Whoever uses this browser can sign in again with it until you end it."));
  }
  if (!provider.sign_out_url.empty()) {
    ways += page::ButtonLink(provider.sign_out_url, absl::StrCat("Sign out of ", provider.name));
  }
  ways += page::ButtonLink("/login", "Sign in again", provider.sign_out_url.empty());
  page.body =
      Fill(R"(<h1>You are signed out</h1>{}<div class="stack">{}</div>)",
           {page::Lead("Both doors are closed in this browser. Agents you allowed keep working; an administrator, or "
                       "you under My connections, can stop them."),
            ways});
  return page::Render(page);
}

std::string HomePage(const Identity& user, absl::string_view public_url, absl::string_view host) {
  Page page = Begin("Signed in", Place::kInside, {}, host);
  page.body = Fill(
      R"(<h1>You are signed in</h1>{}<div class="stack">{}<pre class="code">{}/mcp/&lt;server&gt;</pre>{}</div>)",
      {page::Lead("There is nothing more to do here. Give your MCP client the address of a server; your administrator "
                  "knows their names:"),
       page::WhoAmI(NameOf(user), user.email, "/login?switch=1"), public_url, page::QuietLink("/logout", "Sign out")});
  return page::Render(page);
}

}  // namespace sallyport::authn::web
