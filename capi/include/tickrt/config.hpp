// What a session or a predictor is made for.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "config.h"
#include "handle.hpp"
#include "normalization.h"
#include "span.hpp"

namespace tickrt {

// What happens to an input before the network.
class Normalization {
  public:
    // Reads the JSON form.
    static Result<Normalization> read(const std::string &path) {
        tickrt_normalization *made = nullptr;
        tickrt_error *const error = tickrt_normalization_read(path.c_str(), &made);
        return wrap(error, made);
    }

    // Converts `input` from a type, until more is set.
    static Result<Normalization> make(const std::string &input, tickrt_type input_type) {
        tickrt_normalization *made = nullptr;
        tickrt_error *const error = tickrt_normalization_new(input.c_str(), input_type, &made);
        return wrap(error, made);
    }

    Result<void> stats(tickrt_stats kind, Span<const double> mean, Span<const double> std) {
        // A length of its own for each: the shorter one is what both must have.
        const std::size_t count = mean.size() < std.size() ? mean.size() : std.size();
        return Result<void>(tickrt_normalization_set_stats(get(), kind, mean.data(), std.data(), count));
    }
    Result<void> clamp(float lowest, float highest) {
        return Result<void>(tickrt_normalization_set_clamp(get(), lowest, highest));
    }
    Result<void> non_finite(tickrt_non_finite policy, float replacement = 0.0F) {
        return Result<void>(tickrt_normalization_set_non_finite(get(), policy, replacement));
    }
    Result<void> layout(tickrt_layout layout) { return Result<void>(tickrt_normalization_set_layout(get(), layout)); }

    tickrt_normalization *get() const noexcept { return handle_.get(); }

  private:
    explicit Normalization(tickrt_normalization *handle) noexcept : handle_(handle) {}

    static Result<Normalization> wrap(tickrt_error *error, tickrt_normalization *made) {
        if (error != nullptr) {
            return Error(error);
        }
        return Normalization(made);
    }

    detail::Owned<tickrt_normalization, tickrt_normalization_free> handle_;
};

// The defaults, until more is set; each setter gives the configuration back. A value that a setter refuses is the error
// of the session or predictor that is made with it.
class Config {
  public:
    Config() : handle_(tickrt_config_new()) {}

    Config &depth(std::size_t slots) { return keep(tickrt_config_set_depth(get(), slots)); }
    Config &windows(std::uint32_t symbols, std::size_t row, tickrt_gap_policy on_gap = TICKRT_GAP_REFILL) {
        return keep(tickrt_config_set_windows(get(), symbols, row, on_gap));
    }
    Config &normalization(const Normalization &normalization) {
        return keep(tickrt_config_add_normalization(get(), normalization.get()));
    }
    Config &no_normalization() { return keep(tickrt_config_set_no_normalization(get())); }
    Config &shape(std::size_t number, const std::string &input, Span<const std::int64_t> dimensions) {
        return keep(tickrt_config_set_shape(get(), number, input.c_str(), dimensions.data(), dimensions.size()));
    }
    Config &wait_limit(std::chrono::nanoseconds limit) {
        return keep(tickrt_config_set_wait_limit_ns(get(), static_cast<std::uint64_t>(limit.count())));
    }
    Config &wait_strategy(tickrt_wait_strategy strategy) {
        return keep(tickrt_config_set_wait_strategy(get(), strategy));
    }
    Config &launch_ahead(std::chrono::nanoseconds time) {
        return keep(tickrt_config_set_launch_ahead_ns(get(), static_cast<std::uint64_t>(time.count())));
    }
    Config &resident_turn(std::chrono::nanoseconds turn) {
        return keep(tickrt_config_set_resident_turn_ns(get(), static_cast<std::uint64_t>(turn.count())));
    }
    Config &resident_share_gpu(bool share) { return keep(tickrt_config_set_resident_share_gpu(get(), share)); }
    Config &resident_bar1(bool bar1) { return keep(tickrt_config_set_resident_bar1(get(), bar1)); }
    Config &resident_known_answer(std::chrono::nanoseconds every) {
        return keep(tickrt_config_set_resident_known_answer_ns(get(), static_cast<std::uint64_t>(every.count())));
    }
    Config &warm_up(std::size_t calls) { return keep(tickrt_config_set_warm_up(get(), calls)); }
    Config &device(std::size_t device) { return keep(tickrt_config_set_device(get(), device)); }
    Config &cpu_threads(std::size_t threads) { return keep(tickrt_config_set_cpu_threads(get(), threads)); }
    Config &check_finite(bool check) { return keep(tickrt_config_set_check_finite(get(), check)); }
    Config &output_range(float lowest, float highest) {
        return keep(tickrt_config_set_output_range(get(), lowest, highest));
    }

    // The first error of a setter, to be looked at before the configuration is used.
    Result<void> take_error() noexcept { return Result<void>(error_.release()); }

    tickrt_config *get() const noexcept { return handle_.get(); }

  private:
    Config &keep(tickrt_error *error) noexcept {
        if (error_ == nullptr) {
            error_.reset(error);
        } else {
            tickrt_error_free(error);
        }
        return *this;
    }

    detail::Owned<tickrt_config, tickrt_config_free> handle_;
    detail::Owned<tickrt_error, tickrt_error_free> error_;
};

} // namespace tickrt
