// SPDX-License-Identifier: Apache-2.0
#include "services/registry/batch.h"
#include "services/registry/consequences/consequences.h"
#include "services/registry/consequences/user_counts.h"

// What a write means for those who use the gateway already.
namespace sallyport::registry {
namespace {

template <typename T>
std::function<const T*(absl::string_view)> ByUid(const std::map<std::string, T>& resources) {
  return [&resources](absl::string_view uid) -> const T* {
    for (const auto& [slug, resource] : resources) {
      if (resource.uid() == uid) return &resource;
    }
    return nullptr;
  };
}

}  // namespace

Neighbours Batch::Others() {
  Neighbours others;
  others.app = ByUid(Working<v1::App>());
  others.credential = ByUid(Working<v1::Credential>());
  for (const auto& [slug, server] : Working<v1::McpServer>()) others.servers.push_back(&server);
  return others;
}

void Batch::Foretell() {
  const Neighbours others = Others();
  UserCounts counts(parts_.vault, writer_.passport);
  for (const auto& change : changes_) {
    if (!change->before) continue;
    change->consequences = std::visit(
        [&](const auto& after) {
          using T = std::decay_t<decltype(after)>;
          return ConsequencesOf(std::get<T>(*change->before), after, others, counts);
        },
        change->after);
  }
}

template <typename T>
std::vector<v1::Consequence> Batch::ForetellDeletion(const std::string& slug) {
  const T* stored = Find<T>(slug);
  if (stored == nullptr) return {};
  UserCounts counts(parts_.vault, writer_.passport);
  return ConsequencesOfDeleting(*stored, Others(), counts);
}

template std::vector<v1::Consequence> Batch::ForetellDeletion<v1::McpServer>(const std::string&);
template std::vector<v1::Consequence> Batch::ForetellDeletion<v1::App>(const std::string&);
template std::vector<v1::Consequence> Batch::ForetellDeletion<v1::Credential>(const std::string&);

}  // namespace sallyport::registry
