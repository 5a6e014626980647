// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/handler.h"

#include "absl/strings/str_cat.h"

#include "common/json_log.h"

namespace sallyport {
namespace {

LogLevel LevelOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return LogLevel::kInfo;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return LogLevel::kError;
    default:
      return LogLevel::kWarning;
  }
}

}  // namespace

RpcHandler::RpcHandler(Options options)
    : options_(std::move(options)), metrics_(std::make_shared<RpcMetrics>(options_.service)) {}

RpcHandler::Call RpcHandler::Begin(absl::string_view method, const grpc::ServerContextBase& context) const {
  metrics_->Enter();
  Call call{std::string(method), absl::InternalError("not checked"), options_.clock->Now()};
  call.caller = options_.guard->Check(absl::StrCat(options_.service, "/", method), context, *options_.peer,
                                      options_.verifier, call.start);
  return call;
}

grpc::Status RpcHandler::Finish(const Call& call, const absl::Status& status) const {
  const absl::Duration latency = options_.clock->Now() - call.start;
  metrics_->Count(call.method, status.code(), latency);
  metrics_->Leave();
  const LogLevel level = LevelOf(status);
  if (LogEnabled(level)) {
    const absl::string_view caller = call.caller.ok() ? absl::string_view(call.caller->service) : "";
    const absl::string_view subject =
        call.caller.ok() && call.caller->passport ? absl::string_view(call.caller->passport->subject) : "";
    Log(level, "rpc",
        {{"rpc", options_.service},
         {"method", call.method},
         {"code", absl::StatusCodeToString(status.code())},
         {"caller", caller},
         {"subject", subject},
         {"reason", ReasonOf(status)},
         {"error", status.message()},
         {"latency_us", absl::ToInt64Microseconds(latency)}});
  }
  return ToGrpcStatus(status);
}

}  // namespace sallyport
