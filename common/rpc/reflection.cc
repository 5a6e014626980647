// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/reflection.h"

#include <algorithm>
#include <set>
#include <utility>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/grpcpp.h>

#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"

namespace sallyport {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

// On one stream; a client asks for a few files.
constexpr int kMaxRequests = 10'000;

void AddWithImports(const FileDescriptor* file, std::set<const FileDescriptor*>& files) {
  if (!files.insert(file).second) {
    return;
  }
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddWithImports(file->dependency(i), files);
  }
}

// What may be told.
struct Catalog {
  std::vector<std::string> services;
  std::set<const FileDescriptor*> files;
};

Catalog CatalogOf(const std::vector<std::string>& services) {
  Catalog catalog{services, {}};
  for (const std::string& name : services) {
    if (const auto* service = DescriptorPool::generated_pool()->FindServiceByName(name); service != nullptr) {
      AddWithImports(service->file(), catalog.files);
    }
  }
  return catalog;
}

template <typename Response>
void Fail(const char* message, Response& response) {
  response.mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
  response.mutable_error_response()->set_error_message(message);
}

template <typename Response>
void TellFile(const Catalog& catalog, const FileDescriptor* file, Response& response) {
  if (file == nullptr || catalog.files.count(file) == 0) {
    return Fail("not found", response);
  }
  std::set<const FileDescriptor*> files;
  AddWithImports(file, files);
  // The file that was asked for comes first.
  std::vector<const FileDescriptor*> ordered(files.begin(), files.end());
  std::stable_partition(ordered.begin(), ordered.end(), [&](const FileDescriptor* one) { return one == file; });
  for (const FileDescriptor* one : ordered) {
    google::protobuf::FileDescriptorProto proto;
    one->CopyTo(&proto);
    response.mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
  }
}

template <typename Response>
void TellExtensions(const Catalog& catalog, const std::string& type, Response& response) {
  const auto* extended = DescriptorPool::generated_pool()->FindMessageTypeByName(type);
  if (extended == nullptr || catalog.files.count(extended->file()) == 0) {
    return Fail("not found", response);
  }
  std::vector<const google::protobuf::FieldDescriptor*> all;
  DescriptorPool::generated_pool()->FindAllExtensions(extended, &all);
  response.mutable_all_extension_numbers_response()->set_base_type_name(type);
  for (const auto* extension : all) {
    if (catalog.files.count(extension->file()) > 0) {
      response.mutable_all_extension_numbers_response()->add_extension_number(extension->number());
    }
  }
}

template <typename Request, typename Response>
void Answer(const Catalog& catalog, const Request& request, Response& response) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case Request::kListServices:
      for (const std::string& name : catalog.services) {
        response.mutable_list_services_response()->add_service()->set_name(name);
      }
      break;
    case Request::kFileByFilename:
      TellFile(catalog, pool.FindFileByName(request.file_by_filename()), response);
      break;
    case Request::kFileContainingSymbol:
      TellFile(catalog, pool.FindFileContainingSymbol(request.file_containing_symbol()), response);
      break;
    case Request::kFileContainingExtension: {
      const auto& wanted = request.file_containing_extension();
      const auto* extended = pool.FindMessageTypeByName(wanted.containing_type());
      const auto* extension =
          extended == nullptr ? nullptr : pool.FindExtensionByNumber(extended, wanted.extension_number());
      TellFile(catalog, extension == nullptr ? nullptr : extension->file(), response);
      break;
    }
    case Request::kAllExtensionNumbersOfType:
      TellExtensions(catalog, request.all_extension_numbers_of_type(), response);
      break;
    default:
      Fail("not a request that is known here", response);
      break;
  }
}

// One stream: a request, its answer, and so on. Holds no thread while it waits.
template <typename Request, typename Response>
class Stream final : public grpc::ServerBidiReactor<Request, Response> {
 public:
  explicit Stream(const Catalog& catalog) : catalog_(catalog) { this->StartRead(&request_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      return this->Finish(grpc::Status::OK);
    }
    if (++requests_ > kMaxRequests) {
      return this->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many requests on one stream"});
    }
    response_.Clear();
    Answer(catalog_, request_, response_);
    this->StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) {
      return this->Finish(grpc::Status::CANCELLED);
    }
    this->StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  const Catalog& catalog_;
  Request request_;
  Response response_;
  int requests_ = 0;
};

template <typename Base, typename Request, typename Response>
class Reflection final : public Base {
 public:
  explicit Reflection(Catalog catalog) : catalog_(std::move(catalog)) {}
  grpc::ServerBidiReactor<Request, Response>* ServerReflectionInfo(grpc::CallbackServerContext* /*context*/) override {
    return new Stream<Request, Response>(catalog_);  // Deletes itself.
  }

 private:
  const Catalog catalog_;
};

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> MakeReflectionServices(const std::vector<std::string>& services) {
  namespace v1 = grpc::reflection::v1;
  namespace v1alpha = grpc::reflection::v1alpha;
  std::vector<std::unique_ptr<grpc::Service>> made;
  made.push_back(std::make_unique<Reflection<v1::ServerReflection::CallbackService, v1::ServerReflectionRequest,
                                             v1::ServerReflectionResponse>>(CatalogOf(services)));
  made.push_back(
      std::make_unique<Reflection<v1alpha::ServerReflection::CallbackService, v1alpha::ServerReflectionRequest,
                                  v1alpha::ServerReflectionResponse>>(CatalogOf(services)));
  return made;
}

}  // namespace sallyport
