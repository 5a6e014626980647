// SPDX-License-Identifier: Apache-2.0
// Standalone: the whole suite in one process, for one machine. See README.md of the project.
#include "services/standalone/standalone.h"

int main(int argc, char** argv) {
  return sallyport::RunService<sallyport::config::v1::StandaloneConfig>(argc, argv, "standalone",
                                                                        sallyport::standalone::ValidateStandaloneConfig,
                                                                        sallyport::standalone::StartStandalone);
}
