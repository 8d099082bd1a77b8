// Files: a read-only view of one, mapped where the system can, and a writer whose target is at any moment either the
// old file or the complete new one, even if the process is killed or the machine stops.
//
//     bytes ── append ──> PATH.tmp (locked) ── flush to disk, rename ──> PATH ── flush the directory
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gatefold/core/error.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// The bytes of a file: mapped, owned, or none. Moves, does not copy; the bytes stay where they are when it moves.
class file_bytes {
public:
    file_bytes() = default;
    GATEFOLD_INLINE explicit file_bytes(std::vector<std::byte> owned) : owned_(std::move(owned)) { bytes_ = owned_; }
    /// Takes over a mapping of mmap.
    GATEFOLD_INLINE file_bytes(void* mapping, std::size_t size)
        : bytes_(static_cast<const std::byte*>(mapping), size), mapping_(mapping) {}
    GATEFOLD_INLINE file_bytes(file_bytes&& other) noexcept
        : owned_(std::move(other.owned_)),
          bytes_(std::exchange(other.bytes_, {})),
          mapping_(std::exchange(other.mapping_, nullptr)) {}
    GATEFOLD_INLINE file_bytes& operator=(file_bytes&& other) noexcept {
        std::swap(owned_, other.owned_);
        std::swap(bytes_, other.bytes_);
        std::swap(mapping_, other.mapping_);
        return *this;
    }
    GATEFOLD_INLINE ~file_bytes() {
        if (mapping_ != nullptr) ::munmap(mapping_, bytes_.size());
    }

    GATEFOLD_INLINE std::span<const std::byte> bytes() const { return bytes_; }
    GATEFOLD_INLINE std::string_view text() const {
        return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
    }

private:
    std::vector<std::byte> owned_;
    std::span<const std::byte> bytes_;
    void* mapping_ = nullptr;
};

