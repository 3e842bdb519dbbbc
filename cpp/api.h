// What a TensorRT flavour offers, in plain C++ types.
//
// The shim in flavour.cc is compiled once for each set of TensorRT headers, and each time implements the classes below.
// No nvinfer type and no nvinfer enum value appears here: TensorRT renumbers its enums from major to major.
// Nothing here throws; what goes wrong comes back as a Failure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tickrt::api {

enum class Flavour { Trt8, Trt10, Trt11, Rtx };

struct Version {
    uint32_t major = 0, minor = 0, patch = 0;
};

enum class Severity { Error, Warning, Info, Verbose };

enum class FailureKind {
    None,
    InvalidArgument,
    Onnx,
    UnsupportedOperator,
    Build,
    Cancelled,
    Unsupported,
    PlanRefused,
    Shape,
    LibraryMissing,
    NoGpu,
    OutOfMemory,
    Execution,
};

struct Failure {
    FailureKind kind = FailureKind::None;
    std::string operation, expected, got, advice;
    std::vector<std::string> log;

    explicit operator bool() const noexcept { return kind != FailureKind::None; }
};

// Texts are empty and `node` is -1 where the parser doesn't say.
struct ParserError {
    std::string code, description;
    int32_t node = -1;
    std::string node_name, operator_name, file;
    int32_t line = 0;
    std::string function;
};

enum class ElementType { F32, F16, Bf16, F64, I8, U8, I16, I32, I64, Bool, Other };

struct Tensor {
    std::string name;
    bool is_input = false;
    ElementType element = ElementType::Other;
    std::vector<int64_t> shape;  // -1 where dynamic
    bool on_host = false;
    std::string layout;  // TensorRT's words where it isn't plain row-major, else empty
};

enum class MemoryPool { Workspace, DlaManagedSram, DlaLocalDram, DlaGlobalDram, TacticDram, TacticSharedMemory };

struct PoolLimit {
    MemoryPool pool;
    uint64_t bytes;
};

struct ShapeRange {
    std::string tensor;
    std::vector<int64_t> min, opt, max;
};

using Profile = std::vector<ShapeRange>;

enum class PrecisionConstraints { None, Prefer, Obey };
// TensorRT 8 and 10: how activations' ranges are found; None: the model's Q/DQ nodes say.
enum class CalibrationAlgorithm { None, Entropy, MinMax, Percentile };
enum class HardwareCompatibility { None, AmperePlus, SameComputeCapability };
enum class ProfilingVerbosity { LayerNamesOnly, None, Detailed };

// A count of -1 leaves the choice to TensorRT.
struct BuildOptions {
    std::string network_name;
    std::vector<PoolLimit> pools;
    std::vector<Profile> profiles;
    int32_t optimization_level = -1, max_aux_streams = -1, avg_timing_iterations = -1;
    bool fp16 = false, bf16 = false, int8 = false, fp8 = false, tf32 = true, strongly_typed = false;
    PrecisionConstraints precision_constraints = PrecisionConstraints::None;
    std::vector<std::string> keep_fp32;  // nodes whose layers compute in FP32; without strong typing alone
    CalibrationAlgorithm calibration = CalibrationAlgorithm::None;
    double calibration_quantile = 1.0;  // of Percentile, 0 to 1
    Profile calibration_shapes;         // a batch's, where the network is dynamic
    bool version_compatible = false;
    HardwareCompatibility hardware_compatibility = HardwareCompatibility::None;
    ProfilingVerbosity profiling_verbosity = ProfilingVerbosity::LayerNamesOnly;
    std::vector<uint32_t> compute_capabilities;  // TensorRT-RTX; empty: the GPU at hand
    bool use_timing_cache = false;
    bool verbose = false;
};

// Bytes that somebody else owns.
struct Bytes {
    const uint8_t* data = nullptr;
    std::size_t size = 0;
};

