// What may run in this process.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "handle.hpp"
#include "trust.h"

namespace tickrt {

// Keys and libraries; nothing else runs once they are enforced.
class Trust {
  public:
    using Hash = std::array<std::uint8_t, 32>;

    Trust() : handle_(tickrt_trust_new()) {}

    Result<void> key(const Hash &key) { return Result<void>(tickrt_trust_add_key(handle_.get(), key.data())); }
    Result<void> key_file(const std::string &path) {
        return Result<void>(tickrt_trust_add_key_file(handle_.get(), path.c_str()));
    }
    // By its absolute path.
    Result<void> library(const std::string &path) {
        return Result<void>(tickrt_trust_add_library(handle_.get(), path.c_str(), nullptr));
    }
    Result<void> library(const std::string &path, const Hash &sha256) {
        return Result<void>(tickrt_trust_add_library(handle_.get(), path.c_str(), sha256.data()));
    }
    // From here on, to the end of the process.
    Result<void> enforce() && { return Result<void>(tickrt_trust_enforce(handle_.release())); }

  private:
    detail::Owned<tickrt_trust, tickrt_trust_free> handle_;
};

} // namespace tickrt
