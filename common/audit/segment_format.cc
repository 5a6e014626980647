// SPDX-License-Identifier: Apache-2.0
#include "common/audit/segment_format.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/audit/segment.h"
#include "common/crypto/openssl.h"
#include "common/json_log.h"
#include "common/status_macros.h"

namespace sallyport::audit_format {
namespace {

constexpr absl::string_view kMagic = "SPAUDIT1";
constexpr absl::string_view kSuffix = ".seg";

template <typename Int>
void AppendBigEndian(Int value, std::string* out) {
  for (int shift = static_cast<int>(sizeof(Int) - 1) * 8; shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>((value >> shift) & 0xFF));
  }
}

void AppendText(absl::string_view text, std::string* out) {
  AppendBigEndian(static_cast<uint16_t>(text.size()), out);
  out->append(text.data(), text.size());
}

}  // namespace

std::string Header(const std::string& source, const std::string& boot, uint64_t last_sequence,
                   absl::string_view chain) {
  std::string header(kMagic);
  AppendText(absl::string_view(source).substr(0, 512), &header);
  AppendText(boot, &header);
  AppendBigEndian(last_sequence, &header);
  header.append(chain.data(), chain.size());
  return header;
}

void Advance(absl::string_view event, std::string* chain) {
  thread_local const EvpMdCtxPtr context(EVP_MD_CTX_new());
  CheckCrypto(context != nullptr && EVP_DigestInit_ex2(context.get(), GetAlgorithms().sha256, nullptr) == 1 &&
                  EVP_DigestUpdate(context.get(), chain->data(), chain->size()) == 1 &&
                  EVP_DigestUpdate(context.get(), event.data(), event.size()) == 1,
              "SHA-256");
  chain->resize(kHashSize);
  CheckCrypto(EVP_DigestFinal_ex(context.get(), reinterpret_cast<unsigned char*>(chain->data()), nullptr) == 1,
              "SHA-256");
}

void AppendRecord(absl::string_view event, std::string* chain, std::string* out) {
  Advance(event, chain);
  AppendBigEndian(static_cast<uint32_t>(event.size()), out);
  out->append(event.data(), event.size());
  out->append(*chain);
}

std::vector<SegmentFile> ListSegments(const std::string& directory) {
  std::vector<SegmentFile> files;
  std::map<std::string, std::filesystem::file_time_type> oldest;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    absl::string_view stem = name;
    SegmentFile file;
    // The boot may hold '-' itself.
    const size_t dash = stem.rfind('-');
    if (!absl::ConsumeSuffix(&stem, kSuffix) || dash == absl::string_view::npos ||
        !absl::SimpleAtoi(stem.substr(dash + 1), &file.number)) {
      continue;
    }
    file.path = entry.path().string();
    file.boot = std::string(stem.substr(0, dash));
    file.bytes = static_cast<int64_t>(entry.file_size(error));
    const auto time = entry.last_write_time(error);
    const auto [known, first] = oldest.emplace(file.boot, time);
    known->second = std::min(known->second, time);
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(), [&](const SegmentFile& a, const SegmentFile& b) {
    return std::tie(oldest[a.boot], a.boot, a.number) < std::tie(oldest[b.boot], b.boot, b.number);
  });
  return files;
}

int64_t TotalBytes(const std::string& directory) {
  int64_t bytes = 0;
  for (const SegmentFile& file : ListSegments(directory)) {
    bytes += std::max<int64_t>(file.bytes, 0);
  }
  return bytes;
}

absl::StatusOr<Tail> CutTail(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<AuditSegmentReader> reader, AuditSegmentReader::Open(path));
  Tail tail{reader->last_sequence_before(), reader->chain()};
  std::string bytes;
  absl::Status status = reader->Next(&bytes);
  audit::v1::Event event;
  while (status.ok() && event.ParseFromString(bytes)) {
    tail = {event.sequence(), reader->chain()};
    status = reader->Next(&bytes);
  }
  std::error_code error;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
  if (!error && size > reader->offset()) {
    Log(absl::IsDataLoss(status) ? LogLevel::kError : LogLevel::kWarning, "audit_tail_cut",
        {{"file", path}, {"bytes", size - reader->offset()}, {"error", status}});
    if (truncate(path.c_str(), reader->offset()) != 0) {
      return absl::UnavailableError(absl::StrCat("cannot cut ", path));
    }
  }
  return tail;
}

}  // namespace sallyport::audit_format
