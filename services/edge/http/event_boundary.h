// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace sallyport::edge {

// Where in an event stream a comment may be put in between. Sees every byte that goes by, looks at the last three.
class EventBoundary {
 public:
  enum class Place { kBetweenEvents, kBetweenLines, kInLine };

  void Passed(std::string_view bytes) {
    for (char c : bytes.substr(bytes.size() < 3 ? 0 : bytes.size() - 3)) {
      last_[0] = last_[1];
      last_[1] = last_[2];
      last_[2] = c;
    }
  }
  // After a bare CR one cannot know: an LF that belongs to it may still come.
  Place place() const {
    if (last_[2] != '\n') {
      return Place::kInLine;
    }
    return last_[1] == '\n' || (last_[1] == '\r' && last_[0] == '\n') ? Place::kBetweenEvents : Place::kBetweenLines;
  }

 private:
  char last_[3] = {'\n', '\n', '\n'};  // Before the first byte, a comment is fine.
};

}  // namespace sallyport::edge
