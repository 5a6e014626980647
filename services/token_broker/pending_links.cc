// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/pending_links.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/hex.h"

namespace sallyport::token_broker {
namespace {

constexpr char kKind[] = "link_flow";
constexpr size_t kMost = 10;
constexpr size_t kTagLength = 32;

// What the names of one user's links of one app begin with; empty of a state that an earlier release has made.
std::string TagOf(absl::string_view state) {
  const size_t dot = state.rfind('.');
  const absl::string_view tag = dot == absl::string_view::npos ? "" : state.substr(dot + 1);
  const bool whole = tag.size() == kTagLength && std::all_of(tag.begin(), tag.end(), absl::ascii_isxdigit);
  return whole ? std::string(tag) : "";
}

}  // namespace

std::string PendingLinks::NewState(const std::string& subject, const std::string& app_uid) {
  const std::string tag = HexEncode(Sha256(absl::StrCat("sallyport pending link\n", app_uid, "\n", subject)));
  return absl::StrCat(RandomToken("", 32), ".", tag.substr(0, kTagLength));
}

vault::v1::RecordName PendingLinks::RecordOf(absl::string_view state) {
  const std::string tag = TagOf(state);
  return BrokerRecord(kKind, absl::StrCat(tag, tag.empty() ? "" : ":", HexEncode(Sha256(state))));
}

absl::Status PendingLinks::Bound(absl::string_view state) {
  const vault::v1::RecordName own = RecordOf(state);
  vault::v1::ListRequest request;
  request.set_owner_type(own.owner_type());
  request.set_owner_id(own.owner_id());
  request.set_kind(kKind);
  request.set_name_prefix(absl::StrCat(TagOf(state), ":"));
  ASSIGN_OR_RETURN(const vault::v1::ListResponse response, vault_.List(request, ""));
  std::vector<vault::v1::RecordMetadata> others;
  std::copy_if(response.records().begin(), response.records().end(), std::back_inserter(others),
               [&](const auto& metadata) { return metadata.record().name() != own.name(); });
  if (others.size() < kMost) {
    return absl::OkStatus();
  }
  std::sort(others.begin(), others.end(),
            [](const auto& a, const auto& b) { return FromTimestamp(a.updated_at()) < FromTimestamp(b.updated_at()); });
  others.resize(others.size() - (kMost - 1));
  for (const vault::v1::RecordMetadata& oldest : others) {
    vault::v1::DeleteRequest forget;
    *forget.mutable_record() = oldest.record();
    forget.set_expected_version(oldest.head());
    const absl::Status gone = vault_.Delete(forget, "").status();
    if (!gone.ok() && !absl::IsNotFound(gone) && !absl::IsAborted(gone)) {
      return gone;
    }
  }
  Log(LogLevel::kInfo, "pending_links_dropped", {{"count", static_cast<int64_t>(others.size())}});
  return absl::OkStatus();
}

}  // namespace sallyport::token_broker