namespace detail {
inline namespace GATEFOLD_TIER {

[[noreturn]] inline void fail_with_errno(const std::string& path, const char* what, int error) {
    GATEFOLD_THROW(file_error(path + ": " + what + ": " + std::strerror(error)));
}

/// Repeats a system call that a signal interrupted.
template <class Call>
auto retry_call(Call call) {
    auto result = call();
    while (result < 0 && errno == EINTR) result = call();
    return result;
}

/// A file descriptor that closes itself.
class file_descriptor {
public:
    explicit file_descriptor(int fd) : fd_(fd) {}
    file_descriptor(const file_descriptor&) = delete;
    file_descriptor& operator=(const file_descriptor&) = delete;
    ~file_descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }

private:
    int fd_;
};

inline std::vector<std::byte> read_to_end(const std::string& path, int fd) {
    std::vector<std::byte> all;
    for (std::size_t used = 0;;) {
        if (used == all.size()) all.resize(used < 4096 ? 65536 : used + used / 2);
        const ssize_t got = retry_call([&] { return ::read(fd, all.data() + used, all.size() - used); });
        if (got < 0) fail_with_errno(path, "cannot be read", errno);
        used += static_cast<std::size_t>(got);
        if (got == 0) {
            all.resize(used);
            return all;
        }
    }
}

/// Opens a file beside `target` for writing, empty and locked; `name` becomes its path.
///
/// The name is a fixed one, so that killed writers do not fill the folder; the lock keeps live writers apart. A lock
/// may be won on a file that its owner has renamed to `target` in the meantime: hence the second look before it is
/// emptied.
inline int open_temporary(const std::string& path, const std::string& target, std::string& name) {
    for (int attempt = 0; attempt < 1000; ++attempt) {
        name = target + ".tmp" + (attempt == 0 ? std::string() : std::to_string(attempt));
        const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
        file_descriptor file(retry_call([&] { return ::open(name.c_str(), flags, 0666); }));
        if (file.get() < 0) fail_with_errno(path, ("cannot be written: " + name).c_str(), errno);
        if (retry_call([&] { return ::flock(file.get(), LOCK_EX | LOCK_NB); }) != 0 && errno == EWOULDBLOCK) continue;
        struct stat opened, named;
        if (::fstat(file.get(), &opened) != 0 || ::stat(name.c_str(), &named) != 0) continue;
        if (opened.st_ino != named.st_ino || opened.st_dev != named.st_dev || !S_ISREG(opened.st_mode)) continue;
        if (retry_call([&] { return ::ftruncate(file.get(), 0); }) != 0)
            fail_with_errno(path, "cannot be written", errno);
        struct stat old;
        if (::stat(target.c_str(), &old) == 0 && ::fchmod(file.get(), old.st_mode & 0777u) != 0) {
            const int error = errno;
            ::unlink(name.c_str());
            fail_with_errno(path, "cannot take over the access rights", error);
        }
        return file.release();
    }
    GATEFOLD_THROW(file_error(path + ": cannot be written: 1000 other writers are at work"));
}

inline void write_all(const std::string& path, int fd, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        // Linux writes at most 2 GiB - 4 KiB in one call.
        const std::size_t piece = bytes.size() < (std::size_t{1} << 30) ? bytes.size() : std::size_t{1} << 30;
        const ssize_t written = retry_call([&] { return ::write(fd, bytes.data(), piece); });
        if (written < 0) fail_with_errno(path, "cannot be written", errno);
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
}

/// Makes the finished temporary the file `target`: contents before the name, the name before the return.
inline void publish(const std::string& path, int fd, const std::string& temporary, const std::string& target) {
    const std::size_t slash = target.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : target.substr(0, slash + 1);
    const file_descriptor directory(
        retry_call([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (retry_call([&] { return ::fsync(fd); }) != 0) fail_with_errno(path, "cannot be flushed to disk", errno);
    if (::rename(temporary.c_str(), target.c_str()) != 0) fail_with_errno(path, "cannot be replaced", errno);
    // A folder one may write to but not read, or a file system that does not flush folders: nothing more can be done.
    if (directory.get() >= 0) retry_call([&] { return ::fsync(directory.get()); });
}

/// The file a writer has to replace: where `path` leads to if it is a link; only a regular file can be replaced.
inline std::string writable_target(const std::string& path) {
    struct stat info;
    std::string target = path;
    if (::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode)) {
        char* resolved = ::realpath(path.c_str(), nullptr);
        if (resolved == nullptr) fail_with_errno(path, "is a link that leads nowhere", errno);
        target = resolved;
        std::free(resolved);
    }
    if (::stat(target.c_str(), &info) == 0 && !S_ISREG(info.st_mode))
        GATEFOLD_THROW(file_error(path + ": cannot be replaced: not a regular file"));
    return target;
}

}  // namespace GATEFOLD_TIER
}  // namespace detail

inline namespace GATEFOLD_TIER {

/// Opens a file for reading: maps a regular file, reads anything else (a pipe, a file of /proc) to its end.
///
/// A mapped file must not be truncated while it is in use; replacing it by rename, as atomic_file does, is harmless.
/// Throws: file_error naming the file and the system's reason.
inline file_bytes open_file(const std::string& path) {
    const detail::file_descriptor file(detail::retry_call([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC); }));
    if (file.get() < 0) detail::fail_with_errno(path, "cannot be opened", errno);
    struct stat info;
    if (::fstat(file.get(), &info) != 0) detail::fail_with_errno(path, "cannot be examined", errno);
    if (S_ISDIR(info.st_mode)) detail::fail_with_errno(path, "cannot be read", EISDIR);
    if (S_ISREG(info.st_mode) && info.st_size > 0) {
        const auto size = static_cast<std::size_t>(info.st_size);
        void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
        if (mapping != MAP_FAILED) return file_bytes(mapping, size);
    }
    return file_bytes(detail::read_to_end(path, file.get()));
}

}  // namespace GATEFOLD_TIER

/// Replaces a file as a whole, or not at all.
///
///     atomic_file file("model.safetensors");
///     file.append(bytes);              // as often as needed; goes to model.safetensors.tmp
///     file.commit();                   // the new file is there, and on disk; without commit the old one stays
///
/// A link is followed, the access rights of the old file are kept. Two writers of one path do not disturb each other,
/// and the next writer takes over what a killed one left behind. Throws: file_error from every member; the old file is
/// untouched then, and the temporary one removed.
class atomic_file {
public:
    GATEFOLD_INLINE explicit atomic_file(std::string path)
        : path_(std::move(path)),
          target_(detail::writable_target(path_)),
          file_(detail::open_temporary(path_, target_, temporary_)) {}
    atomic_file(const atomic_file&) = delete;
    atomic_file& operator=(const atomic_file&) = delete;
    GATEFOLD_INLINE ~atomic_file() {
        if (file_ < 0) return;
        ::unlink(temporary_.c_str());
        ::close(file_);
    }

    GATEFOLD_INLINE void append(std::span<const std::byte> bytes) { detail::write_all(path_, file_, bytes); }
    GATEFOLD_INLINE void append(std::string_view text) { append(std::as_bytes(std::span(text))); }
    /// The last call.
    GATEFOLD_INLINE void commit() {
        detail::publish(path_, file_, temporary_, target_);
        ::close(file_);
        file_ = -1;
    }

private:
    std::string path_, target_, temporary_;  // in this order: each is made from the ones before
    int file_;
};

inline namespace GATEFOLD_TIER {

/// Replaces the file `path` by `text`, as a whole or not at all.
inline void write_file(const std::string& path, std::string_view text) {
    atomic_file file(path);
    file.append(text);
    file.commit();
}

}  // namespace GATEFOLD_TIER
}  // namespace gatefold::inline v0
