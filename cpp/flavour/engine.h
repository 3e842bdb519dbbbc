// Engines and their contexts.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "convert.h"
#include "logger.h"
#include "network.h"

namespace tickrt::TICKRT_FLAVOUR {

// Members in the order that keeps what the next one needs: destroyed from the bottom.
struct EngineParts {
    std::shared_ptr<const loader::Native> native;
    Owned<nvinfer1::IRuntime> runtime;
    Owned<nvinfer1::ICudaEngine> engine;
};

// Collects what each layer took, on the thread that enqueues.
class LayerClock final : public nvinfer1::IProfiler {
  public:
    void reportLayerTime(const char* name, float ms) noexcept override {
        try {
            times_.push_back({or_empty(name), ms});
        } catch (...) {
            // Out of memory: the layer is left out.
        }
    }

    std::vector<api::LayerTime> take() noexcept { return std::exchange(times_, {}); }

  private:
    std::vector<api::LayerTime> times_;
};

class Context final : public api::Context {
  public:
    Context(std::shared_ptr<const EngineParts> parts, Owned<nvinfer1::IExecutionContext> context)
        : parts_(std::move(parts)), context_(std::move(context)) {}

    void set_device_memory(std::size_t address, [[maybe_unused]] uint64_t bytes) noexcept override {
        const log::ThreadScope scope(capture_);
        void* const memory = reinterpret_cast<void*>(address);
#if TICKRT_IS_10_OR_LATER
        if (TICKRT_RTX || at_least(parts_->native->version, 10, 1)) {
            context_->setDeviceMemoryV2(memory, static_cast<int64_t>(bytes));
            return;
        }
#endif
        context_->setDeviceMemory(memory);
    }

    api::Failure set_input_shape(const std::string& tensor, const std::vector<int64_t>& shape) override {
        const log::ThreadScope scope(capture_);
        nvinfer1::Dims dims{};
        if (convert(shape, dims) && context_->setInputShape(tensor.c_str(), dims)) {
            return {};
        }
        api::Failure refused = failure(api::FailureKind::Shape, "set the shape of input `" + tensor + "`", shown(shape),
                                       expected_shape(tensor));
        refused.advice = "keep to the optimization profile, or build again with a wider one";
        refused.log = capture_.take();
        return refused;
    }

    std::vector<int64_t> tensor_shape(const std::string& tensor) const override {
        return convert(context_->getTensorShape(tensor.c_str()));
    }

    api::Failure set_tensor_address(const std::string& tensor, std::size_t address) override {
        const log::ThreadScope scope(capture_);
        if (context_->setTensorAddress(tensor.c_str(), reinterpret_cast<void*>(address))) {
            return {};
        }
        api::Failure refused = failure(api::FailureKind::InvalidArgument, "set the address of tensor `" + tensor + "`",
                                       "TensorRT refused it");
        refused.log = capture_.take();
        return refused;
    }

    // Not allInputDimensionsSpecified(): in 8.6 it does not see what setInputShape() sets.
    bool all_shapes_specified() noexcept override {
        const log::ThreadScope scope(capture_);
        return context_->inferShapes(0, nullptr) == 0;
    }

    std::vector<std::string> take_log() override {
        return capture_.take();
    }

    void profile_layers() noexcept override {
        context_->setProfiler(&clock_);
    }

    std::vector<api::LayerTime> take_layer_times() override {
        return clock_.take();
    }

    bool enqueue(std::size_t stream) noexcept override {
        const log::ThreadScope scope(capture_);
        return context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream));
    }

  private:
    std::string expected_shape(const std::string& tensor) const {
        using nvinfer1::OptProfileSelector;
        const int32_t profile = context_->getOptimizationProfile();
        const auto limit = [&](OptProfileSelector which) {
            return shown(convert(parts_->engine->getProfileShape(tensor.c_str(), profile, which)));
        };
        return limit(OptProfileSelector::kMIN) + " to " + limit(OptProfileSelector::kMAX);
    }

    const std::shared_ptr<const EngineParts> parts_;
    log::Capture capture_;
    LayerClock clock_;  // before the context, which points at it
    const Owned<nvinfer1::IExecutionContext> context_;
};

class Engine final : public api::Engine {
  public:
    explicit Engine(std::shared_ptr<const EngineParts> parts) : parts_(std::move(parts)) {}

    api::EngineFacts facts() const override {
        const nvinfer1::ICudaEngine& engine = *parts_->engine;
        api::EngineFacts facts;
        facts.name = or_empty(engine.getName());
        for (int32_t index = 0; index < engine.getNbIOTensors(); ++index) {
            facts.tensors.push_back(tensor(engine.getIOTensorName(index)));
        }
        for (int32_t index = 0; index < engine.getNbOptimizationProfiles(); ++index) {
            facts.profiles.push_back(profile(index));
        }
        facts.layers = static_cast<uint32_t>(engine.getNbLayers());
        facts.device_memory_bytes = device_memory_bytes();
        facts.aux_streams = static_cast<uint32_t>(engine.getNbAuxStreams());
        facts.hardware_compatibility = convert(engine.getHardwareCompatibilityLevel());
        facts.refittable = engine.isRefittable();
        return facts;
    }

    std::string layers_json() const override {
        const Owned<nvinfer1::IEngineInspector> inspector(parts_->engine->createEngineInspector());
        return inspector != nullptr ? or_empty(inspector->getEngineInformation(nvinfer1::LayerInformationFormat::kJSON))
                                    : "";
    }

