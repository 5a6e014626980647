// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/page_forms.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "common/status_macros.h"
#include "common/web/same_origin.h"
#include "services/token_broker/link_ticket.h"

namespace sallyport::token_broker {
namespace {

constexpr char kFormKey[] = "sallyport link ticket v1";
constexpr absl::Duration kFormLifetime = absl::Hours(1);

std::string HostOf(const std::string& public_url) {
  const absl::StatusOr<Url> url = Url::Parse(public_url);
  return url.ok() ? url->authority() : "";
}

std::string SessionOf(const Passport& passport) { return absl::StrCat(passport.subject, " ", passport.session_id); }

std::string WayBackPurpose(const std::string& return_to) { return absl::StrCat("return ", return_to); }

}  // namespace

PageForms::PageForms(std::string public_url, BrokerKey& key, const Clock& clock)
    : public_url_(std::move(public_url)), host_(HostOf(public_url_)), key_(key), clock_(clock) {}

absl::StatusOr<page::Html> PageForms::Fields(const PageVisit& visit, absl::string_view purpose,
                                             std::initializer_list<const char*> carried) const {
  ASSIGN_OR_RETURN(const Secret key, key_.For(kFormKey));
  page::Html fields =
      page::HiddenField("csrf", MakeFormToken(key, SessionOf(visit.passport), purpose, clock_.Now() + kFormLifetime));
  for (const char* name : carried) {
    if (const std::string value = visit.Field(name); !value.empty()) {
      fields += page::HiddenField(name, value);
    }
  }
  return fields;
}

bool PageForms::IsOurs(const PageVisit& visit, absl::string_view purpose) const {
  const absl::StatusOr<Secret> key = key_.For(kFormKey);
  return web::CheckSameOrigin(*visit.request, public_url_).ok() && key.ok() &&
         CheckFormToken(*key, visit.Field("csrf"), SessionOf(visit.passport), purpose, clock_.Now());
}

std::string PageForms::SignedWayBack(const Passport& passport, const std::string& return_to) const {
  const absl::StatusOr<Secret> key = key_.For(kFormKey);
  return key.ok() ? MakeFormToken(*key, SessionOf(passport), WayBackPurpose(return_to), clock_.Now() + kLinkLifetime)
                  : "";
}

bool PageForms::IsSignedWayBack(const PageVisit& visit) const {
  const std::string back = visit.Field("back");
  const absl::StatusOr<Secret> key = back.empty() ? absl::NotFoundError("") : key_.For(kFormKey);
  return key.ok() &&
         CheckFormToken(*key, back, SessionOf(visit.passport), WayBackPurpose(visit.return_to), clock_.Now());
}

page::Page PageForms::PageFor(const PageVisit& visit, std::string title, std::string right) const {
  page::Page page;
  page.title = std::move(title);
  page.place = page::Place::kInside;
  page.left = visit.passport.name.empty() ? "You" : visit.passport.name;
  page.right = std::move(right);
  page.host = host_;
  return page;
}

page::Html WhoIsAsked(const Passport& passport) {
  return page::WhoAmI(passport.name.empty() ? passport.subject : passport.name,
                      passport.email.empty() ? passport.subject : passport.email, "");
}

}  // namespace sallyport::token_broker
