// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sallyport::edge {

// Strict incremental decoder of the chunked transfer coding (RFC 9112 section 7.1). Every line ends with CRLF; sizes
// are 1 to 16 hexadecimal digits and nothing else; extensions have the form of section 7.1.1, are bounded (256 bytes a
// line; all together body/8 + 1 KiB) and mean nothing; trailers are checked, bounded (8 KiB) and dropped.
class ChunkedDecoder {
 public:
  enum class Result { kData, kNeedMore, kDone, kError };

  // Takes bytes off the front of `input`. kData: `data` is the next piece of the body, inside what was taken; call
  // again. kNeedMore: `input` is empty. kDone: what is left in `input` does not belong to the body.
  Result Next(std::string_view& input, std::string_view& data);
  uint64_t body_bytes() const { return body_bytes_; }

 private:
  enum class State : uint8_t {
    kSize,
    kExtensionStart,  // Behind ';': a name must come.
    kExtensionName,
    kNameBlank,   // White space behind a name.
    kValueStart,  // Behind '='.
    kValueToken,
    kQuoted,
    kQuotedPair,  // Behind a backslash.
    kQuotedEnd,
    kValueBlank,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kDone,
    kError
  };

  Result Fail() {
    state_ = State::kError;
    return Result::kError;
  }
  bool Step(char c);
  bool SizeByte(char c);
  bool ExtensionByte(char c);
  State AfterExtensionByte(char c) const;
  bool TrailerByte(char c);

  State state_ = State::kSize;
  uint8_t digits_ = 0;
  bool trailer_cr_ = false;
  bool trailer_named_ = false;
  uint32_t trailer_line_ = 0;  // Bytes of the current trailer line.
  uint32_t trailer_bytes_ = 0;
  uint32_t line_extension_ = 0;
  uint64_t extension_bytes_ = 0;
  uint64_t remaining_ = 0;
  uint64_t body_bytes_ = 0;
};

}  // namespace sallyport::edge
