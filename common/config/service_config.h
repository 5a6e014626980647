// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "sallyport/config/v1/common.pb.h"

// Checks of the settings that several services share. Each gives OK, or INVALID_ARGUMENT naming every field that is
// missing or wrong by its path in the file. Files that must exist are opened, too: a start would fail without them.
namespace sallyport {

// All violations as one; of several about the same field the first. A failure that names no field comes back alone.
absl::Status MergeViolations(const std::vector<absl::Status>& checks);

// "127.0.0.1:7001", "[::1]:0", "localhost:7001".
absl::Status CheckListenAddress(absl::string_view field, absl::string_view address);
// Only programs of the same host can reach it.
bool IsLoopbackListen(absl::string_view address);

// An empty path is good: the file is not asked for.
absl::Status CheckReadable(absl::string_view field, const std::string& path);
absl::Status CheckSecretFile(absl::string_view field, const std::string& path);

// `server` of a process of its own. The edge can do without a gRPC listener, never without mTLS to its peers.
enum class Listener { kRequired, kOptional };
absl::Status ValidateServer(const config::v1::Server& server, Listener listener = Listener::kRequired);
// `names` as in the file: {"authn", "tokenBroker"}.
absl::Status ValidatePeers(const config::v1::Peers& peers, const std::vector<std::string>& names);

// A bare origin; https but on loopback.
absl::Status CheckPublicUrl(const std::string& public_url);
// Everything but the files of `egress`, which only some services open: CheckEgressFiles (egress.h).
absl::Status ValidateDeployment(const config::v1::Deployment& deployment);

absl::Status ValidateDatabase(const config::v1::Database& database);

}  // namespace sallyport
