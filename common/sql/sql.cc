// SPDX-License-Identifier: Apache-2.0
#include "common/sql/sql.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/sql/session.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/utf8.h"

namespace sallyport {
namespace {

// PostgreSQL takes 65,535 parameters; names are looked up one by one, so that many rows cost more than their number.
constexpr size_t kRowsPerStatement = 40;
constexpr int64_t kInfiniteFutureMicros = std::numeric_limits<int64_t>::max();
constexpr int64_t kInfinitePastMicros = std::numeric_limits<int64_t>::min();

[[noreturn]] void Bug(absl::string_view what, absl::string_view column) {
  std::fprintf(stderr, "sallyport: %s: column \"%s\"\n", std::string(what).c_str(), std::string(column).c_str());
  std::abort();
}

absl::Time TimeFromMicros(int64_t micros) {
  if (micros == kInfiniteFutureMicros) return absl::InfiniteFuture();
  if (micros == kInfinitePastMicros) return absl::InfinitePast();
  return absl::FromUnixMicros(micros);
}

absl::Status CheckText(absl::string_view name, const SqlValue& value) {
  const auto* text = std::get_if<std::string>(&value.variant());
  if (text == nullptr) return absl::OkStatus();
  if (text->find('\0') != std::string::npos || !IsValidUtf8(*text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sql parameter ", name, ": text must be UTF-8 without NUL; use Bytes for binary"));
  }
  return absl::OkStatus();
}

// SOCI keeps addresses of what is bound, so the values stand in deques until the statement is done.
struct Bound {
  long long number = 0;
  std::string text;
  soci::indicator indicator = soci::i_ok;
};

bool IsNumber(const SqlValue& value) { return std::holds_alternative<int64_t>(value.variant()); }
bool IsText(const SqlValue& value) { return std::holds_alternative<std::string>(value.variant()); }

void Assign(const SqlValue& value, Bound& bound) {
  bound.indicator = soci::i_ok;
  if (const auto* number = std::get_if<int64_t>(&value.variant()); number != nullptr) {
    bound.number = *number;
  } else if (const auto* text = std::get_if<std::string>(&value.variant()); text != nullptr) {
    bound.text = *text;
  } else {
    bound.indicator = soci::i_null;
  }
}

void Bind(soci::statement& statement, const SqlParam& param, Bound& bound) {
  Assign(param.value, bound);
  if (IsNumber(param.value)) {
    statement.exchange(soci::use(bound.number, bound.indicator, param.name));
  } else {
    statement.exchange(soci::use(bound.text, bound.indicator, param.name));
  }
}

std::string ColumnName(size_t column) { return absl::StrCat("c", column); }

// ":<first>, :<second>, …", as `name` calls the columns.
template <typename Name>
std::string Placeholders(size_t columns, const Name& name) {
  std::string list;
  for (size_t i = 0; i < columns; ++i) absl::StrAppend(&list, i == 0 ? ":" : ", :", name(i));
  return list;
}

absl::Status CheckRows(const std::vector<std::vector<SqlValue>>& rows) {
  for (const auto& row : rows) {
    if (row.size() != rows[0].size() || row.empty()) {
      return absl::InvalidArgumentError("sql: rows of one INSERT need a value for each column");
    }
    for (size_t i = 0; i < row.size(); ++i) RETURN_IF_ERROR(CheckText(ColumnName(i), row[i]));
  }
  for (size_t i = 0; i < rows[0].size(); ++i) {
    const bool number = std::any_of(rows.begin(), rows.end(), [i](const auto& row) { return IsNumber(row[i]); });
    const bool text = std::any_of(rows.begin(), rows.end(), [i](const auto& row) { return IsText(row[i]); });
    if (number && text) {
      return absl::InvalidArgumentError(
          absl::StrCat("sql parameter ", ColumnName(i), ": is a number in one row and text in another"));
    }
  }
  return absl::OkStatus();
}

SqlValue::Variant ReadValue(const soci::row& row, size_t index) {
  if (row.get_indicator(index) == soci::i_null) return std::monostate();
  switch (row.get_properties(index).get_data_type()) {
    case soci::dt_integer:
      return int64_t{row.get<int>(index)};
    case soci::dt_long_long:
      return static_cast<int64_t>(row.get<long long>(index));
    case soci::dt_unsigned_long_long:
      return static_cast<int64_t>(row.get<unsigned long long>(index));
    case soci::dt_double: {
      // NUMERIC, which PostgreSQL makes of SUM over BIGINT.
      const double number = row.get<double>(index);
      if (number == std::trunc(number) && std::abs(number) < 0x1p53) return static_cast<int64_t>(number);
      return absl::StrCat(number);
    }
    default:
      return row.get<std::string>(index);
  }
}

}  // namespace

SqlValue::SqlValue(const Bytes& bytes) : value_(Base64UrlEncode(bytes.value)) {}

SqlValue::SqlValue(absl::Time time) {
  if (time == absl::InfiniteFuture()) {
    value_ = kInfiniteFutureMicros;
  } else if (time == absl::InfinitePast()) {
    value_ = kInfinitePastMicros;
  } else {
    value_ = absl::ToUnixMicros(time);
  }
}

const SqlValue::Variant& Row::At(absl::string_view column) const {
  for (size_t i = 0; i < columns_->size(); ++i) {
    if ((*columns_)[i] == column) return values_[i];
  }
  Bug("the result has no such column", column);
}

bool Row::IsNull(absl::string_view column) const { return std::holds_alternative<std::monostate>(At(column)); }

int64_t Row::Int(absl::string_view column) const {
  const SqlValue::Variant& value = At(column);
  if (const auto* number = std::get_if<int64_t>(&value); number != nullptr) return *number;
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) return 0;
  // SQLite's expressions (COUNT(*), MAX(x)) have no declared type and arrive as text.
  int64_t number = 0;
  if (!absl::SimpleAtoi(*text, &number)) Bug("the value is not a number", column);
  return number;
}

std::string Row::Text(absl::string_view column) const {
  const SqlValue::Variant& value = At(column);
  if (const auto* text = std::get_if<std::string>(&value); text != nullptr) return *text;
  if (const auto* number = std::get_if<int64_t>(&value); number != nullptr) return absl::StrCat(*number);
  return "";
}

std::string Row::BytesAt(absl::string_view column) const { return Base64UrlDecode(Text(column)).value_or(""); }

absl::Time Row::TimeAt(absl::string_view column) const {
  return IsNull(column) ? absl::InfinitePast() : TimeFromMicros(Int(column));
}

std::optional<int64_t> Row::OptInt(absl::string_view column) const {
  if (IsNull(column)) return std::nullopt;
  return Int(column);
}
std::optional<std::string> Row::OptText(absl::string_view column) const {
  if (IsNull(column)) return std::nullopt;
  return Text(column);
}
std::optional<absl::Time> Row::OptTime(absl::string_view column) const {
  if (IsNull(column)) return std::nullopt;
  return TimeAt(column);
}

SqlDialect Transaction::dialect() const { return session_.dialect; }

absl::StatusOr<Rows> Transaction::Run(const std::string& sql, const SqlParams& params, bool want_rows,
                                      int64_t* affected) {
  if (!failed_.ok()) return failed_;  // PostgreSQL would say so; SQLite would go on.
  for (const SqlParam& param : params) RETURN_IF_ERROR(failed_ = CheckText(param.name, param.value));
  Rows rows;
  failed_ = CatchSqlErrors(session_.soci, session_.dialect, [&] {
    std::deque<Bound> bound(params.size());
    soci::statement statement(session_.soci);
    for (size_t i = 0; i < params.size(); ++i) Bind(statement, params[i], bound[i]);
    soci::row row;
    if (want_rows) statement.exchange(soci::into(row));
    statement.alloc();
    // One-time: PQexecParams in one round trip instead of PQprepare and PQexecPrepared.
    statement.prepare(sql, soci::details::st_one_time_query);
    statement.define_and_bind();
    std::shared_ptr<Row::Columns> columns;
    for (bool more = statement.execute(true); more && want_rows; more = statement.fetch()) {
      if (columns == nullptr) {
        columns = std::make_shared<Row::Columns>();
        for (size_t i = 0; i < row.size(); ++i) columns->push_back(row.get_properties(i).get_name());
      }
      Row copy;
      copy.columns_ = columns;
      for (size_t i = 0; i < row.size(); ++i) copy.values_.push_back(ReadValue(row, i));
      rows.push_back(std::move(copy));
    }
    if (affected != nullptr) *affected = statement.get_affected_rows();
  });
  RETURN_IF_ERROR(failed_);
  return rows;
}

absl::StatusOr<int64_t> Transaction::Exec(const std::string& sql, const SqlParams& params) {
  int64_t affected = 0;
  RETURN_IF_ERROR(Run(sql, params, false, &affected).status());
  return affected;
}

absl::StatusOr<int64_t> Transaction::Insert(const std::string& into, const std::vector<std::vector<SqlValue>>& rows,
                                            const std::string& on_conflict) {
  if (!failed_.ok()) return failed_;
  if (rows.empty()) return 0;
  RETURN_IF_ERROR(failed_ = CheckRows(rows));
  if (session_.dialect == SqlDialect::kSqlite) return InsertOneByOne(into, rows, on_conflict);
  int64_t inserted = 0;
  for (size_t begin = 0; begin < rows.size(); begin += kRowsPerStatement) {
    std::string sql = absl::StrCat("INSERT INTO ", into, " VALUES ");
    SqlParams params;
    for (size_t i = begin; i < std::min(begin + kRowsPerStatement, rows.size()); ++i) {
      const auto name = [&](size_t column) { return absl::StrCat(ColumnName(column), "_", i - begin); };
      absl::StrAppend(&sql, i == begin ? "(" : ", (", Placeholders(rows[i].size(), name), ")");
      for (size_t column = 0; column < rows[i].size(); ++column) params.push_back({name(column), rows[i][column]});
    }
    ASSIGN_OR_RETURN(const int64_t affected, Exec(absl::StrCat(sql, " ", on_conflict), params));
    inserted += affected;
  }
  return inserted;
}

absl::StatusOr<int64_t> Transaction::InsertOneByOne(const std::string& into,
                                                    const std::vector<std::vector<SqlValue>>& rows,
                                                    const std::string& on_conflict) {
  const size_t columns = rows[0].size();
  std::vector<bool> numbers(columns);
  for (size_t i = 0; i < columns; ++i) {
    numbers[i] = std::any_of(rows.begin(), rows.end(), [i](const auto& row) { return IsNumber(row[i]); });
  }
  int64_t inserted = 0;
  failed_ = CatchSqlErrors(session_.soci, session_.dialect, [&] {
    std::vector<Bound> bound(columns);
    soci::statement statement(session_.soci);
    for (size_t i = 0; i < columns; ++i) {
      if (numbers[i]) {
        statement.exchange(soci::use(bound[i].number, bound[i].indicator, ColumnName(i)));
      } else {
        statement.exchange(soci::use(bound[i].text, bound[i].indicator, ColumnName(i)));
      }
    }
    statement.alloc();
    statement.prepare(
        absl::StrCat("INSERT INTO ", into, " VALUES (", Placeholders(columns, ColumnName), ") ", on_conflict));
    statement.define_and_bind();
    for (const auto& row : rows) {
      for (size_t i = 0; i < columns; ++i) Assign(row[i], bound[i]);
      statement.execute(true);
      inserted += statement.get_affected_rows();
    }
  });
  RETURN_IF_ERROR(failed_);
  return inserted;
}

absl::StatusOr<Rows> Transaction::Query(const std::string& sql, const SqlParams& params) {
  return Run(sql, params, true, nullptr);
}

absl::StatusOr<std::optional<Row>> Transaction::QueryRow(const std::string& sql, const SqlParams& params) {
  ASSIGN_OR_RETURN(Rows rows, Run(sql, params, true, nullptr));
  if (rows.empty()) return std::optional<Row>();
  if (rows.size() > 1) return absl::InternalError("sql: more than one row where one was expected");
  return std::optional<Row>(std::move(rows[0]));
}

absl::StatusOr<absl::Time> Transaction::Now() {
  if (session_.dialect == SqlDialect::kSqlite) return clock_.Now();
  ASSIGN_OR_RETURN(const Rows rows,
                   Query("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS micros"));
  if (rows.size() != 1) return absl::InternalError("sql: no time");
  return absl::FromUnixMicros(rows[0].Int("micros"));
}

}  // namespace sallyport
