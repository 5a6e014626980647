// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/chunked_decoder.h"

#include <algorithm>

#include "services/edge/http/header_id.h"
#include "services/edge/http/request_target.h"

namespace sallyport::edge {
namespace {

constexpr uint32_t kMaxLineExtension = 256;
constexpr uint64_t kFreeExtension = 1024;
constexpr uint32_t kMaxTrailers = 8 * 1024;
constexpr uint64_t kMaxChunk = uint64_t{1} << 62;

}  // namespace

ChunkedDecoder::Result ChunkedDecoder::Next(std::string_view& input, std::string_view& data) {
  while (true) {
    if (state_ == State::kDone) {
      return Result::kDone;
    }
    if (state_ == State::kError) {
      return Result::kError;
    }
    if (input.empty()) {
      return Result::kNeedMore;
    }
    if (state_ == State::kData) {
      data = input.substr(0, static_cast<size_t>(std::min<uint64_t>(remaining_, input.size())));
      input.remove_prefix(data.size());
      remaining_ -= data.size();
      body_bytes_ += data.size();
      if (remaining_ == 0) {
        state_ = State::kDataCr;
      }
      return Result::kData;
    }
    const char c = input.front();
    input.remove_prefix(1);
    if (!Step(c)) {
      return Fail();
    }
  }
}

bool ChunkedDecoder::Step(char c) {
  switch (state_) {
    case State::kSize:
      return SizeByte(c);
    case State::kExtensionStart:
    case State::kExtensionName:
    case State::kNameBlank:
    case State::kValueStart:
    case State::kValueToken:
    case State::kQuoted:
    case State::kQuotedPair:
    case State::kQuotedEnd:
    case State::kValueBlank:
      return ExtensionByte(c);
    case State::kSizeLf:
      state_ = remaining_ == 0 ? State::kTrailer : State::kData;
      return c == '\n';
    case State::kDataCr:
      state_ = State::kDataLf;
      return c == '\r';
    case State::kDataLf:
      state_ = State::kSize;
      digits_ = 0;
      remaining_ = 0;
      return c == '\n';
    case State::kTrailer:
      return TrailerByte(c);
    default:
      return false;
  }
}

bool ChunkedDecoder::SizeByte(char c) {
  if (const int digit = HexDigit(c); digit >= 0) {
    remaining_ = remaining_ * 16 + static_cast<uint64_t>(digit);
    return ++digits_ <= 16 && remaining_ < kMaxChunk;
  }
  state_ = c == ';' ? State::kExtensionStart : State::kSizeLf;
  line_extension_ = 0;
  return digits_ > 0 && (c == ';' || c == '\r');
}

bool ChunkedDecoder::ExtensionByte(char c) {
  state_ = AfterExtensionByte(c);
  if (state_ == State::kSizeLf) {
    return true;
  }
  ++extension_bytes_;
  return state_ != State::kError && ++line_extension_ <= kMaxLineExtension &&
         extension_bytes_ <= body_bytes_ / 8 + kFreeExtension;
}

// RFC 9112 section 7.1.1: *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ).
ChunkedDecoder::State ChunkedDecoder::AfterExtensionByte(char c) const {
  const bool blank = c == ' ' || c == '\t';
  const bool token = IsTokenChar(c);
  const State next = c == ';' ? State::kExtensionStart : c == '\r' ? State::kSizeLf : State::kError;
  switch (state_) {
    case State::kExtensionStart:
      return blank ? state_ : token ? State::kExtensionName : State::kError;
    case State::kExtensionName:
      return token ? state_ : blank ? State::kNameBlank : c == '=' ? State::kValueStart : next;
    case State::kNameBlank:
      return blank ? state_ : c == '=' ? State::kValueStart : c == ';' ? next : State::kError;
    case State::kValueStart:
      return blank ? state_ : c == '"' ? State::kQuoted : token ? State::kValueToken : State::kError;
    case State::kValueToken:
      return token ? state_ : blank ? State::kValueBlank : next;
    case State::kQuoted:
      return c == '"'                ? State::kQuotedEnd
             : c == '\\'             ? State::kQuotedPair
             : IsFieldValue({&c, 1}) ? state_
                                     : State::kError;
    case State::kQuotedPair:
      return IsFieldValue({&c, 1}) ? State::kQuoted : State::kError;
    case State::kQuotedEnd:
      return blank ? State::kValueBlank : next;
    case State::kValueBlank:
      return blank ? state_ : c == ';' ? next : State::kError;
    default:
      return State::kError;
  }
}

bool ChunkedDecoder::TrailerByte(char c) {
  if (++trailer_bytes_ > kMaxTrailers) {
    return false;
  }
  if (trailer_cr_) {
    if (trailer_line_ == 0) {
      state_ = State::kDone;
    }
    const bool valid = trailer_line_ == 0 || trailer_named_;
    trailer_cr_ = trailer_named_ = false;
    trailer_line_ = 0;
    return c == '\n' && valid;
  }
  if (c == '\r') {
    trailer_cr_ = true;
    return true;
  }
  ++trailer_line_;
  if (trailer_named_) {
    return IsFieldValue({&c, 1});
  }
  trailer_named_ = c == ':' && trailer_line_ > 1;
  return trailer_named_ || NormalNameByte(c) != 0;
}

}  // namespace sallyport::edge
