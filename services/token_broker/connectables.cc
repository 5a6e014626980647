// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/connectables.h"

#include <algorithm>

#include "services/token_broker/names.h"

namespace sallyport::token_broker {

const std::string& Connectable::uid() const { return app != nullptr ? app->uid() : credential->uid(); }
const std::string& Connectable::slug() const { return app != nullptr ? app->slug() : credential->slug(); }
std::string Connectable::name() const { return app != nullptr ? NameOf(*app) : NameOf(*credential); }

std::vector<Connectable> ConnectablesOf(const registry::v1::McpServer& server, const RegistrySnapshot& snapshot) {
  using Plan = registry::v1::CredentialPlan;
  std::vector<Connectable> all;
  for (const Plan::Piece& piece : server.credential_plan().pieces()) {
    Connectable one;
    if (piece.has_user_connection()) {
      one.app = snapshot.AppByUid(piece.user_connection().app_uid());
    } else if (piece.stored_credential().match() == Plan::StoredCredential::PER_USER) {
      one.credential = snapshot.CredentialByUid(piece.stored_credential().uid());
    }
    const bool there = one.app != nullptr || one.credential != nullptr;
    // One credential may go out in several headers.
    if (there && std::none_of(all.begin(), all.end(), [&](const auto& other) { return other.uid() == one.uid(); })) {
      all.push_back(one);
    }
  }
  return all;
}

v1::LinkRequired LinkOf(const Connectable& wanted, v1::LinkRequired::Reason reason) {
  v1::LinkRequired link;
  link.set_app_uid(wanted.uid());
  link.set_app_slug(wanted.slug());
  link.set_app_display_name(wanted.name());
  link.set_reason(reason);
  link.set_credential(wanted.credential != nullptr);
  return link;
}

}  // namespace sallyport::token_broker
