// What a session and a predictor have in common: lending, writing, submitting, collecting, rolling windows.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "handle.hpp"
#include "predictor.h"
#include "session.h"
#include "span.hpp"

namespace tickrt {

namespace detail {

// The C functions of a handle, by its type.
template <typename Handle>
struct Functions;

#define TICKRT_FUNCTIONS(noun)                                                                                         \
    template <>                                                                                                        \
    struct Functions<tickrt_##noun> {                                                                                  \
        static constexpr auto free = tickrt_##noun##_free;                                                             \
        static constexpr auto input = tickrt_##noun##_input;                                                           \
        static constexpr auto write = tickrt_##noun##_write;                                                           \
        static constexpr auto write_named = tickrt_##noun##_write_named;                                               \
        static constexpr auto submit = tickrt_##noun##_submit;                                                         \
        static constexpr auto cancel = tickrt_##noun##_cancel;                                                         \
        static constexpr auto push = tickrt_##noun##_push;                                                             \
        static constexpr auto reset = tickrt_##noun##_reset;                                                           \
        static constexpr auto gap = tickrt_##noun##_gap;                                                               \
        static constexpr auto submit_window = tickrt_##noun##_submit_window;                                           \
        static constexpr auto poll = tickrt_##noun##_poll;                                                             \
        static constexpr auto wait = tickrt_##noun##_wait;                                                             \
        static constexpr auto wait_until = tickrt_##noun##_wait_until;                                                 \
        static constexpr auto give_up = tickrt_##noun##_give_up;                                                       \
        static constexpr auto keep_warm = tickrt_##noun##_keep_warm;                                                   \
        static constexpr auto rest = tickrt_##noun##_rest;                                                             \
    };
TICKRT_FUNCTIONS(session)
TICKRT_FUNCTIONS(predictor)
#undef TICKRT_FUNCTIONS

} // namespace detail

// Where output number `index` is to go.
template <typename T>
tickrt_output output(std::size_t index, Span<T> into) noexcept {
    return {index, into.data(), into.size(), detail::TypeOf<T>::value};
}

// A lent slot. Destroyed without `submit` it goes back to the ring; it must not outlive its session.
template <typename Handle>
class Slot {
  public:
    explicit Slot(Handle *handle) noexcept : handle_(handle) {}
    Slot(Slot &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Slot &operator=(Slot &&) = delete;
    ~Slot() {
        if (handle_ != nullptr) {
            Of::cancel(handle_);
        }
    }

    // Elements of the first input, from place `offset` on.
    template <typename T>
    Result<void> write(Span<const T> data, std::size_t offset = 0) {
        return write(Raw{data.data(), data.size(), detail::TypeOf<T>::value}, offset);
    }
    Result<void> write(Raw raw, std::size_t offset = 0) {
        return Result<void>(Of::write(handle_, offset, raw.data, raw.count, raw.type));
    }
    // Of the input `name`.
    Result<void> write(const char *name, Raw raw, std::size_t offset = 0) {
        return Result<void>(Of::write_named(handle_, name, offset, raw.data, raw.count, raw.type));
    }

    // Starts the call. The slot is used up, whatever comes of it.
    Result<Ticket> submit(std::uint64_t tag = 0) && {
        Ticket ticket;
        if (tickrt_error *error = Of::submit(std::exchange(handle_, nullptr), tag, &ticket)) {
            return Error(error);
        }
        return ticket;
    }

  private:
    using Of = detail::Functions<Handle>;
    Handle *handle_;
};

// The calls of a session or a predictor.
template <typename Handle>
class Calls {
  public:
    // Lends a slot for shape number `shape`. Until it is submitted or gone, the session can do nothing else.
    Result<Slot<Handle>> input(std::size_t shape = 0) {
        if (tickrt_error *error = Of::input(get(), shape)) {
            return Error(error);
        }
        return Slot<Handle>(get());
    }

    // Keeps the newest row of `symbol`.
    template <typename T>
    Result<void> push(std::uint32_t symbol, Span<const T> row) {
        return Result<void>(Of::push(get(), symbol, row.data(), row.size(), detail::TypeOf<T>::value));
    }
    Result<void> push(std::uint32_t symbol, Raw row) {
        return Result<void>(Of::push(get(), symbol, row.data, row.count, row.type));
    }
    Result<void> reset(std::uint32_t symbol) { return Result<void>(Of::reset(get(), symbol)); }
    Result<void> gap(std::uint32_t symbol) { return Result<void>(Of::gap(get(), symbol)); }

    // Starts a call on the window of `symbol` as it is now.
    Result<Ticket> submit_window(std::uint32_t symbol, std::uint64_t tag = 0) {
        Ticket ticket;
        if (tickrt_error *error = Of::submit_window(get(), symbol, tag, &ticket)) {
            return Error(error);
        }
        return ticket;
    }

    // Takes the answer if it is there: the first output goes to `into`.
    template <typename T>
    Result<std::optional<Answer>> poll(Ticket ticket, Span<T> into) {
        const tickrt_output first = output(0, into);
        return poll_into(ticket, Span<const tickrt_output>(&first, 1));
    }
    Result<std::optional<Answer>> poll_into(Ticket ticket, Span<const tickrt_output> outputs) {
        bool done = false;
        Answer answer;
        if (tickrt_error *error = Of::poll(get(), ticket, outputs.data(), outputs.size(), &done, &answer)) {
            return Error(error);
        }
        return done ? std::optional<Answer>(answer) : std::nullopt;
    }

    // Waits for the answer.
    template <typename T>
    Result<Answer> wait(Ticket ticket, Span<T> into) {
        const tickrt_output first = output(0, into);
        return wait_into(ticket, Span<const tickrt_output>(&first, 1));
    }
    Result<Answer> wait_into(Ticket ticket, Span<const tickrt_output> outputs) {
        Answer answer;
        if (tickrt_error *error = Of::wait(get(), ticket, outputs.data(), outputs.size(), &answer)) {
            return Error(error);
        }
        return answer;
    }

    // Waits for the answer until `deadline`.
    template <typename T>
    Result<Answer> wait_until(Ticket ticket, Clock::time_point deadline, Span<T> into) {
        const tickrt_output first = output(0, into);
        return wait_until_into(ticket, deadline, Span<const tickrt_output>(&first, 1));
    }
    Result<Answer> wait_until_into(Ticket ticket, Clock::time_point deadline, Span<const tickrt_output> outputs) {
        Answer answer;
        const std::uint64_t until = detail::nanoseconds(deadline);
        if (tickrt_error *error = Of::wait_until(get(), ticket, until, outputs.data(), outputs.size(), &answer)) {
            return Error(error);
        }
        return answer;
    }

    Result<void> give_up(Ticket ticket) { return Result<void>(Of::give_up(get(), ticket)); }
    // To be called in pauses.
    Result<void> keep_warm() { return Result<void>(Of::keep_warm(get())); }
    Result<void> rest() { return Result<void>(Of::rest(get())); }

    Handle *get() const noexcept { return handle_.get(); }

  protected:
    explicit Calls(Handle *handle) noexcept : handle_(handle) {}

  private:
    using Of = detail::Functions<Handle>;
    detail::Owned<Handle, detail::Functions<Handle>::free> handle_;
};

} // namespace tickrt
