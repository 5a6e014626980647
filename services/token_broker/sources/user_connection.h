// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/clock.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// The caller's account of an app. What is missing of it is a link.
class UserConnectionSource final : public Source {
 public:
  // All outlive this.
  UserConnectionSource(SecretReader& secrets, Connections& connections, TaskRunner& runner, const Clock& clock)
      : secrets_(secrets), connections_(connections), runner_(runner), clock_(clock) {}

  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;
  bool TryGet(const std::shared_ptr<const Need>& need, const Done& done) override;

 private:
  using Binding = std::shared_ptr<const SecretReader::Binding>;
  static Connections::Need WantedOf(const Need& need);
  // `not_shared`: Redis was asked, in vain.
  void Ask(const std::shared_ptr<const Need>& need, bool not_shared, Done done);
  static ConnectionKey KeyOf(const Need& need);
  static Outcome Link(const Need& need, const registry::v1::App& app, v1::LinkRequired::Reason reason);
  // What says where tokens of the app may be sent, if they may be sent there.
  absl::StatusOr<Binding> Admit(const Need& need, const registry::v1::App& app);
  static bool IsAllowed(const Need& need, const registry::v1::App& app, const SecretReader::Binding& binding);
  absl::StatusOr<Outcome> Judge(const Need& need, const registry::v1::App& app, const Binding& binding,
                                const SharedConnection& view);
  // Has a connection of an earlier release sealed anew with where it came from.
  void SealBehind(const Need& need, const Binding& binding);

  SecretReader& secrets_;
  Connections& connections_;
  TaskRunner& runner_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker
