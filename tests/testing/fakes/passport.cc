// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/fakes/passport.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <nlohmann/json.hpp>

#include "common/error.h"
#include "common/jose/jwt.h"

namespace sallyport::testing {
namespace {

constexpr absl::string_view kPrefix = "passport-of:";

absl::Status Refused(absl::string_view why) {
  return WithReason(absl::UnauthenticatedError(absl::StrCat("passport refused: ", why)), "bad_passport");
}

void ReadPurpose(absl::string_view name, Passport& passport) {
  using Purpose = Passport::Purpose;
  for (const auto purpose : {Purpose::kApi, Purpose::kLink, Purpose::kSignIn, Purpose::kPlatform, Purpose::kEnd}) {
    if (name == PurposeName(purpose)) passport.purpose = purpose;
  }
}

}  // namespace

std::string FakePassport(absl::string_view subject, const std::vector<std::string>& roles) {
  return absl::StrCat(kPrefix, subject, roles.empty() ? "" : ";", absl::StrJoin(roles, ","));
}

std::string FakePassport(absl::string_view subject, Passport::Purpose purpose) {
  return absl::StrCat(kPrefix, subject, "!", PurposeName(purpose));
}

std::string FakeEndPassport(const Passport::End& end) {
  return absl::StrCat(kPrefix, "local:root!end!", end.subject, "!", end.app_uid, "!", end.label);
}

absl::StatusOr<Passport> ReadFakePassport(absl::string_view passport, absl::Time now) {
  Passport read;
  if (absl::ConsumePrefix(&passport, kPrefix)) {
    passport = passport.substr(0, passport.find('#'));
    const std::vector<std::string> parts = absl::StrSplit(passport, '!');
    passport = parts[0];
    if (parts.size() > 1) ReadPurpose(parts[1], read);
    if (parts.size() == 5) read.end = {parts[2], parts[3], parts[4]};
    if (read.purpose == Passport::Purpose::kPlatform) {
      read.actor = "platform-a";
      read.apps = {"*"};
    }
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
  read.issued_at = jwt->Time("iat").value_or(absl::InfinitePast());
  read.session_id = jwt->String("sid").value_or("");
  read.roles = jwt->Strings("roles").value_or(std::vector<std::string>());
  ReadPurpose(jwt->String("purpose").value_or(""), read);
  const auto act = jwt->json().find("act");
  if (act != jwt->json().end() && act->is_object()) read.actor = act->value("sub", "");
  read.apps = jwt->Strings("apps").value_or(std::vector<std::string>());
  const std::vector<std::string> end = jwt->Strings("end").value_or(std::vector<std::string>());
  if (end.size() == 3) read.end = {end[0], end[1], end[2]};
  return read;
}

}  // namespace sallyport::testing
