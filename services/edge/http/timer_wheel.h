// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace sallyport::edge {

using Millis = int64_t;  // Of the steady clock.
inline constexpr Millis kNever = std::numeric_limits<Millis>::max();

class TimerWheel;

// A deadline of something that lives as long as its node. Moving a deadline later costs one store: the wheel notices
// when it comes by. So a timer may be re-set on every request.
// NOLINTNEXTLINE(cppcoreguidelines-virtual-class-destructor): nobody deletes by this base; owners hold what derives.
class Timer {
 public:
  Timer() = default;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  Millis deadline() const { return deadline_; }

 protected:
  virtual ~Timer();
  virtual void OnTimer() = 0;

 private:
  friend class TimerWheel;
  Timer* previous_ = nullptr;
  Timer* next_ = nullptr;
  TimerWheel* wheel_ = nullptr;  // Not null while linked.
  int64_t position_ = 0;         // Tick of the slot it is linked in.
  Millis deadline_ = kNever;
};

// Coarse timers of one thread: resolution kTick, never early.
class TimerWheel {
 public:
  static constexpr Millis kTick = 100;

  explicit TimerWheel(Millis now) : current_(now / kTick) {}
  ~TimerWheel();
  void Set(Timer& timer, Millis deadline);
  void Clear(Timer& timer) { timer.deadline_ = kNever; }
  // Calls what is due. A timer that fired is not set any more.
  void Advance(Millis now);
  bool empty() const { return linked_ == 0; }

 private:
  friend class Timer;
  static constexpr int64_t kSlots = 1024;

  void Link(Timer& timer, int64_t position);
  void Unlink(Timer& timer);
  static size_t Slot(int64_t position) { return static_cast<size_t>(position % kSlots); }

  int64_t current_;
  size_t linked_ = 0;
  std::array<Timer*, kSlots> slots_{};
};

}  // namespace sallyport::edge