    api::ContextReply create_context(uint32_t profile, std::size_t stream, bool caller_gives_memory) const override {
        api::ContextReply reply;
        log::Capture capture;
        const log::SharedScope scope(capture);
        const auto profiles = static_cast<uint32_t>(parts_->engine->getNbOptimizationProfiles());
        if (profile >= profiles) {
            reply.failure =
                failure(api::FailureKind::InvalidArgument, "create an execution context",
                        "profile " + std::to_string(profile), "a profile of 0.." + std::to_string(profiles));
            return reply;
        }
        Owned<nvinfer1::IExecutionContext> context(create(caller_gives_memory));
        if (context == nullptr) {
            reply.failure = failure_with_log(api::FailureKind::Execution, "create an execution context",
                                             "nothing came back", capture.lines());
            return reply;
        }
        // The first context has profile 0 already; in TensorRT 8.6 later ones may have none.
        const auto wanted = static_cast<int32_t>(profile);
        if (context->getOptimizationProfile() != wanted &&
            !context->setOptimizationProfileAsync(wanted, reinterpret_cast<cudaStream_t>(stream))) {
            reply.failure = failure_with_log(api::FailureKind::Execution, "choose an optimization profile",
                                             "TensorRT refused profile " + std::to_string(profile), capture.lines());
            return reply;
        }
        reply.context = std::make_unique<Context>(parts_, std::move(context));
        return reply;
    }

  private:
    api::Tensor tensor(const char* name) const {
        const nvinfer1::ICudaEngine& engine = *parts_->engine;
        api::Tensor to;
        to.name = or_empty(name);
        to.is_input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
        to.element = convert(engine.getTensorDataType(name));
        to.shape = convert(engine.getTensorShape(name));
        to.on_host = engine.getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
        if (engine.getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR) {
            to.layout = or_empty(engine.getTensorFormatDesc(name));
        }
        return to;
    }

    api::Profile profile(int32_t index) const {
        using nvinfer1::OptProfileSelector;
        const nvinfer1::ICudaEngine& engine = *parts_->engine;
        api::Profile ranges;
        for (int32_t place = 0; place < engine.getNbIOTensors(); ++place) {
            const char* const name = engine.getIOTensorName(place);
            if (engine.getTensorIOMode(name) != nvinfer1::TensorIOMode::kINPUT) {
                continue;
            }
            const auto limit = [&](OptProfileSelector which) {
                return convert(engine.getProfileShape(name, index, which));
            };
            ranges.push_back({or_empty(name), limit(OptProfileSelector::kMIN), limit(OptProfileSelector::kOPT),
                              limit(OptProfileSelector::kMAX)});
        }
        return ranges;
    }

    uint64_t device_memory_bytes() const noexcept {
#if TICKRT_RTX || TICKRT_MAJOR >= 11
        return static_cast<uint64_t>(parts_->engine->getDeviceMemorySizeV2());
#elif TICKRT_MAJOR == 10
        return at_least(parts_->native->version, 10, 1) ? static_cast<uint64_t>(parts_->engine->getDeviceMemorySizeV2())
                                                        : parts_->engine->getDeviceMemorySize();
#else
        return parts_->engine->getDeviceMemorySize();
#endif
    }

    nvinfer1::IExecutionContext* create(bool caller_gives_memory) const noexcept {
#if TICKRT_IS_10_OR_LATER
        using nvinfer1::ExecutionContextAllocationStrategy;
        return parts_->engine->createExecutionContext(caller_gives_memory
                                                          ? ExecutionContextAllocationStrategy::kUSER_MANAGED
                                                          : ExecutionContextAllocationStrategy::kSTATIC);
#else
        return caller_gives_memory ? parts_->engine->createExecutionContextWithoutDeviceMemory()
                                   : parts_->engine->createExecutionContext();
#endif
    }

    const std::shared_ptr<const EngineParts> parts_;
};

inline api::EngineReply deserialize(std::shared_ptr<const loader::Native> native, api::Bytes plan,
                                    bool allow_host_code) {
    api::EngineReply reply;
    log::Capture capture;
    const log::SharedScope scope(capture);
    const auto parts = std::make_shared<EngineParts>();
    const loader::Create create = native->create_runtime();
    if (create == nullptr) {
        reply.failure = lacks(*native, "createInferRuntime_INTERNAL");
        return reply;
    }
    parts->native = std::move(native);
    parts->runtime.reset(static_cast<nvinfer1::IRuntime*>(create(&Logger::instance(), NV_TENSORRT_VERSION)));
    if (parts->runtime == nullptr) {
        reply.failure = failure_with_log(api::FailureKind::Execution, "create TensorRT's runtime", "nothing came back",
                                         capture.lines());
        return reply;
    }
    parts->runtime->setEngineHostCodeAllowed(allow_host_code);
    parts->engine.reset(parts->runtime->deserializeCudaEngine(plan.data, plan.size));
    if (parts->engine == nullptr) {
        reply.failure =
            failure_with_log(api::FailureKind::PlanRefused, "load a plan", "TensorRT refused it", capture.lines());
        return reply;
    }
    reply.engine = std::make_shared<Engine>(parts);
    return reply;
}

}  // namespace tickrt::TICKRT_FLAVOUR
