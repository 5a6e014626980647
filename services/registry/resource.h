// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"

#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/registry/urls.h"
#include "services/registry/validation.h"

namespace sallyport::registry {

struct SecretField;
struct SecretPlan;
template <typename T>
struct Draft;

// A resource of any kind.
using AnyResource = std::variant<v1::McpServer, v1::App, v1::Credential>;
inline google::protobuf::Message& MessageOf(AnyResource& resource) {
  return std::visit([](auto& message) -> google::protobuf::Message& { return message; }, resource);
}
inline const google::protobuf::Message& MessageOf(const AnyResource& resource) {
  return std::visit([](const auto& message) -> const google::protobuf::Message& { return message; }, resource);
}

// Where a secret goes.
struct SecretReach {
  Origins origins;  // Itself; sealed with it.
  Origins onward;   // Tokens that are got with it; empty if none are.
  friend bool operator==(const SecretReach&, const SecretReach&) = default;
};

// What one kind of resource has of its own, so that storing, drafting, diffing and streaming are written once:
//   ReachOf          where the vault may let one of its secrets be sent, and where what is got with it goes
//   Check            validates a draft, refuses what its writer may not do, and plans its secrets
//   Normalize        (not of every kind) fills in what was left out
//   NormalizeStored  (not of every kind) brings what an earlier release stored into today's form, so that another
//                    spelling alone is no change
//   BindingOrigins   (of kinds with a `binding`) what the binding says; empty: there is none
template <typename T>
struct ResourceTraits;

template <>
struct ResourceTraits<v1::McpServer> {
  static constexpr absl::string_view kKind = "McpServer";
  static constexpr absl::string_view kUidPrefix = "srv_";
  static constexpr absl::string_view kSecretKind = "server_secret";
  static constexpr absl::string_view kBindingKind = "server_binding";
  // Nothing holds on to the name that is in it: another origin is another binding.
  static constexpr bool kBindingIsKept = false;

  static SecretReach ReachOf(const SecretField& field, const v1::McpServer& server, const ResourceUrls& urls);
  static Origins BindingOrigins(const v1::McpServer& server, const ResourceUrls& urls);
  static void Normalize(const std::optional<Connectors>& connectors, const v1::McpServer* before, v1::McpServer& after,
                        Findings& findings);
  static void NormalizeStored(const std::optional<Connectors>& connectors, v1::McpServer& server);
  static SecretPlan Check(const Draft<v1::McpServer>& draft, Findings& findings);
};
template <>
struct ResourceTraits<v1::App> {
  static constexpr absl::string_view kKind = "App";
  static constexpr absl::string_view kUidPrefix = "app_";
  static constexpr absl::string_view kSecretKind = "app_secret";
  static constexpr absl::string_view kBindingKind = "app_binding";
  // Users' connections hold the name that is in it: they outlive a change of its origins.
  static constexpr bool kBindingIsKept = true;

  static SecretReach ReachOf(const SecretField& field, const v1::App& app, const ResourceUrls& urls);
  static Origins BindingOrigins(const v1::App& app, const ResourceUrls& urls);
  static void Normalize(const std::optional<Connectors>& connectors, const v1::App* before, v1::App& after,
                        Findings& findings);
  static SecretPlan Check(const Draft<v1::App>& draft, Findings& findings);
};
template <>
struct ResourceTraits<v1::Credential> {
  static constexpr absl::string_view kKind = "Credential";
  static constexpr absl::string_view kUidPrefix = "crd_";
  static constexpr absl::string_view kSecretKind = "credential";

  static SecretReach ReachOf(const SecretField& field, const v1::Credential& credential, const ResourceUrls& urls);
  static SecretPlan Check(const Draft<v1::Credential>& draft, Findings& findings);
};

// A kind whose resources have a binding.
template <typename T>
concept Bindable = requires(T resource) {
  resource.binding();
};

}  // namespace sallyport::registry
