// TensorRT's headers, and what differs between their versions as macros with names.
//
// The build renames the namespaces (-Dnvinfer1=nvinfer1_trt10 and the like) on the command line, before anything is
// included: else the linker would merge inline methods of different majors, whose virtual tables differ.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <memory>

#include "../api.h"
#include "../loader.h"
#include "../log.h"
#include "../outcome.h"

#ifndef TICKRT_FLAVOUR
#error "the build defines TICKRT_FLAVOUR: trt8, trt10, trt11 or rtx"
#endif

// TensorRT-RTX says NV_TENSORRT_MAJOR 1 of itself: it has to be asked for first.
#ifdef TRT_MAJOR_RTX
#define TICKRT_RTX 1
#else
#define TICKRT_RTX 0
#endif
#define TICKRT_MAJOR NV_TENSORRT_MAJOR

// FP16 and the like as flags; gone in 11 and in RTX, where types come from the model.
#define TICKRT_HAS_PRECISION_FLAGS (!TICKRT_RTX && TICKRT_MAJOR <= 10)
// int64 dimensions, progress monitors, BF16, strong typing, contexts with a memory strategy, and parser errors that
// name the node.
#define TICKRT_IS_10_OR_LATER (TICKRT_RTX || TICKRT_MAJOR >= 10)

namespace tickrt::TICKRT_FLAVOUR {

// TensorRT's objects have virtual destructors from 8 on: a plain delete runs the library's own.
template <typename T>
using Owned = std::unique_ptr<T>;

// A library without one of its factories: cut down, or none of NVIDIA's.
inline api::Failure lacks(const loader::Native& native, const char* function) {
    return failure(api::FailureKind::LibraryMissing, "use " + native.path, "a library without it", function,
                   "install TensorRT's own library");
}

inline bool at_least(api::Version version, uint32_t major, uint32_t minor) noexcept {
    return version.major > major || (version.major == major && version.minor >= minor);
}

}  // namespace tickrt::TICKRT_FLAVOUR
