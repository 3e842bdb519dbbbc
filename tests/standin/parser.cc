// Stands in for libnvonnxparser: every model is one ReLU of a dynamic input.

#include "tensorrt.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace nvonnxparser;
using standin::note;
using standin::nothing;

#include "noted.inc"

class Error final : public NotedIParserError {
  public:
    nvonnxparser::ErrorCode code() const noexcept override { return nvonnxparser::ErrorCode::kUNSUPPORTED_NODE; }
    char const* desc() const noexcept override { return "standin: no importer for operator Frobnicate"; }
    char const* file() const noexcept override { return "importer.cpp"; }
    int line() const noexcept override { return 42; }
    char const* func() const noexcept override { return "importNode"; }
    int node() const noexcept override { return 7; }
#if !STANDIN_IS_8
    char const* nodeName() const noexcept override { return "frobnicate_1"; }
    char const* nodeOperator() const noexcept override { return "Frobnicate"; }
#endif
};

class Parser final : public NotedIParser {
  public:
    explicit Parser(nvinfer1::INetworkDefinition& network) : network_(network) {}
    bool parse(void const*, size_t bytes, char const* path) noexcept override {
        note("Parser.parse " + std::to_string(bytes) + " " + standin::text(path));
        if (standin::is_to_fail("parse")) {
            return false;
        }
        nvinfer1::Dims dims{};
        dims.nbDims = 2;
        dims.d[0] = -1;
        dims.d[1] = 4;
        auto* const input = network_.addInput("input", nvinfer1::DataType::kFLOAT, dims);
        auto* const output = network_.addActivation(*input, nvinfer1::ActivationType::kRELU)->getOutput(0);
        output->setName("output");
        network_.markOutput(*output);
        return true;
    }
    int getNbErrors() const noexcept override { return 1; }
    nvonnxparser::IParserError const* getError(int) const noexcept override { return &error_; }

  private:
    nvinfer1::INetworkDefinition& network_;
    Error error_;
};

}  // namespace

EXPORT void* createNvOnnxParser_INTERNAL(void* network, void*, int version)
#if !STANDIN_IS_8
    noexcept
#endif
{
    note(version == NV_ONNX_PARSER_VERSION ? "createNvOnnxParser of the headers' version" : "createNvOnnxParser of another version");
    return static_cast<nvonnxparser::IParser*>(new Parser(*static_cast<nvinfer1::INetworkDefinition*>(network)));
}
