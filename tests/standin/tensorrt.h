// What both stand-in libraries share: the headers of the flavour that is stood in for, and the list of calls.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#ifdef TRT_MAJOR_RTX
#define STANDIN_RTX 1
#else
#define STANDIN_RTX 0
#endif
#define STANDIN_IS_8 (!STANDIN_RTX && NV_TENSORRT_MAJOR == 8)
// FP16 and the like as flags, and TensorRT's own calibrators.
#define STANDIN_HAS_FLAGS (!STANDIN_RTX && NV_TENSORRT_MAJOR <= 10)

// Dimensions by value and by reference.
#if STANDIN_IS_8
using DimsArgument = nvinfer1::Dims;
#else
using DimsArgument = nvinfer1::Dims const&;
#endif

namespace standin {

// Adds a line to the file that $TICKRT_STANDIN_CALLS names.
inline void note(std::string const& call) noexcept {
    char const* const path = std::getenv("TICKRT_STANDIN_CALLS");
    std::FILE* const file = path != nullptr ? std::fopen(path, "a") : nullptr;
    if (file != nullptr) {
        std::fprintf(file, "%s\n", call.c_str());
        std::fclose(file);
    }
}

inline std::string text(char const* words) {
    return words != nullptr ? words : "null";
}

inline std::string text(nvinfer1::Dims const& dims) {
    std::string shape;
    for (int32_t index = 0; index < dims.nbDims; ++index) {
        shape += (index == 0 ? "" : "x") + std::to_string(dims.d[index]);
    }
    return shape;
}

// Whether $TICKRT_STANDIN_FAIL names this step.
inline bool is_to_fail(char const* step) noexcept {
    char const* const wanted = std::getenv("TICKRT_STANDIN_FAIL");
    return wanted != nullptr && std::strcmp(wanted, step) == 0;
}

// What a function returns that is stood in for by name alone.
template <typename T>
T nothing() {
    if constexpr (std::is_reference_v<T>) {
        // There is nothing that it could refer to.
        std::abort();
    } else if constexpr (!std::is_void_v<T>) {
        return T{};
    }
}

}  // namespace standin
