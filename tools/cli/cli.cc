// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/cli.h"

#include <algorithm>
#include <functional>
#include <map>

#include <CLI/CLI.hpp>

#include "common/error.h"
#include "common/status_macros.h"
#include "tools/cli/api_client.h"
#include "tools/cli/apply.h"
#include "tools/cli/clients.h"
#include "tools/cli/endings.h"
#include "tools/cli/kubernetes_setup.h"
#include "tools/cli/login.h"
#include "tools/cli/own_connections.h"
#include "tools/cli/own_credentials.h"
#include "tools/cli/password.h"
#include "tools/cli/ping.h"
#include "tools/cli/reports.h"
#include "tools/cli/resources.h"

namespace sallyport::cli {
namespace {

using ApiCommand = std::function<absl::Status(ApiClient&, const Terminal&)>;

// What the arguments came to, and where CLI11 puts their values.
struct Parsed {
  Target target;
  LoginOptions login;
  std::string file;
  bool dry_run = false;
  ResourceKind kind = ResourceKind::kServer;
  std::string slug;
  Output output = Output::kDefault;
  AuditQuery audit;
  ErasedNames erased_names;
  OwnConnection connection;
  std::string new_label;
  OwnCredential own;
  std::string subject;
  RevokedConnections revoked;
  bool every_client = false;
  RemovedClient removed;
  bool yes = false;
  int32_t term = 0;
  Ping ping;
  KubernetesSetupOptions setup;
  bool is_diff = false;
  bool pending = false;  // Set by the command.

  ApiCommand api_command;  // One of the two is set.
  std::function<absl::Status(const Terminal&)> local_command;
};

const std::map<std::string, ResourceKind>& Kinds() {
  static const auto& kinds = *new std::map<std::string, ResourceKind>{{"servers", ResourceKind::kServer},
                                                                      {"server", ResourceKind::kServer},
                                                                      {"apps", ResourceKind::kApp},
                                                                      {"app", ResourceKind::kApp},
                                                                      {"credentials", ResourceKind::kCredential},
                                                                      {"credential", ResourceKind::kCredential}};
  return kinds;
}

// Kinds, with a refusal that lists what there is instead of CLI11's dump of the map.
void AddKind(CLI::App& command, Parsed& parsed) {
  command
      .add_option_function<std::string>(
          "kind",
          [&parsed](const std::string& text) {
            const auto found = Kinds().find(text);
            if (found == Kinds().end()) throw CLI::ValidationError("kind", "must be servers, apps or credentials");
            parsed.kind = found->second;
          },
          "servers, apps or credentials")
      ->required();
}

void AddOutput(CLI::App& command, Parsed& parsed) {
  command.add_option_function<std::string>(
      "-o,--output",
      [&parsed](const std::string& text) {
        if (text != "yaml" && text != "json") throw CLI::ValidationError("--output", "must be yaml or json");
        parsed.output = text == "yaml" ? Output::kYaml : Output::kJson;
      },
      "yaml or json");
}

void On(CLI::App* command, Parsed& parsed, ApiCommand run) {
  command->callback([&parsed, run = std::move(run)] {
    // CLI11 calls the innermost subcommand first, then those it stands in.
    if (!parsed.api_command) parsed.api_command = run;
  });
}

void AddSignIn(CLI::App& app, Parsed& parsed) {
  CLI::App* login = app.add_subcommand("login", "Sign in: through the browser, or with the token of a file");
  login->add_option("--admin-token-file", parsed.login.admin_token_file,
                    "File `admin-token` of the gateway's data directory; good once");
  login->add_option("--service-account-token-file", parsed.login.service_account_token_file,
                    "Token of a Kubernetes service account that the configuration names (roles.adminServiceAccounts)");
  login->add_flag("--no-browser", parsed.login.no_browser, "Print the address instead of opening a browser");
  On(login, parsed, [&parsed](ApiClient& api, const Terminal& t) { return SignIn(api, parsed.login, t); });
  On(app.add_subcommand("logout", "Revoke and forget the saved sign-in"), parsed, SignOut);
  On(app.add_subcommand("whoami", "Who you are signed in as, and your roles"), parsed, PrintWhoAmI);
}

void AddResources(CLI::App& app, Parsed& parsed) {
  CLI::App* apply = app.add_subcommand("apply", "Bring MCP servers, apps and credentials to the state of a file");
  apply->add_option("-f,--file", parsed.file, "YAML with lists mcpServers, apps, credentials; - is standard input")
      ->required();
  apply->add_flag("--dry-run", parsed.dry_run, "Check and show the changes, make none");
  On(apply, parsed,
     [&parsed](ApiClient& api, const Terminal& t) { return Apply(api, parsed.file, parsed.dry_run, t).status(); });

  CLI::App* diff = app.add_subcommand("diff", "Show what apply would change; exit code 1 if something differs");
  diff->add_option("-f,--file", parsed.file, "As for apply")->required();
  diff->parse_complete_callback([&parsed] { parsed.is_diff = true; });
  On(diff, parsed, [&parsed](ApiClient& api, const Terminal& t) -> absl::Status {
    ASSIGN_OR_RETURN(const registry::v1::ApplyResponse response, Apply(api, parsed.file, /*dry_run=*/true, t));
    return HasChanges(response) ? absl::AlreadyExistsError("differs") : absl::OkStatus();
  });

  CLI::App* get = app.add_subcommand("get", "Show resources");
  AddKind(*get, parsed);
  get->add_option("slug", parsed.slug, "One of them");
  AddOutput(*get, parsed);
  On(get, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    return GetResources(api, parsed.kind, parsed.slug, parsed.output, t);
  });

