// Stands in for libnvinfer: the same factories and classes, compiled from the same headers, that write down what is asked of
// them and compute nothing. Every function that is not written out below notes itself with a question mark.

#include "tensorrt.h"

#include <cstring>
#include <memory>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace nvinfer1;
using standin::is_to_fail;
using standin::note;
using standin::nothing;
using standin::text;

#include "noted.inc"

ILogger* g_logger = nullptr;

void log_error(char const* line) {
    g_logger->log(ILogger::Severity::kERROR, line);
}

std::string number(int64_t value) {
    return std::to_string(value);
}

// ---- numbers that differ from major to major, by name --------------------------------------------------------------

std::string name(BuilderFlag flag) {
    switch (flag) {
        case BuilderFlag::kTF32: return "TF32";
#if STANDIN_HAS_FLAGS
        case BuilderFlag::kFP16: return "FP16";
        case BuilderFlag::kINT8: return "INT8";
        case BuilderFlag::kPREFER_PRECISION_CONSTRAINTS: return "PREFER_PRECISION_CONSTRAINTS";
        case BuilderFlag::kOBEY_PRECISION_CONSTRAINTS: return "OBEY_PRECISION_CONSTRAINTS";
#if !STANDIN_IS_8
        case BuilderFlag::kBF16: return "BF16";
        case BuilderFlag::kFP8: return "FP8";
#endif
#endif
        case BuilderFlag::kVERSION_COMPATIBLE: return "VERSION_COMPATIBLE";
        default: return "flag " + number(static_cast<int64_t>(flag));
    }
}

std::string name(MemoryPoolType pool) {
    switch (pool) {
        case MemoryPoolType::kWORKSPACE: return "WORKSPACE";
        case MemoryPoolType::kDLA_MANAGED_SRAM: return "DLA_MANAGED_SRAM";
        case MemoryPoolType::kDLA_LOCAL_DRAM: return "DLA_LOCAL_DRAM";
        case MemoryPoolType::kDLA_GLOBAL_DRAM: return "DLA_GLOBAL_DRAM";
        case MemoryPoolType::kTACTIC_DRAM: return "TACTIC_DRAM";
#if !STANDIN_IS_8
        case MemoryPoolType::kTACTIC_SHARED_MEMORY: return "TACTIC_SHARED_MEMORY";
#endif
        default: return "pool " + number(static_cast<int64_t>(pool));
    }
}

std::string name(OptProfileSelector selector) {
    switch (selector) {
        case OptProfileSelector::kMIN: return "MIN";
        case OptProfileSelector::kOPT: return "OPT";
        default: return "MAX";
    }
}

std::string name(ProfilingVerbosity verbosity) {
    switch (verbosity) {
        case ProfilingVerbosity::kNONE: return "NONE";
        case ProfilingVerbosity::kDETAILED: return "DETAILED";
        default: return "LAYER_NAMES_ONLY";
    }
}

std::string name(HardwareCompatibilityLevel level) {
    switch (level) {
        case HardwareCompatibilityLevel::kNONE: return "NONE";
        case HardwareCompatibilityLevel::kAMPERE_PLUS: return "AMPERE_PLUS";
#if !STANDIN_IS_8
        case HardwareCompatibilityLevel::kSAME_COMPUTE_CAPABILITY: return "SAME_COMPUTE_CAPABILITY";
#endif
        default: return "level " + number(static_cast<int64_t>(level));
    }
}

std::string name(DataType type) {
    switch (type) {
        case DataType::kFLOAT: return "FLOAT";
        case DataType::kHALF: return "HALF";
        default: return "type " + number(static_cast<int64_t>(type));
    }
}

// ---- memory --------------------------------------------------------------------------------------------------------

class HostMemory final : public IHostMemory, public NotedVHostMemory {
  public:
    explicit HostMemory(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) { mImpl = this; }
    void* data() const noexcept override { return const_cast<uint8_t*>(bytes_.data()); }
    std::size_t size() const noexcept override { return bytes_.size(); }

