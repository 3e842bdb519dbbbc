// What the classes of this folder are made of: one owned C handle each.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "result.hpp"
#include "types.h"

namespace tickrt {

using Ticket = tickrt_ticket;
using Answer = tickrt_answer;
using Clock = std::chrono::steady_clock;

// From submission to answer.
inline std::chrono::nanoseconds latency(const Answer &answer) noexcept {
    return std::chrono::nanoseconds(answer.done_ns - answer.submitted_ns);
}

namespace detail {

template <auto Free>
struct Freer {
    template <typename T>
    void operator()(T *handle) const noexcept {
        Free(handle);
    }
};

template <typename T, auto Free>
using Owned = std::unique_ptr<T, Freer<Free>>;

// steady_clock is CLOCK_MONOTONIC, with libstdc++ and with libc++.
inline std::uint64_t nanoseconds(Clock::time_point time) noexcept {
    const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
    return since < 0 ? 0 : static_cast<std::uint64_t>(since);
}

// The C type of an element. half and bfloat16 have none in C++17: they go as Raw, below.
template <typename T>
struct TypeOf;
template <>
struct TypeOf<float> {
    static constexpr tickrt_type value = TICKRT_F32;
};
template <>
struct TypeOf<double> {
    static constexpr tickrt_type value = TICKRT_F64;
};
template <>
struct TypeOf<std::int8_t> {
    static constexpr tickrt_type value = TICKRT_I8;
};
template <>
struct TypeOf<std::uint8_t> {
    static constexpr tickrt_type value = TICKRT_U8;
};
template <>
struct TypeOf<std::int16_t> {
    static constexpr tickrt_type value = TICKRT_I16;
};
template <>
struct TypeOf<std::int32_t> {
    static constexpr tickrt_type value = TICKRT_I32;
};
template <>
struct TypeOf<std::int64_t> {
    static constexpr tickrt_type value = TICKRT_I64;
};

} // namespace detail

// Elements of a type that C++17 has no name for: f16 as TICKRT_F16, bf16 as TICKRT_BF16.
struct Raw {
    const void *data;
    std::size_t count;
    tickrt_type type;
};

} // namespace tickrt
