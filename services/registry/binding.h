// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/registry/draft.h"
#include "services/registry/resource.h"
#include "services/registry/urls.h"

namespace sallyport::registry {

// What becomes of the binding of a resource when it is written: the sealed statement where tokens may be sent that the
// resource has no secret for.
struct BindingPlan {
  enum class Step {
    kNone,    // Stays as it is.
    kPut,     // A new one.
    kRebind,  // The same name with other origins.
    kResume,  // One that was retired.
    kRetire,  // Needed no more.
  };
  Step step = Step::kNone;
  std::string kind;
  std::string record;
  int64_t version = 0;  // kRebind, kResume, kRetire: which one.
  Origins origins;      // kRetire: those it had.
  bool first = false;   // kPut: there must be none.
  // Without it the resource would be as it was before: one of an earlier release that has not been adopted yet.
  bool missing = false;
};

inline std::string BindingRecord(const std::string& uid) { return uid + "/binding"; }

// `before`: nullptr if the resource is created.
template <typename T>
BindingPlan PlanBinding(const T* before, const ResourceUrls& before_urls, const T& after, const ResourceUrls& urls,
                        const std::string& uid, const RetiredVersion& retired) {
  using Step = BindingPlan::Step;
  using Traits = ResourceTraits<T>;
  BindingPlan plan;
  plan.kind = std::string(Traits::kBindingKind);
  plan.record = BindingRecord(uid);
  plan.origins = Traits::BindingOrigins(after, urls);
  const Origins had = before != nullptr ? Traits::BindingOrigins(*before, before_urls) : Origins();
  const int64_t stored = before != nullptr ? before->binding().version() : 0;
  if (plan.origins == had && stored != 0) return plan;
  if (plan.origins.empty()) {
    if (stored == 0) return plan;
    plan.step = Step::kRetire;
    plan.version = stored;
    plan.origins = had;
  } else if (stored != 0 && Traits::kBindingIsKept) {
    plan.step = Step::kRebind;
    plan.version = stored;
  } else if (const auto former = retired(plan.record); stored == 0 && former && former->origins == plan.origins) {
    plan.step = Step::kResume;
    plan.version = former->version;
  } else {
    plan.step = Step::kPut;
    plan.missing = plan.origins == had;
    // A binding that is merely not referred to is there already, for other origins perhaps: whoever edited the row must
    // not have the next administrator who saves it seal another.
    plan.first = Traits::kBindingIsKept || plan.missing;
  }
  return plan;
}

}  // namespace sallyport::registry
