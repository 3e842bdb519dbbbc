// From an ONNX model to a TensorRT plan and its sidecar.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "builder.h"
#include "config.hpp"
#include "handle.hpp"
#include "span.hpp"

namespace tickrt {

// TensorRT's defaults, until more is set. An option that the TensorRT at hand lacks is refused by `build`.
class Builder {
  public:
    Builder() : handle_(tickrt_builder_new()) {}

    Result<void> workspace(std::uint64_t bytes) { return Result<void>(tickrt_builder_set_workspace(get(), bytes)); }
    Result<void> fp16() { return Result<void>(tickrt_builder_set_fp16(get())); }
    Result<void> no_tf32() { return Result<void>(tickrt_builder_set_no_tf32(get())); }
    Result<void> optimization_level(std::uint8_t level) {
        return Result<void>(tickrt_builder_set_optimization_level(get(), level));
    }
    Result<void> timing_cache(const std::string &path) {
        return Result<void>(tickrt_builder_set_timing_cache(get(), path.c_str()));
    }
    // Three shapes of as many dimensions.
    Result<void> shapes(const std::string &input, Span<const std::int64_t> min, Span<const std::int64_t> opt,
                        Span<const std::int64_t> max) {
        const std::size_t shortest = std::min({min.size(), opt.size(), max.size()});
        return Result<void>(
            tickrt_builder_set_shapes(get(), input.c_str(), min.data(), opt.data(), max.data(), shortest));
    }
    Result<void> normalization(const Normalization &normalization) {
        return Result<void>(tickrt_builder_add_normalization(get(), normalization.get()));
    }
    Result<void> window_row(std::size_t elements) {
        return Result<void>(tickrt_builder_set_window_row(get(), elements));
    }
    // trt8, trt10, trt11, rtx, or a path.
    Result<void> tensorrt(const std::string &which) {
        return Result<void>(tickrt_builder_set_tensorrt(get(), which.c_str()));
    }
    Result<void> build(const std::string &onnx, const std::string &engine) const {
        return Result<void>(tickrt_builder_build(get(), onnx.c_str(), engine.c_str()));
    }

    tickrt_builder *get() const noexcept { return handle_.get(); }

  private:
    detail::Owned<tickrt_builder, tickrt_builder_free> handle_;
};

} // namespace tickrt
