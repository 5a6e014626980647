// SPDX-License-Identifier: Apache-2.0
#include "common/error.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/util/time_util.h>

#include "common/text/utf8.h"
#include "sallyport/common/v1/error.pb.h"

namespace sallyport {
namespace {

constexpr char kPayloadUrl[] = "type.googleapis.com/sallyport.common.v1.ErrorDetail";
// A status travels in metadata, which is bounded (GRPC_ARG_MAX_METADATA_SIZE): a longer one is not delivered, and
// closes an in-process channel. Percent-encoding may make a message three times as long.
constexpr size_t kMaxWireMessage = 4096;
constexpr size_t kMaxWireDetail = 8192;
constexpr size_t kBytesPerViolation = 8;  // Of keys and lengths.

std::string Serialize(const ErrorDetail& detail) {
  common::v1::ErrorDetail proto;
  proto.set_oauth_error(detail.oauth_error);
  proto.set_reason(detail.reason);
  proto.set_link(detail.link);
  for (const ErrorDetail::Violation& violation : detail.violations) {
    common::v1::FieldViolation* out = proto.add_violations();
    out->set_field(violation.field);
    out->set_message(violation.message);
  }
  if (detail.retry_after > absl::ZeroDuration()) {
    *proto.mutable_retry_after() =
        google::protobuf::util::TimeUtil::MillisecondsToDuration(absl::ToInt64Milliseconds(detail.retry_after));
  }
  return proto.SerializeAsString();
}

ErrorDetail Parse(const std::string& bytes) {
  ErrorDetail detail;
  common::v1::ErrorDetail proto;
  if (!proto.ParseFromString(bytes)) {
    return detail;
  }
  detail.oauth_error = proto.oauth_error();
  detail.reason = proto.reason();
  detail.link = proto.link();
  for (const common::v1::FieldViolation& violation : proto.violations()) {
    detail.violations.push_back({violation.field(), violation.message()});
  }
  if (proto.has_retry_after()) {
    detail.retry_after = absl::Seconds(proto.retry_after().seconds()) + absl::Nanoseconds(proto.retry_after().nanos());
  }
  return detail;
}

std::string WireMessage(absl::string_view message) {
  if (message.size() <= kMaxWireMessage) {
    return std::string(message);
  }
  return absl::StrCat(Utf8Prefix(message, kMaxWireMessage), " ... (shortened)");
}

// The first violations that fit, and how many there are besides.
std::string WireDetail(const std::string& bytes) {
  if (bytes.size() <= kMaxWireDetail) {
    return bytes;
  }
  ErrorDetail detail = Parse(bytes);
  size_t kept = 0;
  size_t size = 0;
  for (const ErrorDetail::Violation& violation : detail.violations) {
    size += violation.field.size() + violation.message.size() + kBytesPerViolation;
    if (size > kMaxWireDetail) break;
    ++kept;
  }
  const size_t more = detail.violations.size() - kept;
  detail.violations.resize(kept);
  if (more > 0) {
    detail.violations.push_back({"", absl::StrCat("and ", more, " more: correct these first")});
  }
  return Serialize(detail);
}

// The constructor of absl::Status takes any code; a peer may send one we do not know.
absl::StatusCode CodeFrom(grpc::StatusCode code) {
  if (code < grpc::StatusCode::OK || code > grpc::StatusCode::UNAUTHENTICATED) {
    return absl::StatusCode::kUnknown;
  }
  return static_cast<absl::StatusCode>(code);
}

}  // namespace

absl::Status WithDetail(absl::Status status, const ErrorDetail& detail) {
  status.SetPayload(kPayloadUrl, absl::Cord(Serialize(detail)));
  return status;
}

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  ErrorDetail detail = DetailOf(status);
  detail.reason = std::string(reason);
  return WithDetail(std::move(status), detail);
}

absl::Status WithOAuthError(absl::Status status, absl::string_view oauth_error) {
  ErrorDetail detail = DetailOf(status);
  detail.oauth_error = std::string(oauth_error);
  return WithDetail(std::move(status), detail);
}

absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after) {
  ErrorDetail detail = DetailOf(status);
  detail.retry_after = retry_after;
  return WithDetail(std::move(status), detail);
}

ErrorDetail DetailOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  return payload.has_value() ? Parse(std::string(*payload)) : ErrorDetail();
}

std::string ReasonOf(const absl::Status& status) { return DetailOf(status).reason; }

absl::Status InvalidField(absl::string_view field, absl::string_view message) {
  return InvalidFields({{std::string(field), std::string(message)}});
}

absl::Status InvalidFields(const std::vector<ErrorDetail::Violation>& violations) {
  if (violations.empty()) {
    return absl::OkStatus();
  }
  std::string message;
  for (const ErrorDetail::Violation& violation : violations) {
    absl::StrAppend(&message, message.empty() ? "" : "; ", violation.field, violation.field.empty() ? "" : ": ",
                    violation.message);
  }
  ErrorDetail detail;
  detail.violations = violations;
  return WithDetail(absl::InvalidArgumentError(message), detail);
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) {
    return grpc::Status::OK;
  }
  const bool opaque = absl::IsInternal(status) || absl::IsUnknown(status);
  const absl::optional<absl::Cord> payload = status.GetPayload(kPayloadUrl);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      opaque ? "internal error" : WireMessage(status.message()),
                      payload.has_value() ? WireDetail(std::string(*payload)) : std::string());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) {
    return absl::OkStatus();
  }
  absl::Status result(CodeFrom(status.error_code()), status.error_message());
  if (!status.error_details().empty()) {
    // Parsed and written anew: what a peer put there beside our message is not carried on.
    result = WithDetail(std::move(result), Parse(status.error_details()));
  }
  return result;
}

}  // namespace sallyport
