// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/endings.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "sallyport/authn/v1/clients.pb.h"
#include "tools/cli/table.h"

namespace sallyport::cli {
namespace {

using token_broker::v1::EndedConnection;

// So many answers in a row that ended nothing and say that something is left: the gateway is stuck.
constexpr int kPatience = 5;
// Each ends some hundred grants at least.
constexpr int kMostCalls = 1000;

absl::Status OwnSignInEnded() {
  return absl::UnauthenticatedError(
      "your own sign-in has ended meanwhile, and something is left: run `sallyport login` and the command again, or "
      "have another administrator do it");
}

// Ended connections of all answers, each once: a later answer knows better. Within one, what is still to be done counts
// before what cannot be.
class EndedTable {
 public:
  void Add(const google::protobuf::RepeatedPtrField<EndedConnection>& ended) {
    std::map<Key, EndedConnection> answer;
    for (const EndedConnection& one : ended) {
      const Key key = {one.subject(), one.app_uid().empty() ? one.app_slug() : one.app_uid(), one.label()};
      const auto [former, is_new] = answer.try_emplace(key, one);
      if (!is_new && RankOf(one) > RankOf(former->second)) former->second = one;
    }
    for (auto& [key, one] : answer) ended_[key] = std::move(one);
  }
  size_t size() const { return ended_.size(); }
  int Count(const std::string& revocation) const {
    return static_cast<int>(std::count_if(ended_.begin(), ended_.end(),
                                          [&](const auto& entry) { return entry.second.revocation() == revocation; }));
  }
  void Print(const Terminal& terminal) const {
    std::vector<std::vector<std::string>> rows;
    for (const auto& [key, one] : ended_) {
      rows.push_back({one.subject(), one.app_slug().empty() ? one.app_uid() : one.app_slug(),
                      one.label().empty() ? "-" : one.label(), one.revocation()});
    }
    terminal.out << FormatTable({"USER", "APP", "ACCOUNT", "AT THE PROVIDER"}, std::move(rows));
    if (const int pending = Count("pending"); pending > 0) {
      terminal.out << pending << " pending: the provider did not answer, the gateway goes on asking it for 7 days\n";
    }
    if (const int unsupported = Count("unsupported"); unsupported > 0) {
      terminal.out << unsupported
                   << " unsupported: the provider has no revocation endpoint; the gateway has forgotten the tokens, "
                      "remove the grant there if they must end\n";
    }
  }

 private:
  using Key = std::tuple<std::string, std::string, std::string>;

  static int RankOf(const EndedConnection& ended) {
    return ended.revocation() == "revoked" ? 0 : ended.revocation() == "unsupported" ? 1 : 2;
  }

