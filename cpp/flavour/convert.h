// Between TensorRT's enums and dimensions and our own: by name, for the numbers change from major to major.
#pragma once

#include <string>
#include <vector>

#include "nv.h"

namespace tickrt::TICKRT_FLAVOUR {

inline api::ElementType convert(nvinfer1::DataType type) noexcept {
    using nvinfer1::DataType;
    switch (type) {
        case DataType::kFLOAT:
            return api::ElementType::F32;
        case DataType::kHALF:
            return api::ElementType::F16;
        case DataType::kINT8:
            return api::ElementType::I8;
        case DataType::kINT32:
            return api::ElementType::I32;
        case DataType::kBOOL:
            return api::ElementType::Bool;
        case DataType::kUINT8:
            return api::ElementType::U8;
#if TICKRT_IS_10_OR_LATER
        case DataType::kBF16:
            return api::ElementType::Bf16;
        case DataType::kINT64:
            return api::ElementType::I64;
#endif
        default:
            return api::ElementType::Other;
    }
}

// The names that src/builder/config.rs gives to precisions; integers that are no INT8 have their own.
inline const char* name(api::ElementType element) noexcept {
    switch (element) {
        case api::ElementType::F32:
            return "fp32";
        case api::ElementType::F16:
            return "fp16";
        case api::ElementType::Bf16:
            return "bf16";
        case api::ElementType::I8:
            return "int8";
        case api::ElementType::I32:
            return "int32";
        case api::ElementType::I64:
            return "int64";
        case api::ElementType::Bool:
            return "bool";
        default:
            return "other";
    }
}

inline std::vector<int64_t> convert(const nvinfer1::Dims& dims) {
    // -1 dimensions: TensorRT's way to say that there is no such tensor.
    return dims.nbDims > 0 ? std::vector<int64_t>(dims.d, dims.d + dims.nbDims) : std::vector<int64_t>{};
}

// False where TensorRT has no room for the rank.
inline bool convert(const std::vector<int64_t>& shape, nvinfer1::Dims& dims) noexcept {
    if (shape.size() > static_cast<std::size_t>(nvinfer1::Dims::MAX_DIMS)) {
        return false;
    }
    dims.nbDims = static_cast<int32_t>(shape.size());
    for (std::size_t index = 0; index < shape.size(); ++index) {
        // int32 in TensorRT 8; a profile was checked against the network before.
        dims.d[index] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(shape[index]);
    }
    return true;
}

inline nvinfer1::MemoryPoolType convert(api::MemoryPool pool) noexcept {
    using nvinfer1::MemoryPoolType;
    switch (pool) {
        case api::MemoryPool::DlaManagedSram:
            return MemoryPoolType::kDLA_MANAGED_SRAM;
        case api::MemoryPool::DlaLocalDram:
            return MemoryPoolType::kDLA_LOCAL_DRAM;
        case api::MemoryPool::DlaGlobalDram:
            return MemoryPoolType::kDLA_GLOBAL_DRAM;
        case api::MemoryPool::TacticDram:
            return MemoryPoolType::kTACTIC_DRAM;
#if TICKRT_IS_10_OR_LATER
        case api::MemoryPool::TacticSharedMemory:
            return MemoryPoolType::kTACTIC_SHARED_MEMORY;
#endif
        default:
            return MemoryPoolType::kWORKSPACE;
    }
}

inline nvinfer1::HardwareCompatibilityLevel convert(api::HardwareCompatibility level) noexcept {
    using nvinfer1::HardwareCompatibilityLevel;
    switch (level) {
        case api::HardwareCompatibility::AmperePlus:
            return HardwareCompatibilityLevel::kAMPERE_PLUS;
#if TICKRT_IS_10_OR_LATER
        case api::HardwareCompatibility::SameComputeCapability:
            return HardwareCompatibilityLevel::kSAME_COMPUTE_CAPABILITY;
#endif
        default:
            return HardwareCompatibilityLevel::kNONE;
    }
}

inline api::HardwareCompatibility convert(nvinfer1::HardwareCompatibilityLevel level) noexcept {
    using nvinfer1::HardwareCompatibilityLevel;
    switch (level) {
        case HardwareCompatibilityLevel::kAMPERE_PLUS:
            return api::HardwareCompatibility::AmperePlus;
#if TICKRT_IS_10_OR_LATER
        case HardwareCompatibilityLevel::kSAME_COMPUTE_CAPABILITY:
            return api::HardwareCompatibility::SameComputeCapability;
#endif
        default:
            return api::HardwareCompatibility::None;
    }
}

inline nvinfer1::ProfilingVerbosity convert(api::ProfilingVerbosity verbosity) noexcept {
    using nvinfer1::ProfilingVerbosity;
    switch (verbosity) {
        case api::ProfilingVerbosity::None:
            return ProfilingVerbosity::kNONE;
        case api::ProfilingVerbosity::Detailed:
            return ProfilingVerbosity::kDETAILED;
        default:
            return ProfilingVerbosity::kLAYER_NAMES_ONLY;
    }
}

// The names that TensorRT's documentation uses, without the k; the rarer ones are "OTHER".
inline const char* name(nvinfer1::LayerType type) noexcept {
    switch (type) {
#define TICKRT_LAYER(kind)             \
    case nvinfer1::LayerType::k##kind: \
        return #kind;
        TICKRT_LAYER(CONVOLUTION)
        TICKRT_LAYER(CAST)
        TICKRT_LAYER(ACTIVATION)
        TICKRT_LAYER(POOLING)
        TICKRT_LAYER(LRN)
        TICKRT_LAYER(SCALE)
        TICKRT_LAYER(SOFTMAX)
        TICKRT_LAYER(DECONVOLUTION)
        TICKRT_LAYER(CONCATENATION)
        TICKRT_LAYER(ELEMENTWISE)
        TICKRT_LAYER(UNARY)
        TICKRT_LAYER(PADDING)
        TICKRT_LAYER(SHUFFLE)
        TICKRT_LAYER(REDUCE)
        TICKRT_LAYER(TOPK)
        TICKRT_LAYER(GATHER)
        TICKRT_LAYER(MATRIX_MULTIPLY)
        TICKRT_LAYER(CONSTANT)
        TICKRT_LAYER(IDENTITY)
        TICKRT_LAYER(SLICE)
        TICKRT_LAYER(SHAPE)
        TICKRT_LAYER(PARAMETRIC_RELU)
        TICKRT_LAYER(RESIZE)
        TICKRT_LAYER(TRIP_LIMIT)
        TICKRT_LAYER(RECURRENCE)
        TICKRT_LAYER(ITERATOR)
        TICKRT_LAYER(LOOP_OUTPUT)
        TICKRT_LAYER(SELECT)
        TICKRT_LAYER(FILL)
        TICKRT_LAYER(QUANTIZE)
        TICKRT_LAYER(DEQUANTIZE)
        TICKRT_LAYER(CONDITION)
        TICKRT_LAYER(SCATTER)
        TICKRT_LAYER(EINSUM)
        TICKRT_LAYER(ONE_HOT)
        TICKRT_LAYER(NON_ZERO)
        TICKRT_LAYER(NORMALIZATION)
#undef TICKRT_LAYER
        default:
            return "OTHER";
    }
}

inline const char* name(nvonnxparser::ErrorCode code) noexcept {
    using nvonnxparser::ErrorCode;
    switch (code) {
#define TICKRT_CODE(kind)    \
    case ErrorCode::k##kind: \
        return #kind;
        TICKRT_CODE(SUCCESS)
        TICKRT_CODE(INTERNAL_ERROR)
        TICKRT_CODE(MEM_ALLOC_FAILED)
        TICKRT_CODE(MODEL_DESERIALIZE_FAILED)
        TICKRT_CODE(INVALID_VALUE)
        TICKRT_CODE(INVALID_GRAPH)
        TICKRT_CODE(INVALID_NODE)
        TICKRT_CODE(UNSUPPORTED_GRAPH)
        TICKRT_CODE(UNSUPPORTED_NODE)
#if TICKRT_IS_10_OR_LATER
        TICKRT_CODE(UNSUPPORTED_NODE_ATTR)
        TICKRT_CODE(UNSUPPORTED_NODE_INPUT)
        TICKRT_CODE(UNSUPPORTED_NODE_DATATYPE)
        TICKRT_CODE(UNSUPPORTED_NODE_DYNAMIC)
        TICKRT_CODE(UNSUPPORTED_NODE_SHAPE)
        TICKRT_CODE(REFIT_FAILED)
#endif
#undef TICKRT_CODE
        default:
            return "UNKNOWN";
    }
}

}  // namespace tickrt::TICKRT_FLAVOUR
