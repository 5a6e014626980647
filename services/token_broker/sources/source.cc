// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/source.h"

#include "absl/strings/str_cat.h"

namespace sallyport::token_broker {

std::string Need::connector() const {
  return passport.has_value() ? passport->subject.substr(0, passport->subject.find(':')) : "";
}

std::string KeyOf(std::initializer_list<absl::string_view> parts) {
  std::string key;
  for (const absl::string_view part : parts) absl::StrAppend(&key, part.size(), ":", part);
  return key;
}

}  // namespace sallyport::token_broker