  CLI::App* remove = app.add_subcommand("delete", "Delete a resource");
  AddKind(*remove, parsed);
  remove->add_option("slug", parsed.slug, "Which one")->required();
  remove->add_flag("--dry-run", parsed.dry_run, "Say what it means for users and callers, delete nothing");
  On(remove, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    return DeleteResource(api, parsed.kind, parsed.slug, parsed.dry_run, t);
  });
}

void AddConnections(CLI::App& app, Parsed& parsed) {
  CLI::App* connections = app.add_subcommand("connections", "Your own accounts at apps; `revoke` ends those of others");
  On(connections, parsed, PrintConnections);
  connections->require_subcommand(0, 1);
  On(connections->add_subcommand("list", "The same"), parsed, PrintConnections);
  CLI::App* disconnect = connections->add_subcommand("disconnect", "Unlink your account and revoke it at the provider");
  On(disconnect, parsed,
     [&parsed](ApiClient& api, const Terminal& t) { return DisconnectApp(api, parsed.connection, t); });
  CLI::App* rename = connections->add_subcommand("rename", "Give one of several accounts of an app another label");
  On(rename, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    return RenameConnection(api, parsed.connection, parsed.new_label, t);
  });
  for (CLI::App* command : {disconnect, rename}) {
    command->add_option("app", parsed.connection.app, "App slug")->required();
    command->add_option("--account", parsed.connection.account, "Label of one of several accounts");
  }
  rename->add_option("label", parsed.new_label, "The new one; \"\" makes it the default account")->required();

  CLI::App* revoke =
      connections->add_subcommand("revoke", "End users' connections to an app and revoke them at the provider");
  revoke->add_option("--app", parsed.revoked.app, "App slug")->required();
  revoke->add_option("--user", parsed.revoked.subject, "Only of this user (subject), such as okta:00u1");
  revoke->add_option("--account", parsed.revoked.account, "Only the account of this label, of the user");
  revoke->add_flag("--default-account", parsed.revoked.default_account, "Only the user's account without a label");
  revoke->add_flag("--yes", parsed.yes, "Do not ask");
  On(revoke, parsed, [&parsed](ApiClient& api, const Terminal& t) -> absl::Status {
    ASSIGN_OR_RETURN(parsed.pending, RevokeConnections(api, parsed.revoked, parsed.yes, t));
    return absl::OkStatus();
  });
}

void AddEndings(CLI::App& app, Parsed& parsed) {
  CLI::App* users = app.add_subcommand("users", "End everything of a user");
  users->require_subcommand(1);
  CLI::App* revoke_user = users->add_subcommand(
      "revoke", "End sessions, tokens and connections, erase entered credentials, destroy the keys");
  revoke_user->add_option("subject", parsed.subject, "Such as okta:00u1")->required();
  revoke_user->add_flag("--yes", parsed.yes, "Do not ask");
  On(revoke_user, parsed, [&parsed](ApiClient& api, const Terminal& t) -> absl::Status {
    ASSIGN_OR_RETURN(parsed.pending, RevokeUser(api, parsed.subject, parsed.yes, t));
    return absl::OkStatus();
  });

  CLI::App* servers = app.add_subcommand("servers", "End tokens for an MCP server");
  servers->require_subcommand(1);
  CLI::App* revoke_server = servers->add_subcommand("revoke", "End every token and consent: people sign in again");
  revoke_server->add_option("slug", parsed.slug, "Which one")->required();
  revoke_server->add_option("--user", parsed.subject, "Only of this user (subject)");
  revoke_server->add_flag("--yes", parsed.yes, "Do not ask");
  On(revoke_server, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    return RevokeServer(api, parsed.slug, parsed.subject, parsed.yes, t);
  });

  CLI::App* clients = app.add_subcommand("clients", "MCP clients you have let in");
  clients->require_subcommand(1);
  CLI::App* list = clients->add_subcommand("list", "Which, for which servers");
  list->add_flag("--all", parsed.every_client, "Every client of this gateway, as an auditor");
  On(list, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    return parsed.every_client ? PrintAllClients(api, t) : PrintOwnClients(api, t);
  });
  CLI::App* remove = clients->add_subcommand("remove", "End a client's tokens for you: it must ask you again");
  remove->add_option("client_id", parsed.removed.client_id, "As the list shows it")->required();
  remove->add_option("--server", parsed.removed.server, "For this server (slug) only");
  remove->add_flag("--all", parsed.removed.all,
                   "Remove its registration and the tokens of every user, as an administrator");
  remove->add_flag("--yes", parsed.yes, "Do not ask");
  On(remove, parsed,
     [&parsed](ApiClient& api, const Terminal& t) { return RemoveClient(api, parsed.removed, parsed.yes, t); });
}

