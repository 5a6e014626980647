// SPDX-License-Identifier: Apache-2.0
#include "services/vault/directory_kek.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include <sys/stat.h>

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/files.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "common/text/hex.h"

namespace sallyport::vault {
namespace {

constexpr size_t kKeySize = 32;
constexpr char kCurrent[] = "current";
constexpr char kFirstKey[] = "kek-1";

std::string KeyId(const Secret& key) {
  return absl::StrCat("file:", HexEncode(HmacSha256(key.Expose(), "sallyport-kek-id")).substr(0, 16));
}

std::string AssociatedData(absl::string_view key_id) { return absl::StrCat("sallyport-kek-v1|", key_id); }

// Follows links: in a mounted Kubernetes Secret every entry is one.
absl::StatusOr<Secret> ReadKey(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return absl::NotFoundError(absl::StrCat("cannot open ", path));
  }
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  struct stat info = {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is no regular file"));
  }
  // 0440: a Kubernetes Secret that is mounted with an fsGroup belongs to root and that group.
  if (const mode_t mode = info.st_mode & 07777; mode != 0400 && mode != 0440) {
    return absl::FailedPreconditionError(absl::StrCat(path, " must have mode 0400, or 0440 for a group"));
  }
  std::string bytes(kKeySize + 1, '\0');
  const ssize_t got = ::read(fd, bytes.data(), bytes.size());
  Secret key = Secret::Copy(absl::string_view(bytes).substr(0, got < 0 ? 0 : static_cast<size_t>(got)));
  OPENSSL_cleanse(bytes.data(), bytes.size());
  if (key.Expose().size() != kKeySize) {
    return absl::FailedPreconditionError(absl::StrCat(path, " must hold exactly 32 bytes"));
  }
  return key;
}

std::vector<std::string> EntryNames(const std::string& directory, std::error_code& failed) {
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator it(directory, failed), end; !failed && it != end; it.increment(failed)) {
    names.push_back(it->path().filename().string());
  }
  return names;
}

// Linked to its name, not renamed over it: of two replicas that start together on one directory, the second uses the
// key of the first, which may already have sealed something with it.
absl::Status WriteFirstKey(const std::string& directory) {
  const std::string draft = absl::StrCat(directory, "/.", RandomToken("", 8));
  RETURN_IF_ERROR(WriteFileAtomic(draft, RandomSecret(kKeySize).Expose(), 0400));
  const absl::Cleanup remove_draft = [&draft] { ::unlink(draft.c_str()); };
  if (::link(draft.c_str(), absl::StrCat(directory, "/", kFirstKey).c_str()) != 0 && errno != EEXIST) {
    return absl::UnavailableError(absl::StrCat("cannot make the first key in ", directory));
  }
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& directory) {
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    return absl::UnavailableError(absl::StrCat("cannot open ", directory));
  }
  const absl::Cleanup close_fd = [fd] { ::close(fd); };
  return ::fsync(fd) == 0 ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("cannot sync ", directory));
}

}  // namespace

absl::Status DirectoryKek::Load() {
  std::error_code failed;
  const std::vector<std::string> names = EntryNames(directory_, failed);
  if (failed) {
    return absl::NotFoundError(absl::StrCat("cannot read the key directory ", directory_, ": ", failed.message()));
  }
  Keys keys;
  for (const std::string& name : names) {
    if (name.empty() || name[0] == '.' || name == kCurrent) {
      continue;
    }
    absl::StatusOr<Secret> key = ReadKey(absl::StrCat(directory_, "/", name));
    if (!key.ok()) {
      Log(LogLevel::kWarning, "kek_file_ignored", {{"error", key.status()}});
      continue;
    }
    const std::string id = KeyId(*key);
    keys[id] = std::make_shared<const Secret>(*std::move(key));
  }
  absl::StatusOr<Secret> current = ReadKey(absl::StrCat(directory_, "/", kCurrent));
  std::string current_id;
  if (current.ok()) current_id = KeyId(*current);
  const absl::Status usable = current.ok()
                                  ? absl::OkStatus()
                                  : absl::NotFoundError(absl::StrCat("no usable key: ", current.status().message()));
  if (current.ok()) keys[current_id] = std::make_shared<const Secret>(*std::move(current));
  MutexLock lock(mu_);
  keys_ = std::move(keys);
  current_ = current_id;
  return usable;
}

std::shared_ptr<const Secret> DirectoryKek::Find(const std::string& key_id) const {
  MutexLock lock(mu_);
  const auto it = keys_.find(key_id);
  return it == keys_.end() ? nullptr : it->second;
}

absl::StatusOr<std::string> DirectoryKek::Status() {
  RETURN_IF_ERROR(Load());
  MutexLock lock(mu_);
  return current_;
}

absl::StatusOr<KeyEncryptionKey::Wrapped> DirectoryKek::Wrap(const Secret& plaintext, absl::string_view /*uid*/) {
  ASSIGN_OR_RETURN(const std::string key_id, Status());
  const std::shared_ptr<const Secret> key = Find(key_id);
  if (key == nullptr) {
    return absl::NotFoundError("the current key has just gone");
  }
  Wrapped wrapped;
  wrapped.key_id = key_id;
  ASSIGN_OR_RETURN(wrapped.ciphertext, AeadSeal(*key, plaintext.Expose(), AssociatedData(key_id)));
  return wrapped;
}

absl::StatusOr<Secret> DirectoryKek::Unwrap(const Wrapped& wrapped, absl::string_view /*uid*/) {
  std::shared_ptr<const Secret> key = Find(wrapped.key_id);
  if (key == nullptr) {
    const absl::Status loaded = Load();  // `current` may be bad while an older key still opens this.
    key = Find(wrapped.key_id);
    if (key == nullptr) {
      return loaded.ok() ? absl::NotFoundError(absl::StrCat("no key ", wrapped.key_id, " in ", directory_)) : loaded;
    }
  }
  return AeadOpen(*key, wrapped.ciphertext, AssociatedData(wrapped.key_id));
}

void DirectoryKek::Wipe() {
  MutexLock lock(mu_);
  keys_.clear();  // The last user of a key wipes it.
  current_.clear();
}

absl::Status DirectoryKek::CreateFirst() {
  RETURN_IF_ERROR(MakeDirectories(directory_, 0700));
  std::error_code failed;
  std::vector<std::string> names = EntryNames(directory_, failed);
  if (failed) {
    return absl::UnavailableError(absl::StrCat("cannot read ", directory_, ": ", failed.message()));
  }
  names.erase(std::remove_if(names.begin(), names.end(), [](const std::string& name) { return name[0] == '.'; }),
              names.end());
  // A first key without the link is what a crash between the two steps below leaves.
  const bool interrupted = names.size() == 1 && names[0] == kFirstKey;
  if (!names.empty() && !interrupted) {
    return absl::OkStatus();
  }
  if (!interrupted) {
    RETURN_IF_ERROR(WriteFirstKey(directory_));
  }
  if (::symlink(kFirstKey, absl::StrCat(directory_, "/", kCurrent).c_str()) != 0 && errno != EEXIST) {
    return absl::UnavailableError(absl::StrCat("cannot make the link current in ", directory_));
  }
  RETURN_IF_ERROR(SyncDirectory(directory_));
  ASSIGN_OR_RETURN(const std::string key_id, Status());
  Log(LogLevel::kInfo, "kek_created", {{"directory", directory_}, {"key_id", key_id}});
  return absl::OkStatus();
}

}  // namespace sallyport::vault