  private:
    std::vector<uint8_t> bytes_;
};

// A plan's header, as real ones have it, and a few bytes.
std::vector<uint8_t> plan() {
    std::vector<uint8_t> bytes(64, 0);
    std::memcpy(bytes.data(), STANDIN_RTX ? "vtrt" : "ftrt", 4);
    uint64_t const length = bytes.size();
    std::memcpy(bytes.data() + 16, &length, sizeof length);
    bytes[24] = NV_TENSORRT_MAJOR;
    bytes[25] = NV_TENSORRT_MINOR;
    bytes[26] = NV_TENSORRT_PATCH;
    return bytes;
}

class TimingCache final : public ITimingCache, public NotedVTimingCache {
  public:
    TimingCache() { mImpl = this; }
    IHostMemory* serialize() const noexcept override {
        note("TimingCache.serialize");
        return new HostMemory({'c', 'a', 'c', 'h', 'e'});
    }
};

// ---- the network ---------------------------------------------------------------------------------------------------

class Tensor final : public ITensor, public NotedVTensor {
  public:
    Tensor(std::string name, DataType type, Dims dims) : name_(std::move(name)), type_(type), dims_(dims) { mImpl = this; }
    void setName(char const* name) noexcept override { name_ = name; }
    char const* getName() const noexcept override { return name_.c_str(); }
    Dims getDimensions() const noexcept override { return dims_; }
    DataType getType() const noexcept override { return type_; }
    bool isShapeTensor() const noexcept override { return false; }

  private:
    std::string name_;
    DataType const type_;
    Dims const dims_;
};

// One output of its first input's type and shape.
template <typename Interface, typename Noted, LayerType kType>
class Layer final : public Interface, public Noted, public NotedVLayer {
  public:
    Layer(std::string name, DataType type, Dims dims) : name_(std::move(name)), output_(name_ + "_output", type, dims) {
        this->mImpl = this;
        this->mLayer = this;
    }
    LayerType getType() const noexcept override { return kType; }
    void setName(char const* name) noexcept override { name_ = name; }
    char const* getName() const noexcept override { return name_.c_str(); }
    int32_t getNbOutputs() const noexcept override { return 1; }
    ITensor* getOutput(int32_t) const noexcept override { return const_cast<Tensor*>(&output_); }
#if STANDIN_HAS_FLAGS
    void setPrecision(DataType type) noexcept override { note(name_ + ".setPrecision " + name(type)); }
    void setOutputType(int32_t index, DataType type) noexcept override {
        note(name_ + ".setOutputType " + number(index) + " " + name(type));
    }
#endif

  private:
    std::string name_;
    Tensor output_;
};

using ConstantLayer = Layer<IConstantLayer, NotedVConstantLayer, LayerType::kCONSTANT>;
using ElementWiseLayer = Layer<IElementWiseLayer, NotedVElementWiseLayer, LayerType::kELEMENTWISE>;
using ActivationLayer = Layer<IActivationLayer, NotedVActivationLayer, LayerType::kACTIVATION>;

