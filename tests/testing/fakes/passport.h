// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"

namespace sallyport::testing {

// A passport that every fake takes: "passport-of:<subject>", or with roles "passport-of:<subject>;<role>,<role>". With
// roles it is of purpose api. Whatever follows a '#' tells passports of one user apart.
std::string FakePassport(absl::string_view subject, const std::vector<std::string>& roles = {});
// Of another purpose than call or api; the actor of one of purpose platform is "platform-a", with every app.
std::string FakePassport(absl::string_view subject, Passport::Purpose purpose);
// Of purpose end, by the word of local:root.
std::string FakeEndPassport(const Passport::End& end);

// One of these, or a signed one, whose signature is not looked at. UNAUTHENTICATED, reason bad_passport, if it is
// neither or has expired.
absl::StatusOr<Passport> ReadFakePassport(absl::string_view passport, absl::Time now);

}  // namespace sallyport::testing
