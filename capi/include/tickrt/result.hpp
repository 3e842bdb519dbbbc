// Errors as values, or as exceptions: a Result is looked at with `if (result)`, or `value()` throws what went wrong.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "error.h"

namespace tickrt {

// What went wrong; owns the C error.
class Error {
  public:
    // Takes the error over.
    explicit Error(tickrt_error *error) noexcept : error_(error) {}
    Error(Error &&other) noexcept : error_(std::exchange(other.error_, nullptr)) {}
    Error &operator=(Error &&other) noexcept {
        std::swap(error_, other.error_);
        return *this;
    }
    ~Error() { tickrt_error_free(error_); }

    tickrt_code code() const noexcept { return tickrt_error_code(error_); }
    const char *message() const noexcept { return tickrt_error_message(error_); }
    // Whether CUDA is finished in this process.
    bool is_sticky() const noexcept { return tickrt_error_is_sticky(error_); }

  private:
    tickrt_error *error_;
};

// What `value()` throws.
class Exception : public std::exception {
  public:
    explicit Exception(Error error) : error_(std::make_shared<const Error>(std::move(error))) {}

    const char *what() const noexcept override { return error_->message(); }
    tickrt_code code() const noexcept { return error_->code(); }
    const Error &error() const noexcept { return *error_; }

  private:
    // Shared: an exception is copied when it is caught by value.
    std::shared_ptr<const Error> error_;
};

namespace detail {
// Without exceptions in the caller's program, an error that nobody looked at ends it.
[[noreturn]] inline void raise(Error error) {
#if defined(__cpp_exceptions)
    throw Exception(std::move(error));
#else
    std::fputs(error.message(), stderr);
    std::abort();
#endif
}
} // namespace detail

// A value or the error for which there is none.
template <typename T>
class [[nodiscard]] Result {
  public:
    Result(T value) : content_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) noexcept : content_(std::in_place_index<1>, std::move(error)) {}

    explicit operator bool() const noexcept { return content_.index() == 0; }
    // Of a result that has one.
    T &operator*() noexcept { return *std::get_if<0>(&content_); }
    T *operator->() noexcept { return std::get_if<0>(&content_); }
    const Error &error() const noexcept { return *std::get_if<1>(&content_); }
    // TICKRT_OK where there is a value.
    tickrt_code code() const noexcept { return *this ? TICKRT_OK : error().code(); }

    // The value, or an Exception.
    T value() && {
        if (!*this) {
            detail::raise(std::move(*std::get_if<1>(&content_)));
        }
        return std::move(**this);
    }

  private:
    std::variant<T, Error> content_;
};

// Success or an error.
template <>
class [[nodiscard]] Result<void> {
  public:
    Result() noexcept = default;
    Result(Error error) noexcept : error_(std::move(error)) {}
    // Of the C API: null is success.
    explicit Result(tickrt_error *error) noexcept {
        if (error != nullptr) {
            error_.emplace(error);
        }
    }

    explicit operator bool() const noexcept { return !error_.has_value(); }
    const Error &error() const noexcept { return *error_; }
    tickrt_code code() const noexcept { return error_ ? error_->code() : TICKRT_OK; }
    Error take_error() &&noexcept { return std::move(*error_); }

    // Nothing, or an Exception.
    void value() && {
        if (error_) {
            detail::raise(std::move(*error_));
        }
    }

  private:
    std::optional<Error> error_;
};

} // namespace tickrt
