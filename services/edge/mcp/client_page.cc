// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/client_page.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/text/string_view.h"
#include "common/web/page.h"

namespace sallyport::edge {
namespace {

constexpr std::string_view kPrefix = "/mcp/";
constexpr size_t kLongestSlug = 63;

// As a server's slug is spelled; any other path is a stranger's text, and not put on a page of ours.
bool IsSlug(std::string_view text) {
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
  return !text.empty() && text.size() <= kLongestSlug && is_letter(text.front()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '-'; });
}

std::string Render(const SiteOptions& site, std::string_view slug) {
  const std::string address = absl::StrCat(site.public_url, ToAbsl(kPrefix), IsSlug(slug) ? ToAbsl(slug) : "<server>");
  page::Page page;
  page.title = "For MCP clients";
  page.right = "MCP server";
  page.host = site.public_host;
  page.body = page::Fill(
      R"(<h1>This address is for MCP clients</h1>{}<div class="stack"><pre class="code">{}</pre><ul class="may">{}{}{}</ul>)"
      R"(<p class="small muted">With Claude Code, for example:</p><pre class="code">claude mcp add --transport http {} {}</pre></div>)",
      {page::Lead("There is no page here. To use the server, add its address to your AI client:"), address,
       page::Check("Open the settings of your client for MCP servers, also called connectors or tools."),
       page::Check("Add a remote server of the type HTTP (Streamable HTTP) with this address."),
       page::Check("If the server asks you to sign in, the client opens the page for it."),
       IsSlug(slug) ? ToAbsl(slug) : "<name>", address});
  return page::Render(page);
}

}  // namespace

bool IsNavigation(const RequestHead& head) {
  const auto fields = head.fields();
  return std::any_of(fields.begin(), fields.end(), [](const HeaderField& field) {
    return field.id == HeaderId::kSecFetch && EqualNames(field.name, "sec-fetch-mode") &&
           EqualIgnoreCase(field.value, "navigate");
  });
}

void RespondClientPage(Exchange& exchange, const SiteOptions& site) {
  const std::string body = Render(site, exchange.head().path.substr(kPrefix.size()));
  std::vector<Field> fields = {{"Cross-Origin-Resource-Policy", "same-origin"},
                               {"Cache-Control", "no-store, no-transform"}};
  for (const auto& [name, value] : page::Headers()) {
    if (name != "cache-control") fields.push_back({name, value});
  }
  exchange.SetCommonFields({});  // A page has its own.
  exchange.Respond(406, fields, body);
}

}  // namespace sallyport::edge
