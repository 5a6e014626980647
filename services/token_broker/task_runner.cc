// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/task_runner.h"

#include <algorithm>
#include <chrono>

namespace sallyport::token_broker {

TaskRunner::TaskRunner(int max_threads, size_t max_queue)
    : max_threads_(static_cast<size_t>(max_threads)), max_queue_(max_queue) {}

TaskRunner::~TaskRunner() { Stop(); }

void TaskRunner::Add(Due due, std::function<void()> task) {
  tasks_.emplace(std::make_pair(due, next_++), std::move(task));
  KeepWatch();
}

void TaskRunner::KeepWatch() {
  if (tasks_.empty() || stopping_) {
    return;
  }
  if (idle_ > 0) {
    changed_.notify_one();
  } else if (threads_.size() < max_threads_) {
    threads_.emplace_back([this] { Run(); });
  }
}

bool TaskRunner::Post(std::function<void()> task) {
  MutexLock lock(mu_);
  if (stopping_ || tasks_.size() >= max_queue_) {
    return false;
  }
  Add(std::chrono::steady_clock::now(), std::move(task));
  return true;
}

void TaskRunner::PostAfter(absl::Duration delay, std::function<void()> task) {
  MutexLock lock(mu_);
  if (!stopping_) {
    Add(std::chrono::steady_clock::now() + absl::ToChronoMicroseconds(delay), std::move(task));
  }
}

void TaskRunner::Run() {
  mu_.Lock();
  while (!stopping_) {
    if (tasks_.empty()) {
      ++idle_;
      changed_.wait(mu_);
      --idle_;
      continue;
    }
    const auto first = tasks_.begin();
    const Due due = first->first.first;
    if (due > std::chrono::steady_clock::now()) {
      ++idle_;
      changed_.wait_until(mu_, due);
      --idle_;
      continue;
    }
    std::function<void()> task = std::move(first->second);
    tasks_.erase(first);
    KeepWatch();  // This one may block for long.
    mu_.Unlock();
    task();
    task = nullptr;  // What it holds may lock.
    mu_.Lock();
  }
  mu_.Unlock();
}

void TaskRunner::Stop() {
  std::vector<std::thread> threads;
  std::map<std::pair<Due, uint64_t>, std::function<void()>> dropped;
  {
    MutexLock lock(mu_);
    stopping_ = true;
    threads.swap(threads_);
    dropped.swap(tasks_);
    changed_.notify_all();
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TaskRunner::Load TaskRunner::load() const {
  MutexLock lock(mu_);
  Load load;
  load.busy = threads_.size() - std::min(idle_, threads_.size());
  if (!tasks_.empty()) {
    const auto late = std::chrono::steady_clock::now() - tasks_.begin()->first.first;
    load.wait = std::max(absl::FromChrono(late), absl::ZeroDuration());
  }
  return load;
}

size_t TaskRunner::queued() const {
  MutexLock lock(mu_);
  return tasks_.size();
}

}  // namespace sallyport::token_broker
