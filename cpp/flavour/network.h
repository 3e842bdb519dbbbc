// Networks: parsed from ONNX or made by hand, checked against profiles, described.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "convert.h"
#include "logger.h"

namespace tickrt::TICKRT_FLAVOUR {

inline std::string or_empty(const char* text) {
    return text != nullptr ? text : "";
}

// ---- from ONNX -----------------------------------------------------------------------------------------------------

constexpr const char* kParserSoname =
#if TICKRT_RTX
    "libtensorrt_onnxparser_rtx.so.1";
#elif TICKRT_MAJOR == 8
    "libnvonnxparser.so.8";
#elif TICKRT_MAJOR == 10
    "libnvonnxparser.so.10";
#else
    "libnvonnxparser.so.11";
#endif

// What the parser's library needs beside libnvinfer itself.
constexpr const char* kPluginSoname =
#if TICKRT_RTX
    nullptr;
#elif TICKRT_MAJOR == 8
    "libnvinfer_plugin.so.8";
#elif TICKRT_MAJOR == 10
    "libnvinfer_plugin.so.10";
#else
    "libnvinfer_plugin.so.11";
#endif

inline api::ParserError describe(const nvonnxparser::IParserError& error) {
    api::ParserError to;
    to.code = name(error.code());
    to.description = or_empty(error.desc());
    to.node = error.node();
    to.file = or_empty(error.file());
    to.line = error.line();
    to.function = or_empty(error.func());
#if TICKRT_IS_10_OR_LATER
    to.node_name = or_empty(error.nodeName());
    to.operator_name = or_empty(error.nodeOperator());
#endif
    return to;
}

inline bool is_unsupported(const api::ParserError& error) {
    // An operator that the parser doesn't know is looked for among the plugins, and their absence is what it reports.
    return error.code.rfind("UNSUPPORTED_NODE", 0) == 0 ||
           error.description.find("lugin not found") != std::string::npos;
}

// The parser keeps weights that the network points to: it has to live until the build is done.
using Parser = Owned<nvonnxparser::IParser>;

inline Parser parse(const loader::Native& native, nvinfer1::INetworkDefinition& network, const api::Model& model,
                    const log::Capture& capture, api::BuildReply& reply) {
    std::string why;
    const loader::CreateParser create = native.create_parser(kParserSoname, kPluginSoname, why);
    if (create == nullptr) {
        reply.failure = failure(api::FailureKind::LibraryMissing, "open TensorRT's ONNX parser", why, kParserSoname,
                                "install it beside " + native.path);
        return nullptr;
    }
    Parser parser(static_cast<nvonnxparser::IParser*>(create(&network, &Logger::instance(), NV_ONNX_PARSER_VERSION)));
    if (parser == nullptr) {
        reply.failure = failure_with_log(api::FailureKind::Build, "create TensorRT's ONNX parser", "nothing came back",
                                         capture.lines());
        return nullptr;
    }
    const char* const path = model.path.empty() ? nullptr : model.path.c_str();
    if (parser->parse(model.onnx.data, model.onnx.size, path)) {
        return parser;
    }
    auto kind = api::FailureKind::Onnx;
    for (int32_t index = 0; index < parser->getNbErrors(); ++index) {
        reply.parser_errors.push_back(describe(*parser->getError(index)));
        if (is_unsupported(reply.parser_errors.back())) {
            kind = api::FailureKind::UnsupportedOperator;
        }
    }
    reply.failure = failure(kind, "parse the ONNX model", "the parser refused it");
    reply.failure.log = capture.lines();
    if (kind == api::FailureKind::UnsupportedOperator) {
        reply.failure.advice = "replace the operator in the model, or export it at another opset";
    }
    return nullptr;
}

// ---- by hand -------------------------------------------------------------------------------------------------------

// max(0, 2x - 1) for eight elements; src/builder.rs knows the answer.
inline bool make_smoke(nvinfer1::INetworkDefinition& network) {
    static const float kScale[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    static const float kShift[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    nvinfer1::Dims dims{};
    convert({1, 8}, dims);
    const auto constant = [&](const float* values) -> nvinfer1::ITensor* {
        auto* const layer = network.addConstant(dims, {nvinfer1::DataType::kFLOAT, values, 8});
        return layer != nullptr ? layer->getOutput(0) : nullptr;
    };
    const auto combine = [&](nvinfer1::ITensor* left, nvinfer1::ITensor* right,
                             nvinfer1::ElementWiseOperation operation) -> nvinfer1::ITensor* {
        if (left == nullptr || right == nullptr) {
            return nullptr;
        }
        auto* const layer = network.addElementWise(*left, *right, operation);
        return layer != nullptr ? layer->getOutput(0) : nullptr;
    };
    auto* const input = network.addInput("input", nvinfer1::DataType::kFLOAT, dims);
    auto* const scaled = combine(input, constant(kScale), nvinfer1::ElementWiseOperation::kPROD);
    auto* const shifted = combine(scaled, constant(kShift), nvinfer1::ElementWiseOperation::kSUM);
    if (shifted == nullptr) {
        return false;
    }
    auto* const relu = network.addActivation(*shifted, nvinfer1::ActivationType::kRELU);
    if (relu == nullptr) {
        return false;
    }
    relu->getOutput(0)->setName("output");
    network.markOutput(*relu->getOutput(0));
    return true;
}

// ---- profiles ------------------------------------------------------------------------------------------------------

inline bool is_dynamic(const nvinfer1::Dims& dims) noexcept {
    for (int32_t index = 0; index < dims.nbDims; ++index) {
        if (dims.d[index] < 0) {
            return true;
        }
    }
    return false;
}

inline const nvinfer1::ITensor* find_input(const nvinfer1::INetworkDefinition& network, const std::string& wanted) {
    for (int32_t index = 0; index < network.getNbInputs(); ++index) {
        if (wanted == network.getInput(index)->getName()) {
            return network.getInput(index);
        }
    }
    return nullptr;
}

inline std::string input_names(const nvinfer1::INetworkDefinition& network) {
    std::string names;
    for (int32_t index = 0; index < network.getNbInputs(); ++index) {
        names += (names.empty() ? "`" : ", `") + or_empty(network.getInput(index)->getName()) + "`";
    }
    return names;
}

inline bool fits(const std::vector<int64_t>& shape, const std::vector<int64_t>& network) noexcept {
    if (shape.size() != network.size()) {
        return false;
    }
    for (std::size_t index = 0; index < shape.size(); ++index) {
        if (network[index] >= 0 && shape[index] != network[index]) {
            return false;
        }
    }
    return true;
}

inline api::Failure check_range(const nvinfer1::INetworkDefinition& network, const api::ShapeRange& range) {
    const std::string operation = "set the optimization profile of `" + range.tensor + "`";
    const nvinfer1::ITensor* const input = find_input(network, range.tensor);
    if (input == nullptr) {
        return failure(api::FailureKind::InvalidArgument, operation, "no such input",
                       "one of the network's inputs: " + input_names(network));
    }
    if (input->isShapeTensor()) {
        return failure(api::FailureKind::Unsupported, operation, "a shape tensor, whose values would be needed", "",
                       "fold it into the model as a constant");
    }
    const std::vector<int64_t> shape = convert(input->getDimensions());
    for (const auto* candidate : {&range.min, &range.opt, &range.max}) {
        if (!fits(*candidate, shape)) {
            return failure(api::FailureKind::Shape, operation, shown(*candidate),
                           shown(shape) + " with any size where it says -1");
        }
    }
    return {};
}

inline api::Failure check_profile(const nvinfer1::INetworkDefinition& network, const api::Profile& profile) {
    for (const api::ShapeRange& range : profile) {
        if (api::Failure refused = check_range(network, range)) {
            return refused;
        }
    }
    for (int32_t index = 0; index < network.getNbInputs(); ++index) {
        const nvinfer1::ITensor& input = *network.getInput(index);
        const std::string wanted = or_empty(input.getName());
        bool is_there = false;
        for (const api::ShapeRange& range : profile) {
            is_there = is_there || range.tensor == wanted;
        }
        if (is_dynamic(input.getDimensions()) && !is_there) {
            return failure(api::FailureKind::Shape, "set the optimization profile", "none for input `" + wanted + "`",
                           "min, opt and max for its shape " + shown(convert(input.getDimensions())),
                           "add a profile (--minShapes --optShapes --maxShapes)");
        }
    }
    return {};
}

inline api::Failure add_profile(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                                const nvinfer1::INetworkDefinition& network, const api::Profile& profile,
                                const log::Capture& capture) {
    if (api::Failure refused = check_profile(network, profile)) {
        return refused;
    }
    if (profile.empty()) {
        return {};
    }
    using nvinfer1::OptProfileSelector;
    nvinfer1::IOptimizationProfile* const native = builder.createOptimizationProfile();  // the builder's own
    for (const api::ShapeRange& range : profile) {
        nvinfer1::Dims min{}, opt{}, max{};
        const char* const tensor = range.tensor.c_str();
        const bool taken = convert(range.min, min) && convert(range.opt, opt) && convert(range.max, max) &&
                           native->setDimensions(tensor, OptProfileSelector::kMIN, min) &&
                           native->setDimensions(tensor, OptProfileSelector::kOPT, opt) &&
                           native->setDimensions(tensor, OptProfileSelector::kMAX, max);
        if (!taken) {
            return failure_with_log(api::FailureKind::Shape, "set the optimization profile of `" + range.tensor + "`",
                                    "TensorRT refused it", capture.lines());
        }
    }
    if (config.addOptimizationProfile(native) < 0) {
        return failure_with_log(api::FailureKind::Shape, "add an optimization profile", "TensorRT refused it",
                                capture.lines());
    }
    return {};
}

// ---- descriptions --------------------------------------------------------------------------------------------------

inline api::Tensor describe(const nvinfer1::ITensor& tensor, bool is_input) {
    api::Tensor to;
    to.name = or_empty(tensor.getName());
    to.is_input = is_input;
    to.element = convert(tensor.getType());
    to.shape = convert(tensor.getDimensions());
    to.on_host = tensor.isShapeTensor();
    return to;
}

inline void describe(const nvinfer1::INetworkDefinition& network, api::BuildReply& reply) {
    for (int32_t index = 0; index < network.getNbInputs(); ++index) {
        reply.tensors.push_back(describe(*network.getInput(index), true));
    }
    for (int32_t index = 0; index < network.getNbOutputs(); ++index) {
        reply.tensors.push_back(describe(*network.getOutput(index), false));
    }
    std::string json = "[";
    for (int32_t index = 0; index < network.getNbLayers(); ++index) {
        const nvinfer1::ILayer& layer = *network.getLayer(index);
        json += (index == 0 ? "" : ",") + std::string("{\"index\":") + std::to_string(index) +
                ",\"name\":" + json_string(or_empty(layer.getName())) +
                ",\"type\":" + json_string(name(layer.getType())) + ",\"precision\":" +
                json_string(layer.getNbOutputs() > 0 ? name(convert(layer.getOutput(0)->getType())) : "") + "}";
        const auto type = layer.getType();
        reply.has_quantized =
            reply.has_quantized || type == nvinfer1::LayerType::kQUANTIZE || type == nvinfer1::LayerType::kDEQUANTIZE;
        for (int32_t output = 0; output < layer.getNbOutputs(); ++output) {
            const api::ElementType element = convert(layer.getOutput(output)->getType());
            reply.has_half = reply.has_half || element == api::ElementType::F16;
            reply.has_bfloat = reply.has_bfloat || element == api::ElementType::Bf16;
        }
    }
    reply.layers_json = json + "]";
}

}  // namespace tickrt::TICKRT_FLAVOUR
