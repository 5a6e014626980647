// SPDX-License-Identifier: Apache-2.0
#include "services/registry/config_event.h"

#include "absl/strings/str_cat.h"

#include "services/registry/resource.h"

namespace sallyport::registry {
namespace {

constexpr size_t kMaxFieldsText = 2000;
constexpr size_t kMaxSlug = 63;

}  // namespace

audit::v1::Event ConfigEvent(absl::string_view type, const ResourceName& resource, const Writer& writer) {
  const std::string slug = resource.slug.size() > kMaxSlug ? "(not a slug)" : resource.slug;
  audit::v1::Event event;
  event.set_type(std::string(type));
  event.set_subject(writer.subject);
  event.set_client_id(writer.client_id);
  if (resource.kind == ResourceTraits<v1::McpServer>::kKind) {
    event.set_server_uid(resource.uid);
    event.set_server_slug(slug);
  }
  auto& details = *event.mutable_details();
  details["kind"] = std::string(resource.kind);
  if (!resource.uid.empty()) details["uid"] = resource.uid;
  if (!slug.empty()) details["slug"] = slug;
  return event;
}

std::string JoinFields(const std::vector<std::string>& fields) {
  std::string text;
  for (const std::string& field : fields) {
    // Whole ones only: a name cut in two may no longer be UTF-8, and the event could not be read.
    if (text.size() + 1 + field.size() > kMaxFieldsText) return absl::StrCat(text, text.empty() ? "…" : " …");
    absl::StrAppend(&text, text.empty() ? "" : " ", field);
  }
  return text;
}

}  // namespace sallyport::registry