void AddReports(CLI::App& app, Parsed& parsed) {
  CLI::App* credentials = app.add_subcommand("credentials", "Keys and passwords of your own that servers need of you");
  On(credentials, parsed, PrintOwnCredentials);
  credentials->require_subcommand(0, 1);
  CLI::App* set =
      credentials->add_subcommand("set", "Store one; its value is typed, or the first line of standard input");
  set->add_option("--username", parsed.own.username, "Of a password");
  On(set, parsed, [&parsed](ApiClient& api, const Terminal& t) { return SetOwnCredential(api, parsed.own, t); });
  CLI::App* clear = credentials->add_subcommand("clear", "Erase one");
  On(clear, parsed, [&parsed](ApiClient& api, const Terminal& t) { return ClearOwnCredential(api, parsed.own, t); });
  for (CLI::App* command : {set, clear}) {
    command->add_option("credential", parsed.own.slug, "Credential slug")->required();
    command->add_option("--user", parsed.own.subject, "Of this user (subject), as a credential-admin");
  }

  CLI::App* audit = app.add_subcommand("audit", "What happened, newest first");
  audit->add_option("--type", parsed.audit.type, "Such as mcp.call, mcp.denied, login, secret.read");
  audit->add_option("--subject", parsed.audit.subject, "Such as okta:00u1");
  audit->add_option("--server", parsed.audit.server, "Server slug");
  audit->add_option("--since", parsed.audit.since, "2026-01-02T03:04:05Z, or how long ago: 30m, 24h, 7d");
  audit->add_option("--limit", parsed.audit.limit, "At most this many")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  AddOutput(*audit, parsed);
  On(audit, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    parsed.audit.json = parsed.output == Output::kJson;
    return PrintAudit(api, parsed.audit, t);
  });
  CLI::App* erase = audit->add_subcommand("erase-names", "Forget the name and address the audit shows beside an id");
  erase->add_option("--subject", parsed.erased_names.subject, "A person, such as okta:00u1");
  erase->add_option("--client", parsed.erased_names.client_id, "A client's id");
  audit->require_subcommand(0, 1);
  On(erase, parsed, [&parsed](ApiClient& api, const Terminal& t) { return EraseNames(api, parsed.erased_names, t); });
}

void AddVault(CLI::App& app, Parsed& parsed) {
  CLI::App* vault = app.add_subcommand("vault", "Keys of the credential store");
  vault->require_subcommand(1);
  On(vault->add_subcommand("status", "State, key terms, what is left to re-wrap"), parsed, PrintVaultStatus);
  On(vault->add_subcommand("rotate", "Begin a new key term"), parsed, RotateVault);
  On(vault->add_subcommand("rewrap", "Bring every record under the newest term, every term under the KEK"), parsed,
     RewrapVault);
  CLI::App* destroy = vault->add_subcommand("destroy-term", "Destroy a key term that nothing is under any more");
  destroy->add_option("term", parsed.term, "Its number, as `sallyport vault status` shows it")->required();
  destroy->add_flag("--yes", parsed.yes, "Required: there is no way back");
  On(destroy, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    return parsed.yes ? DestroyVaultTerm(api, parsed.term, t)
                      : absl::InvalidArgumentError("there is no way back from destroying a term: add --yes");
  });
  CLI::App* seal = vault->add_subcommand("seal", "Wipe the keys from memory: no credential works until a restart");
  seal->add_flag("--yes", parsed.yes, "Required: calls through the gateway fail afterwards");
  On(seal, parsed, [&parsed](ApiClient& api, const Terminal& t) {
    return parsed.yes
               ? SealVault(api, t)
               : absl::InvalidArgumentError("sealing stops every credential until the vault is restarted: add --yes");
  });
}

