// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/table.h"

#include <algorithm>

namespace sallyport::cli {

std::string FormatTable(const std::vector<std::string>& titles, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  widths.reserve(titles.size());
  for (const std::string& title : titles) widths.push_back(title.size());
  for (const std::vector<std::string>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    for (size_t i = 0; i < cells.size(); ++i) {
      out += cells[i];
      if (i + 1 < cells.size()) out.append(widths[i] - cells[i].size() + 2, ' ');
    }
    out += '\n';
  };
  line(titles);
  for (const std::vector<std::string>& row : rows) line(row);
  return out;
}

}  // namespace sallyport::cli
