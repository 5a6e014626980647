// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http_errors.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include <nlohmann/json.hpp>

#include "common/error.h"

namespace sallyport::edge {

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

std::string ErrorBody(const absl::Status& status) {
  const ErrorDetail detail = DetailOf(status);
  nlohmann::json body;
  body["error"] = !detail.oauth_error.empty() ? detail.oauth_error
                  : !detail.reason.empty()    ? detail.reason
                                              : absl::AsciiStrToLower(absl::StatusCodeToString(status.code()));
  const bool opaque = absl::IsInternal(status) || absl::IsUnknown(status);
  body["message"] = opaque ? "internal error" : std::string(status.message());
  for (const ErrorDetail::Violation& violation : detail.violations) {
    body["violations"].push_back({{"field", violation.field}, {"message", violation.message}});
  }
  return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

int RetryAfterSeconds(const absl::Status& status) {
  const absl::Duration wait = DetailOf(status).retry_after;
  if (wait > absl::ZeroDuration()) return static_cast<int>(absl::ToInt64Seconds(absl::Ceil(wait, absl::Seconds(1))));
  return absl::IsUnavailable(status) ? 1 : 0;
}

namespace {

void RespondJson(Exchange& exchange, int http_status, const std::string& body, int retry_after,
                 std::vector<Field> fields) {
  fields.push_back({"Content-Type", "application/json"});
  // Under /mcp/ every answer carries both (kNoPageFields).
  if (!exchange.head().path.starts_with("/mcp/")) {
    fields.push_back({"X-Content-Type-Options", "nosniff"});
    fields.push_back({"Cache-Control", "no-store"});
  }
  const std::string seconds = std::to_string(retry_after);
  if (retry_after > 0) fields.push_back({"Retry-After", seconds});
  exchange.Respond(http_status, fields, body);
}

}  // namespace

void RespondError(Exchange& exchange, const absl::Status& status, std::vector<Field> extra) {
  RespondJson(exchange, HttpStatusOf(status), ErrorBody(status), RetryAfterSeconds(status), std::move(extra));
}

void RespondError(Exchange& exchange, int http_status, std::string_view error, std::string_view message,
                  std::vector<Field> extra) {
  const nlohmann::json body = {{"error", std::string(error)}, {"message", std::string(message)}};
  RespondJson(exchange, http_status, body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), 0,
              std::move(extra));
}

}  // namespace sallyport::edge
