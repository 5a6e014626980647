// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>

#include "services/token_broker/sources/source.h"

namespace sallyport::token_broker {

// Every source the broker has. Adding one is a class in this directory and a line where the service is put together.
class Sources {
 public:
  void Add(Plan::Piece::SourceCase kind, std::unique_ptr<Source> source) { by_kind_[kind] = std::move(source); }
  // Null: this broker does not know the source.
  Source* Find(Plan::Piece::SourceCase kind) const {
    const auto found = by_kind_.find(kind);
    return found == by_kind_.end() ? nullptr : found->second.get();
  }

 private:
  std::map<Plan::Piece::SourceCase, std::unique_ptr<Source>> by_kind_;
};

}  // namespace sallyport::token_broker
