// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/table.h"

#include <algorithm>
#include <limits>

#include "common/text/utf8.h"

namespace sallyport::cli {
namespace {

// In characters, as a terminal shows most of them.
size_t WidthOf(const std::string& cell) {
  return static_cast<size_t>(
      std::count_if(cell.begin(), cell.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

std::string FormatTable(const std::vector<std::string>& titles, std::vector<std::vector<std::string>> rows) {
  for (std::vector<std::string>& row : rows) {
    for (std::string& cell : row) cell = PlainText(cell, std::numeric_limits<size_t>::max());
  }
  std::vector<size_t> widths;
  widths.reserve(titles.size());
  for (const std::string& title : titles) widths.push_back(WidthOf(title));
  for (const std::vector<std::string>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], WidthOf(row[i]));
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (size_t i = 0; i < cells.size(); ++i) {
      out += cells[i];
      if (i + 1 < cells.size()) out.append(widths[i] - WidthOf(cells[i]) + 2, ' ');
    }
    out += '\n';
  };
  line(titles);
  for (const std::vector<std::string>& row : rows) line(row);
  return out;
}

}  // namespace sallyport::cli
