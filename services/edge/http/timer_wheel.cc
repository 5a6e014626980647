// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/timer_wheel.h"

#include <algorithm>

namespace sallyport::edge {

Timer::~Timer() {
  if (wheel_ != nullptr) {
    wheel_->Unlink(*this);
  }
}

TimerWheel::~TimerWheel() {
  for (Timer*& first : slots_) {
    while (first != nullptr) {
      Unlink(*first);
    }
  }
}

void TimerWheel::Set(Timer& timer, Millis deadline) {
  timer.deadline_ = deadline;
  if (deadline == kNever) {
    return;
  }
  const int64_t due = (deadline + kTick - 1) / kTick;
  if (timer.wheel_ != nullptr) {
    if (timer.position_ <= due) {
      return;
    }
    Unlink(timer);
  }
  Link(timer, due);
}

void TimerWheel::Link(Timer& timer, int64_t position) {
  timer.position_ = std::clamp(position, current_ + 1, current_ + kSlots - 1);
  Timer*& first = slots_[Slot(timer.position_)];
  timer.wheel_ = this;
  timer.previous_ = nullptr;
  timer.next_ = first;
  if (first != nullptr) {
    first->previous_ = &timer;
  }
  first = &timer;
  ++linked_;
}

void TimerWheel::Unlink(Timer& timer) {
  if (timer.previous_ != nullptr) {
    timer.previous_->next_ = timer.next_;
  } else {
    slots_[Slot(timer.position_)] = timer.next_;
  }
  if (timer.next_ != nullptr) {
    timer.next_->previous_ = timer.previous_;
  }
  timer.previous_ = timer.next_ = nullptr;
  timer.wheel_ = nullptr;
  --linked_;
}

void TimerWheel::Advance(Millis now) {
  const int64_t target = now / kTick;
  if (target - current_ >= kSlots) {
    current_ = target - kSlots;  // The process stood still; one round sees every slot.
  }
  while (current_ < target) {
    ++current_;
    Timer*& first = slots_[Slot(current_)];
    while (first != nullptr) {
      Timer& timer = *first;
      Unlink(timer);
      if (timer.deadline_ == kNever) {
        continue;
      }
      if (timer.deadline_ > current_ * kTick) {
        Link(timer, (timer.deadline_ + kTick - 1) / kTick);
        continue;
      }
      timer.deadline_ = kNever;
      timer.OnTimer();
    }
  }
}

}  // namespace sallyport::edge
