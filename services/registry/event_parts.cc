// SPDX-License-Identifier: Apache-2.0
#include "services/registry/event_parts.h"

#include <utility>

namespace sallyport::registry {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

Message& Content(v1::WatchEvent& event, bool snapshot) {
  if (snapshot) return *event.mutable_snapshot();
  return *event.mutable_delta();
}

// Collects elements of the lists of a snapshot or delta into parts.
class Splitter {
 public:
  Splitter(const v1::WatchEvent& whole, size_t part_bytes) : whole_(whole), part_bytes_(part_bytes) { Begin(); }

  void Add(const Message& content, const FieldDescriptor* field, int index) {
    const auto* from = content.GetReflection();
    const bool text = field->cpp_type() == FieldDescriptor::CPPTYPE_STRING;
    const size_t size = text ? from->GetRepeatedString(content, field, index).size()
                             : from->GetRepeatedMessage(content, field, index).ByteSizeLong();
    if (bytes_ > 0 && bytes_ + size > part_bytes_) {
      part_->set_more(true);
      Begin();
    }
    bytes_ += size + kOverhead;
    Message& into = Content(*part_, whole_.has_snapshot());
    if (text) {
      into.GetReflection()->AddString(&into, field, from->GetRepeatedString(content, field, index));
    } else {
      into.GetReflection()->AddMessage(&into, field)->CopyFrom(from->GetRepeatedMessage(content, field, index));
    }
  }
  std::vector<std::shared_ptr<const v1::WatchEvent>> Take() { return std::move(parts_); }

 private:
  static constexpr size_t kOverhead = 6;  // Tag and length.

  void Begin() {
    auto part = std::make_shared<v1::WatchEvent>();
    part->set_store_id(whole_.store_id());
    part->set_revision(whole_.revision());
    Content(*part, whole_.has_snapshot());
    part_ = part.get();
    bytes_ = 0;
    parts_.push_back(std::move(part));
  }

  const v1::WatchEvent& whole_;
  const size_t part_bytes_;
  std::vector<std::shared_ptr<const v1::WatchEvent>> parts_;
  v1::WatchEvent* part_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace

std::vector<std::shared_ptr<const v1::WatchEvent>> SplitEvent(std::shared_ptr<const v1::WatchEvent> event,
                                                              size_t part_bytes) {
  const bool has_lists = event->has_snapshot() || event->has_delta();
  if (!has_lists || event->ByteSizeLong() <= part_bytes) return {std::move(event)};
  const Message& content = event->has_snapshot() ? static_cast<const Message&>(event->snapshot()) : event->delta();
  Splitter splitter(*event, part_bytes);
  const auto* descriptor = content.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);  // All of them are lists.
    const int size = content.GetReflection()->FieldSize(content, field);
    for (int index = 0; index < size; ++index) splitter.Add(content, field, index);
  }
  return splitter.Take();
}

}  // namespace sallyport::registry
