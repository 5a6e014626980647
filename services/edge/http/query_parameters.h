// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace sallyport::edge {

// Could some server take `encoded` (the part of a query parameter before '=') for `name`? Names compare as the most
// lenient readers compare them: percent-decoded and with '+' for a blank, without regard to letter case (ASP.NET), up
// to a NUL and without the blanks in front, with '.', ' ' and '[' equal to '_' (PHP), and with any "[...]" behind
// (arrays of PHP, Rack and qs).
bool SpellsParameter(std::string_view encoded, std::string_view name);

// Appends the parameters of `query` that do not spell `name`, as they came. Both '&' and ';' part parameters: some
// servers read the second as the first. `separator` goes in front of the first one; afterwards it is '&'. It stays as
// it is if nothing was appended.
void AppendQueryWithout(std::string_view query, std::string_view name, char& separator, std::string& out);

}  // namespace sallyport::edge
