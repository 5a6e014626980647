// SPDX-License-Identifier: Apache-2.0
#include "services/registry/audit_store.h"

#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/registry/audit_names.h"

namespace sallyport::registry {
namespace {

constexpr int kMaxBatch = 1000;
constexpr int kMaxPage = 1000;
constexpr int kDefaultPage = 100;

absl::Status CheckBatch(const audit::v1::AppendRequest& request) {
  if (request.events().empty() || request.events_size() > kMaxBatch) {
    return InvalidField("events", "must hold 1 to 1000 events");
  }
  const audit::v1::Event& first = request.events(0);
  for (int i = 0; i < request.events_size(); ++i) {
    const audit::v1::Event& event = request.events(i);
    const std::string field = absl::StrCat("events[", i, "]");
    if (event.source().empty() || event.boot().empty() || event.sequence() == 0 || !event.has_at()) {
      return InvalidField(field, "needs source, boot, sequence and at");
    }
    if (event.sequence() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return InvalidField(field, "sequence is beyond 2^63");
    }
    if (event.type() == "lost" && (event.lost_from() == 0 || event.lost_from() > event.sequence())) {
      return InvalidField(field, "lostFrom must be 1 to sequence");
    }
    if (event.source() != first.source() || event.boot() != first.boot()) {
      return InvalidField(field, "a batch holds events of one source and boot");
    }
  }
  return absl::OkStatus();
}

// For the columns one searches by. A NUL, which no database takes as text, must not block everything behind its event;
// the body holds what was sent.
std::string Searchable(const std::string& text) {
  return absl::StrReplaceAll(text, {{absl::string_view("\0", 1), "?"}});
}

// How many were not there yet.
absl::StatusOr<int64_t> Insert(Transaction& tx, const audit::v1::AppendRequest& request) {
  std::vector<std::vector<SqlValue>> rows;
  rows.reserve(static_cast<size_t>(request.events_size()));
  for (const audit::v1::Event& event : request.events()) {
    rows.push_back({event.source(), event.boot(), event.sequence(), FromTimestamp(event.at()), Searchable(event.type()),
                    Searchable(event.subject()), Searchable(event.server_uid()), Searchable(event.server_slug()),
                    event.decision(), Bytes{AuditNames::SerializeWithoutNames(event)}});
  }
  return tx.Insert("audit_event (source, boot, sequence, at, type, subject, server_uid, server_slug, decision, body)",
                   rows, "ON CONFLICT DO NOTHING");
}

// Some of the batch were there already. As a rule they were sent twice; but a source whose database was restored from a
// backup gives its numbers out again, and what it sends under them is news that must not be taken for known.
absl::Status RefuseReused(Transaction& tx, const audit::v1::AppendRequest& request) {
  absl::flat_hash_map<int64_t, const audit::v1::Event*> sent;
  int64_t first = std::numeric_limits<int64_t>::max();
  int64_t last = 0;
  for (const audit::v1::Event& event : request.events()) {
    const auto sequence = static_cast<int64_t>(event.sequence());
    sent[sequence] = &event;
    first = std::min(first, sequence);
    last = std::max(last, sequence);
  }
  ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT sequence, at, type FROM audit_event WHERE source = :source AND "
                                             "boot = :boot AND sequence >= :first AND sequence <= :last",
                                             {{"source", request.events(0).source()},
                                              {"boot", request.events(0).boot()},
                                              {"first", first},
                                              {"last", last}}));
  for (const Row& row : rows) {
    const auto found = sent.find(row.Int("sequence"));
    if (found == sent.end()) continue;
    const audit::v1::Event& event = *found->second;
    // To the microsecond, which is what the column keeps.
    const bool same_time = absl::ToUnixMicros(row.TimeAt("at")) == absl::ToUnixMicros(FromTimestamp(event.at()));
    if (!same_time || row.Text("type") != Searchable(event.type())) {
      return WithReason(absl::FailedPreconditionError(
                            absl::StrCat("event ", event.sequence(), " of this boot is another one: begin a new boot")),
                        "sequence_reused");
    }
  }
  return absl::OkStatus();
}

struct Filter {
  std::string where = "1 = 1";
  SqlParams params;
  void Add(const std::string& condition, const std::string& name, SqlValue value) {
    where += " AND " + condition;
    params.push_back({name, std::move(value)});
  }
};

// The page token is "<at>:<rowkey>" of the last event shown: stable while new events arrive.
absl::StatusOr<Filter> MakeFilter(const audit::v1::ListEventsRequest& request) {
  Filter filter;
  if (!request.type().empty()) filter.Add("type = :type", "type", request.type());
  if (!request.subject().empty()) filter.Add("subject = :subject", "subject", request.subject());
  if (!request.server_uid().empty()) filter.Add("server_uid = :server_uid", "server_uid", request.server_uid());
  if (!request.server_slug().empty()) filter.Add("server_slug = :server_slug", "server_slug", request.server_slug());
  if (request.decision() != audit::v1::DECISION_UNSPECIFIED) {
    filter.Add("decision = :decision", "decision", static_cast<int64_t>(request.decision()));
  }
  if (request.has_since()) filter.Add("at >= :since", "since", FromTimestamp(request.since()));
  if (request.has_until()) filter.Add("at < :until", "until", FromTimestamp(request.until()));
  if (!request.page_token().empty()) {
    const std::vector<std::string> parts = absl::StrSplit(request.page_token(), absl::MaxSplits(':', 1));
    int64_t at = 0;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &at)) return InvalidField("pageToken", "is not one of ours");
    filter.Add("(at < :page_at OR (at = :page_at AND source || ' ' || boot || ' ' || sequence > :page_key))", "page_at",
               at);
    filter.params.push_back({"page_key", parts[1]});
  }
  return filter;
}

}  // namespace

std::vector<std::string> AuditStore::Schema() {
  return {
      "CREATE TABLE audit_event (source TEXT NOT NULL, boot TEXT NOT NULL, sequence BIGINT NOT NULL, at BIGINT NOT "
      "NULL, type "
      "TEXT NOT NULL, subject TEXT NOT NULL, server_uid TEXT NOT NULL, server_slug TEXT NOT NULL, decision BIGINT NOT "
      "NULL, "
      "body TEXT NOT NULL, PRIMARY KEY (source, boot, sequence))",
      "CREATE INDEX audit_event_at ON audit_event (at)",
      "CREATE TABLE audit_source (source TEXT NOT NULL, boot TEXT NOT NULL, stored_through BIGINT NOT NULL, PRIMARY "
      "KEY "
      "(source, boot))",
  };
}

absl::StatusOr<audit::v1::AppendResponse> AuditStore::Append(const audit::v1::AppendRequest& request) {
  RETURN_IF_ERROR(CheckBatch(request));
  const audit::v1::Event& first = request.events(0);
  const SqlParams key = {{"source", first.source()}, {"boot", first.boot()}};
  audit::v1::AppendResponse response;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(
        auto row, tx.QueryRow("SELECT stored_through FROM audit_source WHERE source = :source AND boot = :boot", key));
    int64_t stored_through = row ? row->Int("stored_through") : 0;
    for (const audit::v1::Event& event : request.events()) {
      const auto sequence = static_cast<int64_t>(event.sequence());
      // A "lost" event stands for all it counts; its sequence is the last of them.
      const int64_t from = event.type() == "lost" ? static_cast<int64_t>(event.lost_from()) : sequence;
      if (from <= stored_through + 1 && sequence > stored_through) stored_through = sequence;
    }
    ASSIGN_OR_RETURN(const int64_t inserted, Insert(tx, request));
    if (inserted < request.events_size()) RETURN_IF_ERROR(RefuseReused(tx, request));
    RETURN_IF_ERROR(AuditNames::Learn(tx, request));
    response.set_stored_through(static_cast<uint64_t>(stored_through));
    return tx
        .Exec(
            "INSERT INTO audit_source (source, boot, stored_through) VALUES (:source, :boot, :stored) ON CONFLICT "
            "(source, "
            "boot) DO UPDATE SET stored_through = excluded.stored_through",
            {key[0], key[1], {"stored", stored_through}})
        .status();
  }));
  return response;
}

absl::StatusOr<audit::v1::ListEventsResponse> AuditStore::List(const audit::v1::ListEventsRequest& request) {
  if (request.page_size() < 0 || request.page_size() > kMaxPage) return InvalidField("pageSize", "must be 0 to 1000");
  const int page = request.page_size() == 0 ? kDefaultPage : request.page_size();
  ASSIGN_OR_RETURN(Filter filter, MakeFilter(request));
  filter.params.push_back({"count", page + 1});
  audit::v1::ListEventsResponse response;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(
        const Rows rows,
        tx.Query("SELECT at, source || ' ' || boot || ' ' || sequence AS row_key, body FROM audit_event WHERE " +
                     filter.where + " ORDER BY at DESC, row_key LIMIT :count",
                 filter.params));
    for (size_t i = 0; i < rows.size() && i < static_cast<size_t>(page); ++i) {
      if (!response.add_events()->ParseFromString(rows[i].BytesAt("body"))) {
        return absl::DataLossError("a stored event does not parse");
      }
      if (rows.size() > static_cast<size_t>(page)) {
        response.set_next_page_token(absl::StrCat(rows[i].Int("at"), ":", rows[i].Text("row_key")));
      }
    }
    return AuditNames::Fill(tx, response);
  }));
  return response;
}

absl::Status AuditStore::DeleteBefore(absl::Time before) {
  return database_.Write([&](Transaction& tx) -> absl::Status {
    RETURN_IF_ERROR(tx.Exec("DELETE FROM audit_event WHERE at < :before", {{"before", before}}).status());
    return AuditNames::DeleteBefore(tx, before);
  });
}

absl::StatusOr<audit::v1::EraseNamesResponse> AuditStore::EraseNames(
    const audit::v1::EraseNamesRequest& request, const std::function<absl::Status(Transaction&)>& record) {
  audit::v1::EraseNamesResponse response;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const bool erased, AuditNames::Erase(tx, request));
    response.set_erased(erased);
    return record(tx);
  }));
  return response;
}

}  // namespace sallyport::registry
