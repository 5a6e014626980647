// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/clock.h"
#include "common/web/page.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/page_visit.h"

namespace sallyport::token_broker {

// What the pages with a form have in common. Thread-safe, blocking.
class PageForms {
 public:
  // Both outlive this.
  PageForms(std::string public_url, BrokerKey& key, const Clock& clock);

  // Hidden fields: the token by which a form is known as ours, shown to this session for `purpose`, and those of
  // `carried` that the visit brought along. UNAVAILABLE while the key cannot be read.
  absl::StatusOr<page::Html> Fields(const PageVisit& visit, absl::string_view purpose,
                                    std::initializer_list<const char*> carried) const;
  // Sent from a page of ours that was shown to this session for `purpose`, not more than an hour ago.
  bool IsOurs(const PageVisit& visit, absl::string_view purpose) const;

  // Proof, as field `back`, that a platform made the link, and that its configuration allowed `return_to` (empty: it
  // gave none): for a page that this session is led to in between. Empty while the key cannot be read.
  std::string SignedWayBack(const Passport& passport, const std::string& return_to) const;
  bool IsSignedWayBack(const PageVisit& visit) const;

  // A page on the way from the visitor to `right`, without a body.
  page::Page PageFor(const PageVisit& visit, std::string title, std::string right) const;
  const std::string& host() const { return host_; }

 private:
  const std::string public_url_;
  const std::string host_;
  BrokerKey& key_;
  const Clock& clock_;
};

// Who is signed in.
page::Html WhoIsAsked(const Passport& passport);

}  // namespace sallyport::token_broker
