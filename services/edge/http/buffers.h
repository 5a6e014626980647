// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "services/edge/http/request_head.h"

namespace sallyport::edge {

// What a connection reads into, and the head parsed from it. Held only while there is something to hold: an idle
// connection and a silent event stream have none.
template <typename Head, size_t kBytes>
struct ReadBuffer {
  static constexpr size_t kCapacity = kBytes;

  Head head;
  size_t begin = 0;  // First byte not yet used.
  size_t end = 0;
  char data[kBytes];

  size_t size() const { return end - begin; }
  size_t room() const { return kBytes - end; }
  // Moves what is unused to the front.
  void Compact() {
    if (begin > 0) {
      std::memmove(data, data + begin, size());
      end -= begin;
      begin = 0;
    }
  }
};

using RequestBuffer = ReadBuffer<RequestHead, 32 * 1024>;
using ResponseBuffer = ReadBuffer<ResponseHead, 40 * 1024>;

// Last in, first out, so that what is handed out is warm in the cache. One thread.
template <typename T>
class Pool {
 public:
  explicit Pool(size_t most_idle) : most_idle_(most_idle) {}
  std::unique_ptr<T> Take() {
    if (idle_.empty()) {
      return std::unique_ptr<T>(new T);  // Not make_unique: that would clear the bytes.
    }
    std::unique_ptr<T> item = std::move(idle_.back());
    idle_.pop_back();
    item->begin = item->end = 0;
    return item;
  }
  void Give(std::unique_ptr<T> item) {
    if (item != nullptr && idle_.size() < most_idle_) {
      idle_.push_back(std::move(item));
    }
  }

 private:
  const size_t most_idle_;
  std::vector<std::unique_ptr<T>> idle_;
};

// A body too large for its connection's buffer. Grows with what arrives, not with what is announced, so that promises
// cost us nothing; every byte is charged to the process-wide budget.
class BodyBuffer {
 public:
  BodyBuffer() = default;
  ~BodyBuffer() { Release(); }
  BodyBuffer(const BodyBuffer&) = delete;
  BodyBuffer& operator=(const BodyBuffer&) = delete;

  // Makes room for at least one byte, never for more than `limit` in all. False: the budget is used up.
  bool Grow(uint64_t limit, std::atomic<uint64_t>& used, uint64_t budget) {
    const uint64_t wanted = std::min<uint64_t>(limit, std::max<uint64_t>(kFirst, capacity_ * 2));
    const uint64_t more = wanted - capacity_;
    used_ = &used;
    if (used.fetch_add(more, std::memory_order_relaxed) + more > budget) {
      used.fetch_sub(more, std::memory_order_relaxed);
      return false;
    }
    std::unique_ptr<char[]> grown(new char[wanted]);
    std::copy_n(data_.get(), size_, grown.get());
    data_ = std::move(grown);
    capacity_ = wanted;
    return true;
  }
  void Append(std::string_view bytes) {
    std::memcpy(data_.get() + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  void Release() {
    if (capacity_ > 0) {
      used_->fetch_sub(capacity_, std::memory_order_relaxed);
    }
    data_.reset();
    size_ = capacity_ = 0;
  }
  char* tail() { return data_.get() + size_; }
  char* data() { return data_.get(); }
  void Added(size_t bytes) { size_ += bytes; }
  size_t room() const { return capacity_ - size_; }
  size_t size() const { return size_; }

 private:
  static constexpr uint64_t kFirst = 64 * 1024;

  std::unique_ptr<char[]> data_;
  std::atomic<uint64_t>* used_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace sallyport::edge
