// SPDX-License-Identifier: Apache-2.0
// An internal platform that gets a user's token from sallyport. Needs gRPC and the code that protoc makes of
// protos/sallyport/token_broker/v1/platform.proto, and nothing else of sallyport.
//   get_token --target HOST:PORT --ca FILE --app SLUG (--subject-token-file FILE | --subject CONNECTOR:USER)
//             [--certificate FILE --key FILE] [--service-account-token-file FILE] [--account LABEL] [--show-token]
// Exit code: 0 there is a token, 3 the user must connect their account first (the address is printed), 1 anything else.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "sallyport/common/v1/error.pb.h"
#include "sallyport/token_broker/v1/platform.grpc.pb.h"

namespace {

using sallyport::common::v1::ErrorDetail;
using sallyport::token_broker::v1::GetTokenRequest;
using sallyport::token_broker::v1::GetTokenResponse;
using sallyport::token_broker::v1::Platform;
using Options = std::map<std::string, std::string>;

constexpr int kLinkRequired = 3;
constexpr int kTries = 3;
constexpr std::chrono::seconds kDeadline{10};

std::string Trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) {
    text.pop_back();
  }
  return text;
}

// Empty for an empty path.
std::string ReadFile(const std::string& path) {
  if (path.empty()) {
    return "";
  }
  std::ifstream file(path);
  if (!file) {
    std::cerr << "cannot read " << path << "\n";
    std::exit(1);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

Options Parse(const std::vector<std::string>& arguments) {
  static const std::set<std::string> known = {"--target",  "--ca",          "--app",     "--subject-token-file",
                                              "--subject", "--certificate", "--account", "--service-account-token-file",
                                              "--key"};
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--show-token") {
      options[arguments[i]] = "yes";
    } else if (known.count(arguments[i]) == 1 && i + 1 < arguments.size()) {
      options[arguments[i]] = arguments[i + 1];
      ++i;
    } else {
      std::cerr << "unknown option, or one without a value: " << arguments[i] << "\n";
      std::exit(1);
    }
  }
  return options;
}

// With a certificate the platform proves itself by TLS; without one, by its service-account token alone.
std::shared_ptr<grpc::Channel> Connect(Options& options) {
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = ReadFile(options["--ca"]);
  tls.pem_cert_chain = ReadFile(options["--certificate"]);
  tls.pem_private_key = ReadFile(options["--key"]);
  return grpc::CreateChannel(options["--target"], grpc::SslCredentials(tls));
}

GetTokenRequest RequestFrom(Options& options) {
  GetTokenRequest request;
  request.set_app(options["--app"]);
  request.set_account(options["--account"]);
  if (!options["--subject"].empty()) {
    request.mutable_user()->set_subject(options["--subject"]);
  } else {
    request.mutable_user()->set_subject_token(Trimmed(ReadFile(options["--subject-token-file"])));
  }
  return request;
}

ErrorDetail DetailOf(const grpc::Status& status) {
  ErrorDetail detail;
  if (!detail.ParseFromString(status.error_details())) {
    detail.Clear();
  }
  return detail;
}

bool IsWorthAnotherTry(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
}

// Comes again when the gateway says so, or a second later.
grpc::Status GetToken(Platform::Stub& stub, Options& options, GetTokenResponse* response) {
  const GetTokenRequest request = RequestFrom(options);
  for (int tries = 1;; ++tries) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    // Read anew for each call: the kubelet replaces a projected token before it ends.
    if (const std::string token = Trimmed(ReadFile(options["--service-account-token-file"])); !token.empty()) {
      context.AddMetadata("authorization", "Bearer " + token);
    }
    const grpc::Status status = stub.GetToken(&context, request, response);
    if (status.ok() || !IsWorthAnotherTry(status) || tries == kTries) {
      return status;
    }
    const std::int64_t seconds = DetailOf(status).retry_after().seconds();
    std::this_thread::sleep_for(std::chrono::seconds(std::max<std::int64_t>(1, seconds)));
  }
}

void Print(const GetTokenResponse& response, bool show_token) {
  std::cout << "type " << response.token_type() << "\n";
  for (const std::string& origin : response.allowed_origins()) {
    std::cout << "may be sent to " << origin << "\n";
  }
  for (const std::string& scope : response.scopes()) {
    std::cout << "scope " << scope << "\n";
  }
  if (response.has_expires_at()) {
    std::cout << "good until " << response.expires_at().seconds() << " (Unix time)\n";
  }
  if (show_token) {
    std::cout << "token " << response.access_token() << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options = Parse({argv + 1, argv + argc});
  const std::unique_ptr<Platform::Stub> stub = Platform::NewStub(Connect(options));
  GetTokenResponse response;
  const grpc::Status status = GetToken(*stub, options, &response);
  if (status.ok()) {
    Print(response, !options["--show-token"].empty());
    return 0;
  }
  const ErrorDetail detail = DetailOf(status);
  if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION && detail.reason() == "link_required") {
    std::cout << status.error_message() << "\n" << detail.link() << "\n";
    return kLinkRequired;
  }
  std::cerr << "no token: " << status.error_message() << " (" << detail.reason() << ")\n";
  return 1;
}
