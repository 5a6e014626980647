// SPDX-License-Identifier: Apache-2.0
// Token broker: decides which credential goes out, and keeps users' linked accounts alive. See README.md.

#include "common/service_main.h"
#include "services/token_broker/token_broker_server.h"

int main(int argc, char** argv) {
  return sallyport::RunService<sallyport::config::v1::TokenBrokerConfig>(argc, argv, "token_broker",
                                                                         sallyport::token_broker::ValidateSplitConfig,
                                                                         sallyport::token_broker::StartTokenBroker);
}