class Network final : public INetworkDefinition, public NotedVNetworkDefinition {
  public:
    Network() { mImpl = this; }
    void setName(char const* name) noexcept override { note("Network.setName " + text(name)); }
    ITensor* addInput(char const* name, DataType type, DimsArgument dims) noexcept override {
        inputs_.push_back(std::make_unique<Tensor>(name, type, dims));
        return inputs_.back().get();
    }
    void markOutput(ITensor& tensor) noexcept override { outputs_.push_back(&tensor); }
    IConstantLayer* addConstant(DimsArgument dims, Weights weights) noexcept override {
        return add<ConstantLayer>("constant", weights.type, dims);
    }
    IElementWiseLayer* addElementWise(ITensor& left, ITensor&, ElementWiseOperation) noexcept override {
        return add<ElementWiseLayer>("elementwise", left.getType(), left.getDimensions());
    }
    IActivationLayer* addActivation(ITensor& input, ActivationType) noexcept override {
        return add<ActivationLayer>("relu", input.getType(), input.getDimensions());
    }
    int32_t getNbInputs() const noexcept override { return static_cast<int32_t>(inputs_.size()); }
    ITensor* getInput(int32_t index) const noexcept override { return inputs_[index].get(); }
    int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(outputs_.size()); }
    ITensor* getOutput(int32_t index) const noexcept override { return outputs_[index]; }
    int32_t getNbLayers() const noexcept override { return static_cast<int32_t>(layers_.size()); }
    ILayer* getLayer(int32_t index) const noexcept override { return layers_[index]; }

  private:
    template <typename Made>
    Made* add(char const* name, DataType type, Dims dims) {
        auto made = std::make_shared<Made>(name, type, dims);
        layers_.push_back(made.get());
        kept_.push_back(made);
        return made.get();
    }

    std::vector<std::unique_ptr<Tensor>> inputs_;
    // Of several classes; layers_ has them as one.
    std::vector<std::shared_ptr<void>> kept_;
    std::vector<ILayer*> layers_;
    std::vector<ITensor*> outputs_;
};

class Profile final : public IOptimizationProfile, public NotedVOptimizationProfile {
  public:
    Profile() { mImpl = this; }
    bool setDimensions(char const* input, OptProfileSelector selector, DimsArgument dims) noexcept override {
        note("Profile.setDimensions " + text(input) + " " + name(selector) + " " + text(dims));
        return !is_to_fail("profile");
    }
};

// ---- building ------------------------------------------------------------------------------------------------------

class Config final : public IBuilderConfig, public NotedVBuilderConfig {
  public:
    Config() { mImpl = this; }
    void setFlag(BuilderFlag flag) noexcept override { note("Config.setFlag " + name(flag)); }
    void clearFlag(BuilderFlag flag) noexcept override { note("Config.clearFlag " + name(flag)); }
    void setMemoryPoolLimit(MemoryPoolType pool, std::size_t bytes) noexcept override {
        note("Config.setMemoryPoolLimit " + name(pool) + " " + std::to_string(bytes));
        if (is_to_fail("configure")) {
            log_error("standin: no such pool");
        }
    }
    void setBuilderOptimizationLevel(int32_t level) noexcept override { note("Config.setBuilderOptimizationLevel " + number(level)); }
    // void in 8.6 and 10, bool afterwards.
    auto setMaxAuxStreams(int32_t streams) noexcept -> decltype(NotedVBuilderConfig::setMaxAuxStreams(streams)) override {
        note("Config.setMaxAuxStreams " + number(streams));
        return static_cast<decltype(NotedVBuilderConfig::setMaxAuxStreams(streams))>(true);
    }
    void setAvgTimingIterations(int32_t count) noexcept override { note("Config.setAvgTimingIterations " + number(count)); }
    void setProfilingVerbosity(ProfilingVerbosity verbosity) noexcept override {
        note("Config.setProfilingVerbosity " + name(verbosity));
    }
    void setHardwareCompatibilityLevel(HardwareCompatibilityLevel level) noexcept override {
        note("Config.setHardwareCompatibilityLevel " + name(level));
    }
    int32_t addOptimizationProfile(IOptimizationProfile const*) noexcept override {
        note("Config.addOptimizationProfile");
        return profiles_++;
    }
    ITimingCache* createTimingCache(void const*, std::size_t bytes) const noexcept override {
        note("Config.createTimingCache " + std::to_string(bytes));
        return new TimingCache;
    }
    bool setTimingCache(ITimingCache const&, bool ignore_mismatch) noexcept override {
        note(std::string("Config.setTimingCache ") + (ignore_mismatch ? "ignore" : "check"));
        return true;
    }
#if STANDIN_IS_8
    void setPreviewFeature(PreviewFeature feature, bool on) noexcept override {
        bool const shares = feature == PreviewFeature::kPROFILE_SHARING_0806;
        note(std::string("Config.setPreviewFeature ") + (shares ? "PROFILE_SHARING_0806" : "another") + (on ? " on" : " off"));
    }
#else
    void setProgressMonitor(IProgressMonitor* monitor) noexcept override { monitor_ = monitor; }
#endif
#if STANDIN_HAS_FLAGS
    void setInt8Calibrator(IInt8Calibrator* calibrator) noexcept override {
        note("Config.setInt8Calibrator");
        calibrator_ = calibrator;
    }
    void setQuantizationFlag(QuantizationFlag flag) noexcept override {
        note(std::string("Config.setQuantizationFlag ") +
             (flag == QuantizationFlag::kCALIBRATE_BEFORE_FUSION ? "CALIBRATE_BEFORE_FUSION" : "another"));
    }
    bool setCalibrationProfile(IOptimizationProfile const*) noexcept override {
        note("Config.setCalibrationProfile");
        return true;
    }
#endif
#if STANDIN_RTX
    bool setNbComputeCapabilities(int32_t count) noexcept override {
        note("Config.setNbComputeCapabilities " + number(count));
        return true;
    }
    bool setComputeCapability(ComputeCapability capability, int32_t index) noexcept override {
        note("Config.setComputeCapability " + number(index) + " " + number(static_cast<int64_t>(capability)));
        return true;
    }
#endif

