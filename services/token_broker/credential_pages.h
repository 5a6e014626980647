// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/web/page.h"
#include "services/token_broker/link_progress.h"
#include "services/token_broker/page_forms.h"
#include "services/token_broker/user_credentials.h"

namespace sallyport::token_broker {

// The pages of /connect/<server>?credential=… on which people enter a credential of their own. Thread-safe, blocking.
class CredentialPages {
 public:
  // All outlive this.
  CredentialPages(const PageForms& forms, const LinkProgress& progress, UserCredentials& credentials)
      : forms_(forms), progress_(progress), credentials_(credentials) {}

  // `stored`: one is there already.
  web::v1::WebResponse Show(const PageVisit& visit, bool stored) const;
  web::v1::WebResponse Enter(const PageVisit& visit) const;
  web::v1::WebResponse Done(const PageVisit& visit) const;

 private:
  web::v1::WebResponse Show(const PageVisit& visit, int status, const page::Html& note) const;

  const PageForms& forms_;
  const LinkProgress& progress_;
  UserCredentials& credentials_;
};

}  // namespace sallyport::token_broker
