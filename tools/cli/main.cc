// SPDX-License-Identifier: Apache-2.0
// sallyport: the command line of the gateway. Talks to its HTTP API; see `sallyport --help`.
#include <csignal>
#include <iostream>

#include <curl/curl.h>

#include "tools/cli/cli.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // A gateway that hangs up is an error to report, not a reason to die.
  curl_global_init(CURL_GLOBAL_DEFAULT);
  const sallyport::cli::Terminal terminal = sallyport::cli::SystemTerminal(std::cin, std::cout, std::cerr);
  return sallyport::cli::Run({argv + 1, argv + argc}, terminal);
}