    // Asks the calibrator as TensorRT does.
    void calibrate(Network const& network) {
#if STANDIN_HAS_FLAGS
        if (calibrator_ == nullptr) {
            return;
        }
        std::size_t length = 0;
        if (calibrator_->readCalibrationCache(length) != nullptr) {
            note("Calibrator.readCalibrationCache " + std::to_string(length));
            return;
        }
        std::vector<char const*> names;
        for (int32_t index = 0; index < network.getNbInputs(); ++index) {
            names.push_back(network.getInput(index)->getName());
        }
        std::vector<void*> bindings(names.size());
        while (calibrator_->getBatch(bindings.data(), names.data(), static_cast<int32_t>(names.size()))) {
            // The stand-in device's memory is the host's. The last is that of the profile's greatest shape, 8x4.
            const auto* const input = static_cast<float const*>(bindings[0]);
            note("Calibrator.getBatch " + std::to_string(input[0]) + " to " + std::to_string(input[31]));
        }
        char const kTable[] = "TRT-1-EntropyCalibration2\ninput: 3c010a14\n";
        calibrator_->writeCalibrationCache(kTable, sizeof kTable - 1);
#else
        (void)network;
#endif
    }

    // Tells its progress as TensorRT does; false if the caller has stopped it.
    bool progress() {
#if !STANDIN_IS_8
        if (monitor_ == nullptr) {
            return true;
        }
        monitor_->phaseStart("Building Engine", nullptr, 2);
        bool const goes_on = monitor_->stepComplete("Building Engine", 0) && monitor_->stepComplete("Building Engine", 1);
        monitor_->phaseFinish("Building Engine");
        return goes_on;
#else
        return true;
#endif
    }

  private:
    int32_t profiles_ = 0;
#if !STANDIN_IS_8
    IProgressMonitor* monitor_ = nullptr;
#endif
#if STANDIN_HAS_FLAGS
    IInt8Calibrator* calibrator_ = nullptr;
#endif
};

class Builder final : public IBuilder, public NotedVBuilder {
  public:
    Builder() { mImpl = this; }
    INetworkDefinition* createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept override {
        std::string named;
#if STANDIN_IS_8
        named = (flags & 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH)) != 0 ? " EXPLICIT_BATCH" : "";
#elif STANDIN_HAS_FLAGS
        named = (flags & 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)) != 0 ? " STRONGLY_TYPED" : "";
