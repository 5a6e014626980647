// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace sallyport::cli {

// Rows of text under upper-case titles, columns as wide as their widest cell; the last one is not padded. Cells hold
// what strangers wrote, too: one is one line, and nothing in it acts on the terminal (PlainText).
std::string FormatTable(const std::vector<std::string>& titles, std::vector<std::vector<std::string>> rows);

}  // namespace sallyport::cli
