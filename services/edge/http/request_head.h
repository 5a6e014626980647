// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "services/edge/http/header_id.h"

namespace sallyport::edge {

// One field as it came. Views point into the connection's read buffer.
struct HeaderField {
  std::string_view name;
  std::string_view value;  // Without surrounding white space.
  HeaderId id = HeaderId::kOther;
};

enum class BodyFraming : uint8_t { kNone, kLength, kChunked, kUntilClose };

// A parsed and validated request head. Valid until the exchange is done.
struct RequestHead {
  static constexpr size_t kMaxFields = 100;
  static constexpr size_t kMaxConnectionOptions = 16;

  std::string_view method;  // A token, case-sensitive; CONNECT and TRACE never get this far.
  // Percent-decoded once; begins with '/'; no empty, "." or ".." segments, no backslash, no control bytes, valid UTF-8.
  // Or "*", with OPTIONS only.
  std::string_view path;
  std::string_view query;  // Without '?'; as it came (visible ASCII).
  std::string_view host;   // Of the Host field, which is there exactly once, "name[:port]".
  int minor_version = 1;   // HTTP/1.<minor_version>
  bool has_query = false;
  bool keep_alive = true;
  bool expect_continue = false;
  BodyFraming framing = BodyFraming::kNone;
  uint64_t content_length = 0;
  size_t field_count = 0;
  size_t connection_option_count = 0;

  std::span<const HeaderField> fields() const { return {field_storage.data(), field_count}; }
  // Names listed in Connection other than close, keep-alive.
  std::span<const std::string_view> connection_options() const {
    return {connection_option_storage.data(), connection_option_count};
  }
  // The first field with that id; nullptr if there is none. Not for kOther.
  const HeaderField* Find(HeaderId id) const {
    for (const HeaderField& field : fields()) {
      if (field.id == id) {
        return &field;
      }
    }
    return nullptr;
  }
  // Value of the first field of that name (compared as EqualNames does); empty if there is none.
  std::string_view ValueOf(std::string_view name) const;
  // How many fields have that id: a caller's identity must not be ambiguous.
  size_t Count(HeaderId id) const;

  std::array<HeaderField, kMaxFields> field_storage;
  std::array<std::string_view, kMaxConnectionOptions> connection_option_storage;
};

// What Content-Type says of an upstream's body. Any other type, or more than one Content-Type field, is kOther.
enum class BodyType : uint8_t { kNone, kJson, kEventStream, kOther };

// A parsed response head from upstream. Views point into the upstream connection's read buffer.
struct ResponseHead {
  static constexpr size_t kMaxFields = 200;

  int status = 0;
  int minor_version = 1;
  bool keep_alive = true;  // Not if the answer offers authentication of the connection.
  BodyFraming framing = BodyFraming::kNone;
  uint64_t content_length = 0;
  // From `Keep-Alive: timeout=N`, seconds; 0 if absent.
  uint32_t keep_alive_timeout = 0;
  BodyType body_type = BodyType::kNone;
  bool event_stream = false;     // body_type is kEventStream.
  bool content_encoded = false;  // Content-Encoding other than identity.
  size_t field_count = 0;
  size_t connection_option_count = 0;

  std::span<const HeaderField> fields() const { return {field_storage.data(), field_count}; }
  std::span<const std::string_view> connection_options() const {
    return {connection_option_storage.data(), connection_option_count};
  }
  const HeaderField* Find(HeaderId id) const {
    for (const HeaderField& field : fields()) {
      if (field.id == id) {
        return &field;
      }
    }
    return nullptr;
  }
  std::string_view ValueOf(std::string_view name) const;

  std::array<HeaderField, kMaxFields> field_storage;
  std::array<std::string_view, RequestHead::kMaxConnectionOptions> connection_option_storage;
};

}  // namespace sallyport::edge