#else
        named = flags != 0 ? " unexpected" : "";
#endif
        note("Builder.createNetworkV2" + named);
        return is_to_fail("network") ? nullptr : new Network;
    }
    IBuilderConfig* createBuilderConfig() noexcept override { return new Config; }
    IOptimizationProfile* createOptimizationProfile() noexcept override {
        profiles_.push_back(std::make_unique<Profile>());
        return profiles_.back().get();
    }
    IHostMemory* buildSerializedNetwork(INetworkDefinition& network, IBuilderConfig& config) noexcept override {
        note("Builder.buildSerializedNetwork");
        if (is_to_fail("build")) {
            log_error("standin: [optimizer.cpp::computeCosts::1] Error Code 10: no tactic for node relu");
            log_error("standin: [builder.cpp::build::2] Error Code 2: the second line");
            return nullptr;
        }
        auto& own = static_cast<Config&>(config);
        own.calibrate(static_cast<Network&>(network));
        return own.progress() ? new HostMemory(plan()) : nullptr;
    }

  private:
    std::vector<std::unique_ptr<Profile>> profiles_;
};

// ---- running -------------------------------------------------------------------------------------------------------

Dims dims(std::initializer_list<int64_t> sizes) {
    Dims made{};
    for (int64_t const size : sizes) {
        made.d[made.nbDims++] = size;
    }
    return made;
}

bool is_input(char const* tensor) {
    return std::strcmp(tensor, "input") == 0;
}

class Context final : public IExecutionContext, public NotedVExecutionContext {
  public:
    Context() { mImpl = this; }
    void setDeviceMemory(void* memory) noexcept override { note(std::string("Context.setDeviceMemory ") + given(memory)); }
#if !STANDIN_IS_8
    void setDeviceMemoryV2(void* memory, int64_t bytes) noexcept override {
        note(std::string("Context.setDeviceMemoryV2 ") + given(memory) + " " + number(bytes));
    }
#endif
    int32_t getOptimizationProfile() const noexcept override { return profile_; }
    bool setOptimizationProfileAsync(int32_t profile, cudaStream_t stream) noexcept override {
        note("Context.setOptimizationProfileAsync " + number(profile) + " " + given(stream));
        profile_ = profile;
        return true;
    }
    bool setInputShape(char const* tensor, Dims const& shape) noexcept override {
        note("Context.setInputShape " + text(tensor) + " " + text(shape));
        rows_ = shape.d[0];
        return true;
    }
    Dims getTensorShape(char const* tensor) const noexcept override {
        return is_input(tensor) ? dims({rows_, 4}) : dims({rows_, 2});
    }
    bool setTensorAddress(char const* tensor, void* address) noexcept override {
        note("Context.setTensorAddress " + text(tensor) + " " + given(address));
        if (is_to_fail("address")) {
            log_error("standin: Error Code 3: the address is not to its liking");
            return false;
        }
        return true;
    }
    int32_t inferShapes(int32_t, char const**) noexcept override { return 0; }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        note(std::string("Context.enqueueV3 ") + given(stream));
        if (is_to_fail("enqueue")) {
            log_error("standin: Error Code 1: Cuda Runtime (invalid resource handle)");
            return false;
        }
        return true;
    }

  private:
    static char const* given(void const* pointer) { return pointer != nullptr ? "given" : "null"; }

    int32_t profile_ = 0;
    int64_t rows_ = 1;
};

