// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/owed.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/status_macros.h"
#include "common/text/hex.h"

namespace sallyport::token_broker {
namespace {

std::string LabelOf(const vault::v1::RecordMetadata& metadata, const char* name) {
  const auto label = metadata.labels().find(name);
  return label == metadata.labels().end() ? "" : label->second;
}

vault::v1::ListRequest ListOfOwed() {
  vault::v1::ListRequest request;
  request.set_owner_type(vault::v1::SYSTEM);
  request.set_owner_id("token_broker");
  request.set_kind(kRevocation);
  return request;
}

absl::StatusOr<std::vector<vault::v1::RecordMetadata>> OwedUnder(VaultClient& vault, const std::string& prefix) {
  vault::v1::ListRequest request = ListOfOwed();
  request.set_name_prefix(prefix);
  ASSIGN_OR_RETURN(vault::v1::ListResponse response, vault.List(request, ""));
  std::vector<vault::v1::RecordMetadata> owed(std::make_move_iterator(response.mutable_records()->begin()),
                                              std::make_move_iterator(response.mutable_records()->end()));
  std::stable_sort(owed.begin(), owed.end(), [](const auto& a, const auto& b) {
    return SinceOf(a).value_or(absl::InfinitePast()) < SinceOf(b).value_or(absl::InfinitePast());
  });
  return owed;
}

std::string PrefixOf(const std::string& subject) { return absl::StrCat(HexEncode(Sha256(subject)), ":"); }

}  // namespace

std::string AppUidOf(const vault::v1::RecordMetadata& metadata) {
  return metadata.record().kind() == "connection" ? AppUidOf(metadata.record().name()) : LabelOf(metadata, "app_uid");
}

ConnectionKey ConnectionOf(const vault::v1::RecordMetadata& owed) {
  return {LabelOf(owed, "subject"), LabelOf(owed, "connection")};
}

int64_t GenerationOf(const vault::v1::RecordMetadata& owed) {
  // In the name behind the hash, which is of 64 digits, and the connection's own name.
  const size_t begin = 64 + 1 + ConnectionOf(owed).connection.size() + 1;
  const std::string& name = owed.record().name();
  int64_t generation = 0;
  return begin < name.size() && absl::SimpleAtoi(name.substr(begin, name.find(':', begin) - begin), &generation)
             ? generation
             : 0;
}

std::optional<absl::Time> SinceOf(const vault::v1::RecordMetadata& owed) {
  absl::Time since;
  if (!absl::ParseTime(absl::RFC3339_full, LabelOf(owed, "since"), &since, nullptr)) {
    return std::nullopt;
  }
  return since;
}

absl::StatusOr<std::vector<vault::v1::RecordMetadata>> OwedBy(VaultClient& vault, const std::string& subject) {
  return OwedUnder(vault, PrefixOf(subject));
}

absl::StatusOr<std::vector<vault::v1::RecordMetadata>> OwedOfApp(VaultClient& vault, const std::string& app_uid,
                                                                 int limit) {
  vault::v1::ListRequest request = ListOfOwed();
  request.set_app_uid(app_uid);
  request.set_limit(limit);
  ASSIGN_OR_RETURN(vault::v1::ListResponse response, vault.List(request, ""));
  return std::vector<vault::v1::RecordMetadata>(std::make_move_iterator(response.mutable_records()->begin()),
                                                std::make_move_iterator(response.mutable_records()->end()));
}

absl::StatusOr<std::vector<vault::v1::RecordMetadata>> OwedBy(VaultClient& vault, const ConnectionKey& key) {
  return OwedUnder(vault, absl::StrCat(PrefixOf(key.subject), key.connection, ":"));
}

}  // namespace sallyport::token_broker
