// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"

namespace sallyport::token_broker {

// What callers of a server must have of their own: an account of an app, or a value of a credential of owner USER. One
// of both is set. Lives as long as the snapshot it is of.
struct Connectable {
  const registry::v1::App* app = nullptr;
  const registry::v1::Credential* credential = nullptr;

  const std::string& uid() const;
  const std::string& slug() const;
  std::string name() const;
};

// In the order of the server's plan; without what is no longer configured.
std::vector<Connectable> ConnectablesOf(const registry::v1::McpServer& server, const RegistrySnapshot& snapshot);

// That a caller lacks it.
v1::LinkRequired LinkOf(const Connectable& wanted, v1::LinkRequired::Reason reason);

}  // namespace sallyport::token_broker