// Two profiles for `input`, ?x4, and `output`, ?x2.
class Engine final : public ICudaEngine, public NotedVCudaEngine {
  public:
    Engine() { mImpl = this; }
    char const* getName() const noexcept override { return "standin"; }
    int32_t getNbIOTensors() const noexcept override { return 2; }
    char const* getIOTensorName(int32_t index) const noexcept override { return index == 0 ? "input" : "output"; }
    TensorIOMode getTensorIOMode(char const* tensor) const noexcept override {
        return is_input(tensor) ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    DataType getTensorDataType(char const*) const noexcept override { return DataType::kFLOAT; }
    Dims getTensorShape(char const* tensor) const noexcept override { return is_input(tensor) ? dims({-1, 4}) : dims({-1, 2}); }
    TensorLocation getTensorLocation(char const*) const noexcept override { return TensorLocation::kDEVICE; }
    TensorFormat getTensorFormat(char const*) const noexcept override { return TensorFormat::kLINEAR; }
    int32_t getNbOptimizationProfiles() const noexcept override { return 2; }
    Dims getProfileShape(char const*, int32_t profile, OptProfileSelector selector) const noexcept override {
        int64_t const largest = profile == 0 ? 2 : 8;
        return dims({selector == OptProfileSelector::kMIN ? largest / 2 : largest, 4});
    }
    int32_t getNbLayers() const noexcept override { return 3; }
    int32_t getNbAuxStreams() const noexcept override { return 1; }
    HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept override { return HardwareCompatibilityLevel::kNONE; }
    bool isRefittable() const noexcept override { return false; }
#if STANDIN_HAS_FLAGS
    // Not size_t of 8.6 alone: 10 has both, and asks the newer one from 10.1 on.
    std::size_t getDeviceMemorySize() const noexcept override { return 512; }
#endif
#if !STANDIN_IS_8
    int64_t getDeviceMemorySizeV2() const noexcept override { return 1024; }
    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        bool const user = strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED;
        note(std::string("Engine.createExecutionContext ") + (user ? "USER_MANAGED" : "STATIC"));
        return context();
    }
#else
    IExecutionContext* createExecutionContext() noexcept override {
        note("Engine.createExecutionContext");
        return context();
    }
    IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept override {
        note("Engine.createExecutionContextWithoutDeviceMemory");
        return context();
    }
#endif

  private:
    static IExecutionContext* context() {
        if (is_to_fail("context")) {
            log_error("standin: Error Code 2: OutOfMemory (no further information)");
            return nullptr;
        }
        return new Context;
    }
};

class Runtime final : public IRuntime, public NotedVRuntime {
  public:
    Runtime() { mImpl = this; }
    void setEngineHostCodeAllowed(bool allowed) noexcept override {
        note(std::string("Runtime.setEngineHostCodeAllowed ") + (allowed ? "yes" : "no"));
    }
#if STANDIN_IS_8
    ICudaEngine* deserializeCudaEngine(void const*, std::size_t bytes, IPluginFactory*) noexcept override {
#else
    ICudaEngine* deserializeCudaEngine(void const*, std::size_t bytes) noexcept override {
#endif
        note("Runtime.deserializeCudaEngine " + std::to_string(bytes));
        if (is_to_fail("deserialize")) {
            log_error("standin: Error Code 1: Serialization (Serialization assertion failed)");
            return nullptr;
        }
        return new Engine;
    }
};

void* made(char const* what, int32_t version, void* logger, void* object) {
    note(std::string(what) + (version == NV_TENSORRT_VERSION ? " of the headers' version" : " of another version"));
    g_logger = static_cast<ILogger*>(logger);
    return object;
}

}  // namespace

// The test leaves one of them out when it links.
EXPORT int32_t getInferLibVersion() noexcept {
    char const* const said = std::getenv("TICKRT_STANDIN_VERSION");
    return said != nullptr ? std::atoi(said) : NV_TENSORRT_VERSION;
}

EXPORT void* createInferBuilder_INTERNAL(void* logger, int32_t version) noexcept {
    return made("createInferBuilder", version, logger, static_cast<IBuilder*>(new Builder));
}

EXPORT void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept {
    return made("createInferRuntime", version, logger, static_cast<IRuntime*>(new Runtime));
}
