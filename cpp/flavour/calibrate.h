// INT8 calibration by TensorRT itself: through 10.16; 11 and RTX take ranges from the model alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "network.h"

namespace tickrt::TICKRT_FLAVOUR {

#if TICKRT_HAS_PRECISION_FLAGS

// The five functions that all kinds of calibrator have, over the batches that Rust gives. TensorRT calls them on the
// thread that builds.
template <typename Base>
class FedCalibrator : public Base {
  public:
    explicit FedCalibrator(const api::Calibrator& source) : source_(source), cache_(source.cache()) {}

    // Networks have an explicit batch dimension: a batch is whatever shape the inputs have.
    int32_t getBatchSize() const noexcept override { return 1; }

    bool getBatch(void* bindings[], char const* names[], int32_t count) noexcept override {
        if (!source_.next()) {
            return false;
        }
        for (int32_t index = 0; index < count; ++index) {
            const std::size_t address = source_.address(names[index]);
            if (address == 0) {
                return false;
            }
            bindings[index] = reinterpret_cast<void*>(address);
        }
        return true;
    }

    void const* readCalibrationCache(std::size_t& length) noexcept override {
        length = cache_.size();
        return cache_.empty() ? nullptr : cache_.data();
    }

    void writeCalibrationCache(void const* bytes, std::size_t length) noexcept override {
        source_.keep_cache({static_cast<const uint8_t*>(bytes), length});
    }

  private:
    const api::Calibrator& source_;
    const std::vector<uint8_t> cache_;
};

// Cuts a share of the values off. Its histograms are kept by nobody: a calibration that is to be used again is kept whole.
class PercentileCalibrator final : public FedCalibrator<nvinfer1::IInt8LegacyCalibrator> {
  public:
    PercentileCalibrator(const api::Calibrator& source, double quantile) : FedCalibrator(source), quantile_(quantile) {}

    double getQuantile() const noexcept override { return quantile_; }
    double getRegressionCutoff() const noexcept override { return 1.0; }
    void const* readHistogramCache(std::size_t& length) noexcept override {
        length = 0;
        return nullptr;
    }
    void writeHistogramCache(void const*, std::size_t) noexcept override {}

  private:
    const double quantile_;
};

using Calibrator = std::unique_ptr<nvinfer1::IInt8Calibrator>;

// The configuration points to the calibrator: it has to live until the build is done.
inline Calibrator set_calibrator(nvinfer1::IBuilderConfig& config, const api::BuildOptions& options,
                                 const api::Calibrator& source) {
    Calibrator calibrator;
    switch (options.calibration) {
        case api::CalibrationAlgorithm::Entropy:
            calibrator = std::make_unique<FedCalibrator<nvinfer1::IInt8EntropyCalibrator2>>(source);
            break;
        case api::CalibrationAlgorithm::MinMax:
            calibrator = std::make_unique<FedCalibrator<nvinfer1::IInt8MinMaxCalibrator>>(source);
            break;
        case api::CalibrationAlgorithm::Percentile:
            calibrator = std::make_unique<PercentileCalibrator>(source, options.calibration_quantile);
            // The others do so always: ranges then belong to the model's tensors, and not to what fusion leaves.
            config.setQuantizationFlag(nvinfer1::QuantizationFlag::kCALIBRATE_BEFORE_FUSION);
            break;
        default:
            return nullptr;
    }
    config.setInt8Calibrator(calibrator.get());
    return calibrator;
}

// A dynamic network is calibrated with one shape, which is a profile of its own.
inline api::Failure set_calibration_shapes(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                                           const api::BuildOptions& options) {
    if (options.calibration == api::CalibrationAlgorithm::None || options.calibration_shapes.empty()) {
        return {};
    }
    using nvinfer1::OptProfileSelector;
    nvinfer1::IOptimizationProfile* const native = builder.createOptimizationProfile();  // the builder's own
    bool taken = native != nullptr;
    for (const api::ShapeRange& range : options.calibration_shapes) {
        nvinfer1::Dims dims{};
        taken = taken && convert(range.opt, dims);
        for (const auto selector : {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX}) {
            taken = taken && native->setDimensions(range.tensor.c_str(), selector, dims);
        }
    }
    if (taken && config.setCalibrationProfile(native)) {
        return {};
    }
    return failure(api::FailureKind::Shape, "set the shapes of a calibration batch", "TensorRT refused them");
}

// Whether a layer is one that the parser made from a node: it has the node's name, or that with a number behind it, which
// the parser adds for a second layer. (A node that is named so itself stays in FP32, too: too much rather than too little.)
inline bool is_of_node(const std::string& layer, const std::string& node) noexcept {
    if (layer.compare(0, node.size(), node) != 0) {
        return false;
    }
    if (layer.size() == node.size()) {
        return true;
    }
    const std::size_t digits = node.size() + 1;
    return layer[node.size()] == '_' && layer.size() > digits &&
           layer.find_first_not_of("0123456789", digits) == std::string::npos;
}

inline bool is_float(nvinfer1::DataType type) noexcept {
    return type == nvinfer1::DataType::kFLOAT || type == nvinfer1::DataType::kHALF;
}

// Has the layers of some nodes compute in FP32. Layers without floating-point outputs (shapes, constants' indices) stay.
inline void keep_in_fp32(nvinfer1::INetworkDefinition& network, const api::BuildOptions& options,
                         api::BuildReply& reply) {
    for (const std::string& node : options.keep_fp32) {
        bool is_there = false;
        for (int32_t index = 0; index < network.getNbLayers(); ++index) {
            nvinfer1::ILayer& layer = *network.getLayer(index);
            if (!is_of_node(or_empty(layer.getName()), node)) {
                continue;
            }
            is_there = true;
            if (layer.getType() == nvinfer1::LayerType::kCONSTANT || layer.getType() == nvinfer1::LayerType::kSHAPE) {
                continue;
            }
            bool computes_floats = layer.getNbOutputs() > 0;
            for (int32_t output = 0; output < layer.getNbOutputs(); ++output) {
                computes_floats = computes_floats && is_float(layer.getOutput(output)->getType());
            }
            if (!computes_floats) {
                continue;
            }
            layer.setPrecision(nvinfer1::DataType::kFLOAT);
            for (int32_t output = 0; output < layer.getNbOutputs(); ++output) {
                layer.setOutputType(output, nvinfer1::DataType::kFLOAT);
            }
        }
        if (!is_there && !options.strongly_typed) {
            reply.failure = failure(api::FailureKind::Unsupported, "keep node `" + node + "` in FP32",
                                    "none of that name", "a layer that the parser made from it",
                                    "give the node a name in the model, or lower the model (--int8-mode=qdq)");
            return;
        }
    }
}

#endif

}  // namespace tickrt::TICKRT_FLAVOUR
