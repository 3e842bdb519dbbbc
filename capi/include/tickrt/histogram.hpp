// Latencies, and their tail.
#pragma once

#include <chrono>

#include "handle.hpp"
#include "histogram.h"

namespace tickrt {

class Histogram {
  public:
    static Result<Histogram> make() {
        tickrt_histogram *made = nullptr;
        if (tickrt_error *error = tickrt_histogram_new(&made)) {
            return Error(error);
        }
        return Histogram(made);
    }

    // Adds one; allocates nothing and cannot fail.
    void record(std::chrono::nanoseconds latency) noexcept {
        tickrt_histogram_record_ns(get(), latency.count() < 0 ? 0 : static_cast<std::uint64_t>(latency.count()));
    }
    void reset() noexcept { tickrt_histogram_reset(get()); }
    Result<void> add(const Histogram &other) { return Result<void>(tickrt_histogram_add(get(), other.get())); }

    std::uint64_t count() const noexcept { return tickrt_histogram_count(get()); }
    // The latency that this share of them, 0 to 1, did not exceed.
    Result<std::chrono::nanoseconds> quantile(double share) const {
        std::uint64_t found = 0;
        if (tickrt_error *error = tickrt_histogram_quantile_ns(get(), share, &found)) {
            return Error(error);
        }
        return std::chrono::nanoseconds(found);
    }
    std::chrono::nanoseconds max() const noexcept { return std::chrono::nanoseconds(tickrt_histogram_max_ns(get())); }

    tickrt_histogram *get() const noexcept { return handle_.get(); }

  private:
    explicit Histogram(tickrt_histogram *handle) noexcept : handle_(handle) {}

    detail::Owned<tickrt_histogram, tickrt_histogram_free> handle_;
};

} // namespace tickrt