// TensorRT's own block of memory, not copied until it crosses the bridge.
class Blob {
  public:
    virtual ~Blob() = default;
    virtual Bytes bytes() const noexcept = 0;
};

enum class TimingCacheState { Unused, Used, Stale };

struct BuildReply {
    Failure failure;
    std::vector<ParserError> parser_errors;
    std::unique_ptr<Blob> plan, timing_cache;
    TimingCacheState timing_cache_state = TimingCacheState::Unused;
    std::vector<Tensor> tensors;
    std::string layers_json;
    bool has_half = false, has_bfloat = false, has_quantized = false;
    std::vector<std::string> warnings, log;
};

// Is told of a build's progress, from several threads; `false` ends the build.
class Observer {
  public:
    virtual ~Observer() = default;
    virtual bool progress(const char* phase, const char* parent, int32_t step, int32_t steps) const noexcept = 0;
};

// Gives a calibration its batches. On one thread; what goes wrong in it ends the batches.
class Calibrator {
  public:
    virtual ~Calibrator() = default;
    // Whether there is another batch; it is in device memory then.
    virtual bool next() const noexcept = 0;
    // Where the batch of an input lies; 0 if there is no such input.
    virtual std::size_t address(const char* tensor) const noexcept = 0;
    // An earlier calibration's result, or nothing.
    virtual std::vector<uint8_t> cache() const = 0;
    virtual void keep_cache(Bytes bytes) const noexcept = 0;
};

// A model, or none for the smoke network.
struct Model {
    Bytes onnx;
    std::string path;  // where it came from, for weights in files beside it; may be empty
};

struct EngineFacts {
    std::string name;
    std::vector<Tensor> tensors;
    std::vector<Profile> profiles;
    uint32_t layers = 0;
    uint64_t device_memory_bytes = 0;
    uint32_t aux_streams = 0;
    HardwareCompatibility hardware_compatibility = HardwareCompatibility::None;
    bool refittable = false;
};

struct LayerTime {
    std::string name;
    float ms = 0;
};

// An IExecutionContext; one thread at a time. It keeps its engine alive.
class Context {
  public:
    virtual ~Context() = default;
    virtual void set_device_memory(std::size_t address, uint64_t bytes) noexcept = 0;
    virtual Failure set_input_shape(const std::string& tensor, const std::vector<int64_t>& shape) = 0;
    virtual std::vector<int64_t> tensor_shape(const std::string& tensor) const = 0;
    virtual Failure set_tensor_address(const std::string& tensor, std::size_t address) = 0;
    virtual bool all_shapes_specified() noexcept = 0;
    virtual std::vector<std::string> take_log() = 0;
    // From here on each enqueue waits for the GPU and tells what every layer took (IProfiler).
    virtual void profile_layers() noexcept = 0;
    // In the order of execution, since the last call.
    virtual std::vector<LayerTime> take_layer_times() = 0;
    // The only call of the data plane. `stream` is a CUstream.
    virtual bool enqueue(std::size_t stream) noexcept = 0;
};

struct ContextReply {
    Failure failure;
    std::unique_ptr<Context> context;
};

// An ICudaEngine; any thread. It keeps its runtime and its library alive.
class Engine {
  public:
    virtual ~Engine() = default;
    virtual EngineFacts facts() const = 0;
    virtual std::string layers_json() const = 0;
    virtual ContextReply create_context(uint32_t profile, std::size_t stream, bool caller_gives_memory) const = 0;
};

struct EngineReply {
    Failure failure;
    std::shared_ptr<Engine> engine;
};

// A loaded TensorRT library; any thread.
class Library {
  public:
    virtual ~Library() = default;
    virtual BuildReply build(const Model* model, const BuildOptions& options, Bytes timing_cache,
                             const Observer& observer, const Calibrator& calibrator) const = 0;
    virtual EngineReply deserialize(Bytes plan, bool allow_host_code) const = 0;
};

}  // namespace tickrt::api