void AddTools(CLI::App& app, Parsed& parsed) {
  CLI::App* ping = app.add_subcommand("ping", "Call an MCP server through the gateway: initialize, tools/list");
  ping->add_option("server", parsed.ping.server, "Its slug")->required();
  ping->add_option("--token-file", parsed.ping.token_file, "Bearer token to send; none when left out");
  On(ping, parsed, [&parsed](ApiClient& api, const Terminal& t) { return PingServer(api, parsed.ping, t); });

  CLI::App* setup = app.add_subcommand(
      "kubernetes-setup", "In a pod: make the Secrets a release starts from, and renew the certificates among them");
  setup->add_option("--prefix", parsed.setup.prefix, "Of the Secrets' names")->required();
  setup->add_option("--service", parsed.setup.services, "Make a certificate of this service; may be repeated");
  setup->add_option("--trust-domain", parsed.setup.trust_domain, "Of the services' SPIFFE ids");
  setup->add_option("--public-name", parsed.setup.public_names,
                    "Host of a certificate for the public port; may be repeated");
  setup->add_option("--days", parsed.setup.days, "How long certificates are good")->capture_default_str();
  setup->add_option("--renew-before-days", parsed.setup.renew_before_days, "How long before their end to renew them")
      ->capture_default_str();
  setup->add_option("--kek-secret", parsed.setup.kek_secret, "Secret for a key-encryption key, made once");
  setup->add_option("--password-secret", parsed.setup.password_secret, "Secret for a password, made once");
  setup->add_option("--credentials", parsed.setup.credentials, "Directory of the service account's token and ca.crt")
      ->capture_default_str();
  setup->callback(
      [&parsed] { parsed.local_command = [&parsed](const Terminal& t) { return KubernetesSetup(parsed.setup, t); }; });

  app.add_subcommand("hash-password", "Print the hash of a password for a local user of the configuration")
      ->callback([&parsed] { parsed.local_command = PrintPasswordHash; });
}

void Describe(CLI::App& app, Parsed& parsed) {
  app.name("sallyport");
  app.set_version_flag("--version", "sallyport " SALLYPORT_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return std::string("sallyport: ") + error.what() + "; try --help\n";
  });
  app.footer(
      "The gateway is --url, else $SALLYPORT_URL, else that of the latest login.\n"
      "Tokens are kept in ${XDG_CONFIG_HOME:-~/.config}/sallyport/credentials.json (mode 0600).\n"
      "Exit codes: 0 done; 1 the gateway refused or is not there (diff: something differs); 2 bad usage or input "
      "file;\n"
      "3 done here, but a provider has still to be asked to revoke something (users revoke, connections revoke).");
  app.add_option("--url", parsed.target.url, "The gateway's public URL, such as https://gw.example.com");
  app.add_option("--ca-file", parsed.target.ca_file,
                 "PEM file of further certificate authorities ($SALLYPORT_CA_FILE)");
  AddSignIn(app, parsed);
  AddResources(app, parsed);
  AddConnections(app, parsed);
  AddEndings(app, parsed);
  AddReports(app, parsed);
  AddVault(app, parsed);
  AddTools(app, parsed);
}

void PrintError(const absl::Status& status, const Terminal& terminal) {
  terminal.err << "sallyport: " << std::string(status.message()) << "\n";
  // A located error names its fields already.
  for (const ErrorDetail::Violation& violation : DetailOf(status).violations) {
    if (std::string(status.message()).find(violation.field + ": " + violation.message) == std::string::npos) {
      terminal.err << "  " << violation.field << ": " << violation.message << "\n";
    }
  }
}

absl::Status Execute(const Parsed& parsed, const Terminal& terminal, bool& sent) {
  if (parsed.local_command) return parsed.local_command(terminal);
  ASSIGN_OR_RETURN(ApiClient api, ApiClient::Create(parsed.target, terminal));
  absl::Status done = parsed.api_command(api, terminal);
  sent = api.sent();
  return done;
}

}  // namespace

int Run(std::vector<std::string> arguments, const Terminal& terminal) {
  Parsed parsed;
  CLI::App app("Administers a sallyport gateway: MCP servers, apps, credentials, audit, keys.");
  Describe(app, parsed);
  std::reverse(arguments.begin(), arguments.end());  // As CLI11 wants a vector.
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    return app.exit(error, terminal.out, terminal.err) == 0 ? kDone : kBadUsage;
  }
  bool sent = false;
  absl::Status done = Execute(parsed, terminal, sent);
  if (done.ok()) return parsed.pending ? kPending : kDone;
  if (parsed.is_diff && absl::IsAlreadyExists(done)) return kFailed;
  PrintError(done, terminal);
  return parsed.is_diff || (!sent && absl::IsInvalidArgument(done)) ? kBadUsage : kFailed;
}

}  // namespace sallyport::cli
