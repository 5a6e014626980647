// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/impl/service_type.h>

namespace sallyport {

// gRPC server reflection of `services` (full names) for one listener, in the versions v1 and v1alpha: which services
// there are, and the files that declare them with everything that these import. No other file of the program is told.
// Not the plugin of gRPC's own library: merely linked in, that one speaks on every listener of the process, of every
// service, and holds a thread for each stream.
std::vector<std::unique_ptr<grpc::Service>> MakeReflectionServices(const std::vector<std::string>& services);

}  // namespace sallyport
