// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/sql/sql.h"
#include "common/status_macros.h"

namespace sallyport {

// A table as it is in the database, whatever the program knows of it.
struct Table {
  struct Column {
    std::string name;
    bool number = false;
  };
  using Cells = std::vector<SqlValue>;

  std::string name;
  std::vector<Column> columns;
  std::vector<Cells> rows;

  // Empty for a number.
  std::string Text(size_t row, size_t column) const {
    const auto* text = std::get_if<std::string>(&rows[row][column].variant());
    return text == nullptr ? "" : *text;
  }
  int64_t Number(size_t row, size_t column) const {
    const auto* number = std::get_if<int64_t>(&rows[row][column].variant());
    return number == nullptr ? 0 : *number;
  }
  // The column's values, to tell whether an edit changed any.
  std::vector<SqlValue::Variant> Values(size_t column) const {
    std::vector<SqlValue::Variant> values;
    for (const Cells& row : rows) values.push_back(row[column].variant());
    return values;
  }
  size_t Find(const std::string& column) const {
    size_t at = 0;
    while (at < columns.size() && columns[at].name != column) ++at;
    return at;
  }
};

// The database's tables and columns as the engine's own catalog lists them, so that none is left out that was added
// later.
class TableEditor {
 public:
  explicit TableEditor(Database& database) : database_(database) {}

  absl::StatusOr<std::vector<Table>> ReadAll() {
    std::vector<Table> tables;
    RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
      tables.clear();
      ASSIGN_OR_RETURN(const Rows names, tx.Query(TablesSql()));
      for (const Row& row : names) {
        ASSIGN_OR_RETURN(Table table, Read(tx, row.Text("name")));
        tables.push_back(std::move(table));
      }
      return absl::OkStatus();
    }));
    return tables;
  }
  // These rows in place of those that are there; an error if a constraint does not take them.
  absl::Status Replace(const std::vector<Table>& tables) {
    return database_.Write([&](Transaction& tx) -> absl::Status {
      for (const Table& table : tables) {
        RETURN_IF_ERROR(tx.Exec(absl::StrCat("DELETE FROM ", table.name)).status());
        RETURN_IF_ERROR(tx.Insert(absl::StrCat(table.name, " (", Names(table), ")"), table.rows).status());
      }
      return absl::OkStatus();
    });
  }

 private:
  bool sqlite() const { return database_.dialect() == SqlDialect::kSqlite; }
  std::string TablesSql() const {
    return sqlite() ? "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
                    : "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables WHERE table_schema = "
                      "'public' ORDER BY table_name";
  }
  std::string ColumnsSql() const {
    return sqlite() ? "SELECT name, lower(type) AS type FROM pragma_table_info(:table) ORDER BY cid"
                    : "SELECT CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS type FROM "
                      "information_schema.columns WHERE table_schema = 'public' AND table_name = :table ORDER BY "
                      "ordinal_position";
  }
  absl::StatusOr<Table> Read(Transaction& tx, const std::string& name) const {
    Table table;
    table.name = name;
    ASSIGN_OR_RETURN(const Rows columns, tx.Query(ColumnsSql(), {{"table", name}}));
    for (const Row& column : columns) {
      const std::string type = column.Text("type");
      if (type != "bigint" && type != "text") {
        return absl::UnimplementedError(absl::StrCat("no way to edit ", name, ".", column.Text("name"), ", a ", type));
      }
      table.columns.push_back({column.Text("name"), type == "bigint"});
    }
    ASSIGN_OR_RETURN(const Rows rows, tx.Query(absl::StrCat("SELECT ", Names(table), " FROM ", name, " ORDER BY ",
                                                            table.columns[0].name)));
    for (const Row& row : rows) table.rows.push_back(CellsOf(table, row));
    return table;
  }
  static Table::Cells CellsOf(const Table& table, const Row& row) {
    Table::Cells cells;
    for (const Table::Column& column : table.columns) {
      if (row.IsNull(column.name)) {
        cells.emplace_back(nullptr);
      } else if (column.number) {
        cells.emplace_back(row.Int(column.name));
      } else {
        cells.emplace_back(row.Text(column.name));
      }
    }
    return cells;
  }
  static std::string Names(const Table& table) {
    return absl::StrJoin(table.columns, ", ",
                         [](std::string* out, const Table::Column& column) { absl::StrAppend(out, column.name); });
  }

  Database& database_;
};

}  // namespace sallyport
