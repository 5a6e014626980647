// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

#include "sallyport/registry/v1/mcp_server.pb.h"

namespace sallyport::registry {

// What the three kinds of resources have in common, so that storing, diffing and streaming are written once.
template <typename T>
struct ResourceTraits;

template <>
struct ResourceTraits<v1::McpServer> {
  static constexpr absl::string_view kKind = "McpServer";
  static constexpr absl::string_view kUidPrefix = "srv_";
  static constexpr absl::string_view kSecretKind = "server_secret";
};
template <>
struct ResourceTraits<v1::App> {
  static constexpr absl::string_view kKind = "App";
  static constexpr absl::string_view kUidPrefix = "app_";
  static constexpr absl::string_view kSecretKind = "app_secret";
};
template <>
struct ResourceTraits<v1::Credential> {
  static constexpr absl::string_view kKind = "Credential";
  static constexpr absl::string_view kUidPrefix = "crd_";
  static constexpr absl::string_view kSecretKind = "credential";
};

}  // namespace sallyport::registry
