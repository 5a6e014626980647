// SPDX-License-Identifier: Apache-2.0
#include "common/files.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include <sys/stat.h>

#include "common/crypto/random.h"
#include "common/status_macros.h"
#include "common/text/hex.h"

namespace sallyport {
namespace {

absl::Status ErrnoStatus(int error, absl::string_view what, const std::string& path) {
  const std::string message = absl::StrCat("cannot ", what, " ", path, ": ", strerror(error));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(message);
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
      return absl::InvalidArgumentError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::Status WriteAll(int fd, absl::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t n = write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "write", path);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status SyncDirectory(const std::string& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "open", directory);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  // EINVAL: a file system that cannot sync directories.
  return result == 0 || error == EINVAL ? absl::OkStatus() : ErrnoStatus(error, "sync", directory);
}

absl::Status CheckPrivateStat(const struct stat& info, const std::string& path) {
  if ((info.st_mode & (S_IRWXO | S_IWGRP)) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is open to other users; chmod it to 0600"));
  }
  if (info.st_uid != geteuid() && info.st_uid != 0) {
    return absl::FailedPreconditionError(absl::StrCat(path, " belongs to another user; chown it to this service's"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadOpen(const std::string& path, size_t max_size, bool must_be_private) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // A FIFO must not hang the start.
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  absl::Cleanup closer = [fd] { close(fd); };
  struct stat info {};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  if (must_be_private) RETURN_IF_ERROR(CheckPrivateStat(info, path));
  std::string content;
  char buffer[16 << 10];
  while (true) {
    const ssize_t n = read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "read", path);
    if (n == 0) break;
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > max_size) {
      return absl::InvalidArgumentError(absl::StrCat(path, " is larger than ", max_size, " bytes"));
    }
  }
  OPENSSL_cleanse(buffer, sizeof(buffer));
  return content;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_size) {
  return ReadOpen(path, max_size, false);
}

absl::StatusOr<Secret> ReadSecretFile(const std::string& path, size_t max_size) {
  ASSIGN_OR_RETURN(std::string content, ReadOpen(path, max_size, true));
  if (!content.empty() && content.back() == '\n') content.pop_back();
  if (!content.empty() && content.back() == '\r') content.pop_back();
  if (content.empty()) return absl::InvalidArgumentError(absl::StrCat(path, " is empty"));
  return Secret(std::move(content));
}

absl::Status CheckPrivate(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "stat", path);
  return CheckPrivateStat(info, path);
}

absl::Status WriteFileAtomic(const std::string& path, absl::string_view content, mode_t mode) {
  const std::string temporary = absl::StrCat(path, ".", HexEncode(RandomBytes(6)), ".tmp");
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0) return ErrnoStatus(errno, "create", temporary);
  absl::Cleanup remover = [&temporary] { unlink(temporary.c_str()); };
  absl::Status status = WriteAll(fd, content, path);
  if (status.ok() && fchmod(fd, mode) != 0) status = ErrnoStatus(errno, "chmod", path);  // The umask may have cut it.
  if (status.ok() && fsync(fd) != 0) status = ErrnoStatus(errno, "sync", path);
  if (close(fd) != 0 && status.ok()) status = ErrnoStatus(errno, "close", path);
  RETURN_IF_ERROR(status);
  if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "rename to", path);
  std::move(remover).Cancel();
  return SyncDirectory(DirectoryOf(path));
}

absl::Status MakeDirectories(const std::string& path, mode_t mode) {
  if (path.empty()) return absl::InvalidArgumentError("empty directory name");
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (mkdir(part.c_str(), mode) != 0 && errno != EEXIST) return ErrnoStatus(errno, "create directory", part);
    if (end == std::string::npos) break;
  }
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "stat", path);
  if (!S_ISDIR(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is not a directory"));
  return absl::OkStatus();
}

absl::Status RemoveFile(const std::string& path) {
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, "remove", path);
  return absl::OkStatus();
}

}  // namespace sallyport
