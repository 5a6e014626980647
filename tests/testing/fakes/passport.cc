// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/fakes/passport.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/jose/jwt.h"

namespace sallyport::testing {
namespace {

constexpr absl::string_view kPrefix = "passport-of:";

absl::Status Refused(absl::string_view why) {
  return WithReason(absl::UnauthenticatedError(absl::StrCat("passport refused: ", why)), "bad_passport");
}

}  // namespace

std::string FakePassport(absl::string_view subject, const std::vector<std::string>& roles) {
  return absl::StrCat(kPrefix, subject, roles.empty() ? "" : ";", absl::StrJoin(roles, ","));
}

absl::StatusOr<Passport> ReadFakePassport(absl::string_view passport, absl::Time now) {
  Passport read;
  if (absl::ConsumePrefix(&passport, kPrefix)) {
    passport = passport.substr(0, passport.find('#'));
    const size_t roles = passport.find(';');
    read.subject = std::string(passport.substr(0, roles));
    if (roles != absl::string_view::npos) {
      read.roles = absl::StrSplit(passport.substr(roles + 1), ',');
      read.purpose = Passport::Purpose::kApi;
    }
    return read;
  }
  auto jws = ParseJws(passport);
  if (!jws.ok()) return Refused("it is malformed");
  const auto jwt = Jwt::FromJws(*std::move(jws));
  if (!jwt.ok()) return Refused("it is malformed");
  if (jwt->expires_at() <= now) return Refused("it has expired");
  read.subject = jwt->subject();
  read.session_id = jwt->String("sid").value_or("");
  read.roles = jwt->Strings("roles").value_or(std::vector<std::string>());
  for (const auto purpose : {Passport::Purpose::kApi, Passport::Purpose::kLink, Passport::Purpose::kSignIn}) {
    if (jwt->String("purpose") == PurposeName(purpose)) read.purpose = purpose;
  }
  return read;
}

}  // namespace sallyport::testing