  std::map<Key, EndedConnection> ended_;
};

// Calls until `call` says that nothing is left. `call` adds up what its answer says, and returns whether there is more.
// `amount`: of what has ended so far.
template <typename Call, typename Amount>
absl::Status UntilDone(const Call& call, const Amount& amount, const Terminal& terminal) {
  int idle = 0;
  for (int calls = 0;; ++calls) {
    const int64_t before = amount();
    const absl::StatusOr<bool> more = call();
    if (absl::IsUnauthenticated(more.status()) && calls > 0) return OwnSignInEnded();
    RETURN_IF_ERROR(more.status());
    if (!*more) return absl::OkStatus();
    idle = amount() == before ? idle + 1 : 0;
    if (idle == kPatience) {
      return absl::UnavailableError("the gateway says that something is left, and ends nothing: run the command again");
    }
    terminal.err << amount() << " ended, going on\n" << std::flush;
  }
}

void PrintUser(const authn::v1::RevokeUserResponse& total, const EndedTable& table, const Terminal& terminal) {
  terminal.out << "sessions revoked    " << total.sessions_revoked() << "\ngrants revoked      "
               << total.grants_revoked() << "\nconnections ended   " << table.size() << "\ncredentials erased  "
               << total.credentials_erased() << "\nkeys destroyed      " << (total.keys_destroyed() ? "yes" : "no")
               << "\n";
  if (table.size() > 0) {
    terminal.out << "\n";
    table.Print(terminal);
  }
}

}  // namespace

absl::StatusOr<bool> RevokeUser(ApiClient& api, const std::string& subject, bool yes, const Terminal& terminal) {
  if (!yes) {
    RETURN_IF_ERROR(Confirm(terminal, absl::StrCat("This ends every session, token and connection of ", subject,
                                                   ", erases the credentials they have entered and destroys their "
                                                   "keys in the vault.")));
  }
  authn::v1::RevokeUserRequest request;
  request.set_subject(subject);
  authn::v1::RevokeUserResponse total;
  EndedTable table;
  const auto amount = [&] {
    return int64_t{total.sessions_revoked()} + total.grants_revoked() + total.credentials_erased() +
           static_cast<int64_t>(table.size());
  };
  const absl::Status done = UntilDone(
      [&]() -> absl::StatusOr<bool> {
        authn::v1::RevokeUserResponse response;
        RETURN_IF_ERROR(api.Call("sallyport.authn.v1.Authn/RevokeUser", request, &response));
        total.set_sessions_revoked(total.sessions_revoked() + response.sessions_revoked());
        total.set_grants_revoked(total.grants_revoked() + response.grants_revoked());
        total.set_credentials_erased(total.credentials_erased() + response.credentials_erased());
        total.set_keys_destroyed(total.keys_destroyed() || response.keys_destroyed());
        table.Add(response.connections());
        return response.more();
      },
      amount, terminal);
  // Also when it did not come to its end: what has ended has.
  PrintUser(total, table, terminal);
  RETURN_IF_ERROR(done);
  if (amount() == 0) {
    terminal.err
        << "nothing of " << subject
        << " was found: check the subject, \"<connector>:<id>\" as in the audit; the identity provider's tokens "
           "of this subject are refused all the same\n";
  }
  return table.Count("pending") > 0;
}

absl::StatusOr<bool> RevokeConnections(ApiClient& api, const RevokedConnections& which, bool yes,
                                       const Terminal& terminal) {
  if (which.subject.empty() && (which.default_account || !which.account.empty())) {
    return absl::InvalidArgumentError("--account and --default-account need --user: an account is one of a user's");
  }
  if (which.default_account && !which.account.empty()) {
    return absl::InvalidArgumentError("give one of --account and --default-account");
  }
  if (!yes) {
    const std::string whose = which.subject.empty() ? "every user" : which.subject;
    RETURN_IF_ERROR(Confirm(terminal, absl::StrCat("This ends connections of ", whose, " to ", which.app,
                                                   " and revokes them at the provider; to use it again, they must "
                                                   "connect again.")));
  }
  authn::v1::RevokeConnectionsRequest request;
  request.set_app(which.app);
  request.set_subject(which.subject);
  request.set_label(which.account);
  request.set_default_label(which.default_account);
  EndedTable table;
  const absl::Status done = UntilDone(
      [&]() -> absl::StatusOr<bool> {
        authn::v1::RevokeConnectionsResponse response;
        RETURN_IF_ERROR(api.Call("sallyport.authn.v1.Revocation/RevokeConnections", request, &response));
        table.Add(response.ended());
        return response.more();
      },
      [&] { return static_cast<int64_t>(table.size()); }, terminal);
  terminal.out << "connections ended   " << table.size() << "\n";
  if (table.size() > 0) {
    terminal.out << "\n";
    table.Print(terminal);
  }
  RETURN_IF_ERROR(done);
  return table.Count("pending") > 0;
}

absl::StatusOr<int> UntilNoGrantsRemain(const std::function<absl::Status()>& call, const Terminal& terminal) {
  for (int calls = 1;; ++calls) {
    const absl::Status status = call();
    // Those that remained have ended by themselves: of a client without any nothing is known.
    if (status.ok() || (absl::IsNotFound(status) && calls > 1)) return calls;
    if (absl::IsUnauthenticated(status) && calls > 1) return OwnSignInEnded();
    if (ReasonOf(status) != "grants_remain" || calls == kMostCalls) return status;
    terminal.err << absl::StripSuffix(status.message(), ": call again") << ", going on\n" << std::flush;
  }
}

std::string EndedGrants(int calls, int last) { return calls == 1 ? absl::StrCat(last) : "all"; }

absl::Status RevokeServer(ApiClient& api, const std::string& slug, const std::string& subject, bool yes,
                          const Terminal& terminal) {
  if (subject.empty() && !yes) {
    RETURN_IF_ERROR(Confirm(terminal, absl::StrCat("This ends every user's tokens for ", slug,
                                                   " and what they have agreed to; to use it again, they must sign in "
                                                   "again.")));
  }
  authn::v1::RevokeServerRequest request;
  request.set_server(slug);
  request.set_subject(subject);
  authn::v1::RevokeServerResponse response;
  ASSIGN_OR_RETURN(
      const int calls,
      UntilNoGrantsRemain([&] { return api.Call("sallyport.authn.v1.Revocation/RevokeServer", request, &response); },
                          terminal));
  // Consents go with the first call, whose answer was an error if there were others.
  terminal.out << "grants revoked      " << EndedGrants(calls, response.grants_revoked()) << "\nconsents forgotten  "
               << (calls == 1 ? absl::StrCat(response.consents_forgotten()) : "all") << "\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli
