// SPDX-License-Identifier: Apache-2.0
// Data keys of owners, and the terms they are under.
#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/status_macros.h"
#include "services/vault/store.h"

namespace sallyport::vault {
namespace {

constexpr char kOwnerKeyColumns[] = "owner_type, owner_id, key_version, term, destroyed, wrapped";

OwnerKeyRow ToOwnerKey(const Row& row) {
  OwnerKeyRow out;
  out.owner = {row.Text("owner_type"), row.Text("owner_id")};
  out.key_version = static_cast<uint32_t>(row.Int("key_version"));
  out.term = static_cast<uint32_t>(row.Int("term"));
  out.destroyed = row.Bool("destroyed");
  out.wrapped = row.BytesAt("wrapped");
  return out;
}

// "<length>:<bytes>" for each name and value: annotations of a KMS plugin are any bytes.
Bytes AnnotationBytes(const std::map<std::string, std::string>& annotations) {
  std::string out;
  for (const auto& [name, value] : annotations) {
    absl::StrAppend(&out, name.size(), ":", name, value.size(), ":", value);
  }
  return Bytes{out};
}

std::map<std::string, std::string> ParseAnnotations(absl::string_view bytes) {
  std::map<std::string, std::string> out;
  const auto take = [&bytes](std::string& item) {
    const size_t colon = bytes.find(':');
    size_t size = 0;
    if (colon == absl::string_view::npos || !absl::SimpleAtoi(bytes.substr(0, colon), &size) ||
        size > bytes.size() - colon - 1) {
      return false;
    }
    item = std::string(bytes.substr(colon + 1, size));
    bytes.remove_prefix(colon + 1 + size);
    return true;
  };
  std::string name;
  std::string value;
  while (!bytes.empty() && take(name) && take(value)) {
    out[name] = value;
  }
  return out;
}

}  // namespace

uint32_t ActiveTerm(const std::vector<TermRow>& terms) {
  const auto active =
      std::find_if(terms.begin(), terms.end(), [](const TermRow& term) { return term.state == "active"; });
  return active == terms.end() ? 0 : active->term;
}

absl::StatusOr<std::optional<OwnerKeyRow>> FindOwnerKey(Transaction& tx, const Owner& owner, uint32_t key_version) {
  ASSIGN_OR_RETURN(
      const auto row,
      tx.QueryRow(absl::StrCat("SELECT ", kOwnerKeyColumns,
                               " FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id AND "
                               "key_version = :key_version"),
                  {{"owner_type", owner.type}, {"owner_id", owner.id}, {"key_version", key_version}}));
  return row.has_value() ? std::make_optional(ToOwnerKey(*row)) : std::nullopt;
}

absl::StatusOr<std::optional<OwnerKeyRow>> FindNewestOwnerKey(Transaction& tx, const Owner& owner) {
  ASSIGN_OR_RETURN(const auto row,
                   tx.QueryRow(absl::StrCat("SELECT ", kOwnerKeyColumns,
                                            " FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id "
                                            "ORDER BY key_version DESC LIMIT 1"),
                               {{"owner_type", owner.type}, {"owner_id", owner.id}}));
  return row.has_value() ? std::make_optional(ToOwnerKey(*row)) : std::nullopt;
}

absl::Status SaveOwnerKey(Transaction& tx, const OwnerKeyRow& row) {
  return tx
      .Exec(
          "INSERT INTO data_key (owner_type, owner_id, key_version, term, destroyed, wrapped) VALUES (:owner_type, "
          ":owner_id, :key_version, :term, :destroyed, :wrapped) ON CONFLICT (owner_type, owner_id, key_version) DO "
          "UPDATE SET term = excluded.term, destroyed = excluded.destroyed, wrapped = excluded.wrapped",
          {{"owner_type", row.owner.type},
           {"owner_id", row.owner.id},
           {"key_version", row.key_version},
           {"term", row.term},
           {"destroyed", row.destroyed},
           {"wrapped", Bytes{row.wrapped}}})
      .status();
}

absl::Status EraseOwnerKey(Transaction& tx, const OwnerKeyRow& row) {
  return tx
      .Exec(
          "DELETE FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id AND key_version = :key_version",
          {{"owner_type", row.owner.type}, {"owner_id", row.owner.id}, {"key_version", row.key_version}})
      .status();
}

absl::Status DestroyOwnerKeys(Transaction& tx, const Owner& owner) {
  ASSIGN_OR_RETURN(auto newest, FindNewestOwnerKey(tx, owner));
  if (!newest.has_value()) {
    return absl::OkStatus();
  }
  const SqlParams whose = {{"owner_type", owner.type}, {"owner_id", owner.id}};
  // Overwritten first: a row that is deleted may lie in its page for a while.
  RETURN_IF_ERROR(
      tx.Exec("UPDATE data_key SET wrapped = '' WHERE owner_type = :owner_type AND owner_id = :owner_id", whose)
          .status());
  RETURN_IF_ERROR(
      tx.Exec("DELETE FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id", whose).status());
  newest->destroyed = true;
  newest->wrapped.clear();
  return SaveOwnerKey(tx, *newest);
}

absl::StatusOr<std::vector<OwnerKeyRow>> ListOwnerKeysBefore(Transaction& tx, uint32_t term,
                                                             const std::optional<OwnerKeyRow>& after, int limit) {
  SqlParams params = {{"term", term}, {"limit", limit}};
  std::string beyond;
  if (after.has_value()) {
    beyond = "AND (term, owner_type, owner_id, key_version) > (:at_term, :at_type, :at_id, :at_version) ";
    params.push_back({"at_term", after->term});
    params.push_back({"at_type", after->owner.type});
    params.push_back({"at_id", after->owner.id});
    params.push_back({"at_version", after->key_version});
  }
  ASSIGN_OR_RETURN(
      const Rows rows,
      tx.Query(absl::StrCat("SELECT ", kOwnerKeyColumns, " FROM data_key WHERE term < :term AND destroyed = 0 ", beyond,
                            "ORDER BY term, owner_type, owner_id, key_version LIMIT :limit"),
               params));
  std::vector<OwnerKeyRow> out;
  for (const Row& row : rows) {
    out.push_back(ToOwnerKey(row));
  }
  return out;
}

absl::StatusOr<std::map<uint32_t, int64_t>> CountOwnerKeysByTerm(Transaction& tx) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT term, COUNT(*) AS n FROM data_key WHERE destroyed = 0 GROUP BY term"));
  std::map<uint32_t, int64_t> out;
  for (const Row& row : rows) {
    out[static_cast<uint32_t>(row.Int("term"))] = row.Int("n");
  }
  return out;
}

absl::StatusOr<std::vector<TermRow>> ListTerms(Transaction& tx) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT term, state, kek_id, wrapped, annotations, created_at FROM keyring ORDER BY term"));
  std::vector<TermRow> out;
  for (const Row& row : rows) {
    TermRow term;
    term.term = static_cast<uint32_t>(row.Int("term"));
    term.state = row.Text("state");
    term.wrapped.key_id = row.Text("kek_id");
    term.wrapped.ciphertext = row.BytesAt("wrapped");
    term.wrapped.annotations = ParseAnnotations(row.BytesAt("annotations"));
    term.created_at = row.TimeAt("created_at");
    out.push_back(std::move(term));
  }
  return out;
}

absl::Status SaveTerm(Transaction& tx, const TermRow& row) {
  return tx
      .Exec(
          "INSERT INTO keyring (term, state, kek_id, wrapped, annotations, created_at) VALUES (:term, :state, :kek_id, "
          ":wrapped, :annotations, :created_at) ON CONFLICT (term) DO UPDATE SET state = excluded.state, "
          "kek_id = excluded.kek_id, wrapped = excluded.wrapped, annotations = excluded.annotations",
          {{"term", row.term},
           {"state", row.state},
           {"kek_id", row.wrapped.key_id},
           {"wrapped", Bytes{row.wrapped.ciphertext}},
           {"annotations", AnnotationBytes(row.wrapped.annotations)},
           {"created_at", row.created_at}})
      .status();
}

}  // namespace sallyport::vault
