// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace sallyport::cli {

// Rows of text under upper-case titles, columns as wide as their widest cell; the last one is not padded.
std::string FormatTable(const std::vector<std::string>& titles, const std::vector<std::vector<std::string>>& rows);

}  // namespace sallyport::cli
