// SPDX-License-Identifier: Apache-2.0
// The part of Vault that says what there is: List and ListDue.
#include <algorithm>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/vault/due.h"
#include "services/vault/errors.h"
#include "services/vault/vault.h"

namespace sallyport::vault {
namespace {

constexpr int kDefaultDue = 50;
constexpr int kMaxDue = 200;
constexpr int kMaxKinds = 20;
constexpr int kMaxApps = 1'000;
constexpr absl::Duration kMaxClaim = absl::Minutes(5);

absl::Status CheckList(const v1::ListRequest& request) {
  if (request.limit() < 0) {
    return InvalidField("limit", "must not be negative");
  }
  if (!request.app_uid().empty() && request.kind() != kRevocationKind) {
    return InvalidField("app_uid", "needs the kind revocation");
  }
  return absl::OkStatus();
}

// What names begin with that stand for somebody: so many hexadecimal digits. Empty if the prefix is none.
std::string DigitsOf(const std::string& prefix, size_t count) {
  const std::string digits = prefix.substr(0, count);
  const bool whole = digits.size() == count && std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit);
  return whole ? digits : "";
}

// At least what is asked for. Of revocations and of links under way there may be very many, of one owner: by what their
// indexes are of. Not by a range of names, whose order is the database's own.
absl::StatusOr<std::vector<RecordRow>> FindListed(Transaction& tx, const Owner& owner, const v1::ListRequest& request) {
  if (request.kind().empty()) {
    return ListRecords(tx, owner);
  }
  if (!request.app_uid().empty()) {
    // A prefix takes some of them away again.
    const bool some = request.limit() > 0 && request.name_prefix().empty();
    return QueryRecords(tx, "WHERE kind = :kind AND app_uid = :app AND head <> 0 ORDER BY rid LIMIT :limit",
                        {{"kind", kRevocationKind},
                         {"app", request.app_uid()},
                         {"limit", some ? int64_t{request.limit()} : std::numeric_limits<int64_t>::max()}});
  }
  if (const std::string user = DigitsOf(request.name_prefix(), 64);
      request.kind() == kRevocationKind && !user.empty()) {
    return QueryRecords(tx, "WHERE kind = 'revocation' AND substr(name, 1, 64) = :whose ORDER BY name",
                        {{"whose", user}});
  }
  if (const std::string link = DigitsOf(request.name_prefix(), 32); request.kind() == "link_flow" && !link.empty()) {
    return QueryRecords(tx, "WHERE kind = 'link_flow' AND substr(name, 1, 32) = :whose ORDER BY name",
                        {{"whose", link}});
  }
  return QueryRecords(tx, "WHERE owner_type = :owner_type AND owner_id = :owner_id AND kind = :kind ORDER BY name",
                      {{"owner_type", owner.type}, {"owner_id", owner.id}, {"kind", request.kind()}});
}

absl::Duration ClaimOf(const v1::ListDueRequest& request) {
  return absl::Seconds(request.claim().seconds()) + absl::Nanoseconds(request.claim().nanos());
}

absl::Status CheckListDue(const v1::ListDueRequest& request) {
  if (request.limit() < 0 || request.limit() > kMaxDue) {
    return InvalidField("limit", "must be 0 to 200");
  }
  if (request.kinds().empty() || request.kinds_size() > kMaxKinds) {
    return InvalidField("kinds", "must name 1 to 20 kinds");
  }
  if (request.without_apps_size() > kMaxApps) {
    return InvalidField("without_apps", "are more than 1000");
  }
  if (ClaimOf(request) < absl::ZeroDuration() || ClaimOf(request) > kMaxClaim) {
    return InvalidField("claim", "must be at most 5 min");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ListResponse> Vault::List(const Caller& caller, const v1::ListRequest& request) {
  ASSIGN_OR_RETURN(const Owner owner, ParseOwner(request.owner_type(), request.owner_id()));
  const RecordId id = {owner, request.kind(), ""};
  RETURN_IF_ERROR(CheckList(request));
  RETURN_IF_ERROR(Recorded(CheckListOwner(caller, owner, request.kind()), caller, Operation::kList, id));
  if (!request.kind().empty() && !MayListKind(caller, owner.type, request.kind())) {
    return Recorded(error::Denied("this service may not list records of this kind", "caller_not_allowed"), caller,
                    Operation::kList, id);
  }
  v1::ListResponse response;
  RETURN_IF_ERROR(Read([&](Transaction& tx) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(const std::vector<RecordRow> rows, FindListed(tx, owner, request));
    for (const RecordRow& row : rows) {
      if (request.limit() != 0 && response.records_size() == request.limit()) {
        break;
      }
      const bool wanted = (request.kind().empty() || row.id.kind == request.kind()) &&
                          absl::StartsWith(row.id.name, request.name_prefix());
      if (wanted && row.head != 0 && row.id.owner == owner && MaySee(caller, row.id)) {
        *response.add_records() = ToMetadata(row);
      }
    }
    return absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<v1::ListDueResponse> Vault::ListDue(const Caller& caller, const v1::ListDueRequest& request) {
  RETURN_IF_ERROR(CheckListDue(request));
  for (const std::string& kind : request.kinds()) {
    if (!MayListKind(caller, "any", kind)) {
      return Recorded(error::Denied("this service may not list records of this kind", "caller_not_allowed"), caller,
                      Operation::kList, {{"any", "any"}, kind, ""});
    }
  }
  const bool claims = ClaimOf(request) > absl::ZeroDuration();
  DueQuery query;
  query.kinds = {request.kinds().begin(), request.kinds().end()};
  query.without_apps = {request.without_apps().begin(), request.without_apps().end()};
  query.limit = request.limit() == 0 ? kDefaultDue : request.limit();
  query.lock = claims;
  v1::ListDueResponse response;
  const auto list = [&](Transaction& tx) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(query.now, tx.Now());
    ASSIGN_OR_RETURN(const std::vector<RecordRow> rows, ListDueRecords(tx, query));
    for (const RecordRow& row : rows) {
      *response.add_records() = ToMetadata(row);
    }
    return claims ? ClaimRecords(tx, rows, query.now + ClaimOf(request)) : absl::OkStatus();
  };
  RETURN_IF_ERROR(claims ? Write(list) : Read(list));
  // Beside it, so that no writer waits for the count.
  RETURN_IF_ERROR(Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    ASSIGN_OR_RETURN(const DueCount count, CountDue(tx, query.kinds, now));
    response.set_due(count.due);
    if (count.due > 0) {
      *response.mutable_oldest_due() = ToTimestamp(count.oldest);
    }
    return absl::OkStatus();
  }));
  return response;
}

}  // namespace sallyport::vault
