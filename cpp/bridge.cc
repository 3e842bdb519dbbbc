#include "tickrt/cpp/bridge.h"

#include <exception>
#include <type_traits>
#include <utility>

#include "loader.h"
#include "log.h"
#include "tickrt/src/bridge.rs.h"

namespace tickrt::ffi {
namespace {

// ---- small conversions ---------------------------------------------------------------------------------------------

// TensorRT's and the system's texts are not always UTF-8, and rust::String throws on the rest.
rust::String text(const std::string& from) {
    return rust::String::lossy(from);
}

std::string text(rust::Str from) {
    return std::string(from);
}
std::string text(const rust::String& from) {
    return std::string(from);
}

template <typename To, typename From, typename Convert>
rust::Vec<To> list(const std::vector<From>& from, Convert convert) {
    rust::Vec<To> to;
    to.reserve(from.size());
    for (const From& item : from) {
        to.push_back(convert(item));
    }
    return to;
}

rust::Vec<rust::String> list(const std::vector<std::string>& from) {
    return list<rust::String>(from, [](const std::string& item) { return text(item); });
}

rust::Vec<int64_t> list(const std::vector<int64_t>& from) {
    return list<int64_t>(from, [](int64_t item) { return item; });
}

std::vector<int64_t> list(const rust::Vec<int64_t>& from) {
    return {from.begin(), from.end()};
}

api::Bytes bytes(rust::Slice<const uint8_t> from) {
    return {from.data(), from.size()};
}

rust::Vec<uint8_t> copy(const std::unique_ptr<api::Blob>& blob) {
    if (blob == nullptr) {
        return {};
    }
    const api::Bytes from = blob->bytes();
    return copy_bytes(rust::Slice<const uint8_t>(from.data, from.size));
}

// The enums on both sides name the same things in the same order; that the ends agree is checked once for each.
template <typename To, typename From>
To same(From from) noexcept {
    return static_cast<To>(from);
}
#define TICKRT_SAME_END(name, last)                                                        \
    static_assert(static_cast<int>(name::last) == static_cast<int>(api::name::last), #name \
                  " differs between the "                                                  \
                  "sides")
TICKRT_SAME_END(Flavour, Rtx);
TICKRT_SAME_END(Severity, Verbose);
TICKRT_SAME_END(FailureKind, Execution);
TICKRT_SAME_END(ElementType, Other);
TICKRT_SAME_END(MemoryPool, TacticSharedMemory);
TICKRT_SAME_END(PrecisionConstraints, Obey);
TICKRT_SAME_END(CalibrationAlgorithm, Percentile);
TICKRT_SAME_END(HardwareCompatibility, SameComputeCapability);
TICKRT_SAME_END(ProfilingVerbosity, Detailed);
TICKRT_SAME_END(TimingCacheState, Stale);
#undef TICKRT_SAME_END

// ---- structs -------------------------------------------------------------------------------------------------------

Version to_rust(api::Version from) noexcept {
    return {from.major, from.minor, from.patch};
}

Failure to_rust(const api::Failure& from) {
    return {same<FailureKind>(from.kind),
            text(from.operation),
            text(from.expected),
            text(from.got),
            text(from.advice),
            list(from.log)};
}

ParserError to_rust(const api::ParserError& from) {
    return {text(from.code),          text(from.description), from.node, text(from.node_name),
            text(from.operator_name), text(from.file),        from.line, text(from.function)};
}

Tensor to_rust(const api::Tensor& from) {
    return {text(from.name),  from.is_input, same<ElementType>(from.element),
            list(from.shape), from.on_host,  text(from.layout)};
}

Profile to_rust(const api::Profile& from) {
    return {list<ShapeRange>(from, [](const api::ShapeRange& range) {
        return ShapeRange{text(range.tensor), list(range.min), list(range.opt), list(range.max)};
    })};
}

OpenReply to_rust(const loader::Opened& from) {
    return {to_rust(from.failure), same<Flavour>(from.flavour), to_rust(from.version), text(from.path), from.library};
}

EngineFacts to_rust(const api::EngineFacts& from) {
    EngineFacts to{};
    to.name = text(from.name);
    to.tensors = list<Tensor>(from.tensors, [](const api::Tensor& tensor) { return to_rust(tensor); });
    to.profiles = list<Profile>(from.profiles, [](const api::Profile& profile) { return to_rust(profile); });
    to.layers = from.layers;
    to.device_memory_bytes = from.device_memory_bytes;
    to.aux_streams = from.aux_streams;
    to.hardware_compatibility = same<HardwareCompatibility>(from.hardware_compatibility);
    to.refittable = from.refittable;
    return to;
}

BuildReply to_rust(const api::BuildReply& from) {
    BuildReply to{};
    to.failure = to_rust(from.failure);
    to.parser_errors =
        list<ParserError>(from.parser_errors, [](const api::ParserError& error) { return to_rust(error); });
    to.plan = copy(from.plan);
    to.timing_cache = copy(from.timing_cache);
    to.timing_cache_state = same<TimingCacheState>(from.timing_cache_state);
    to.tensors = list<Tensor>(from.tensors, [](const api::Tensor& tensor) { return to_rust(tensor); });
    to.layers_json = text(from.layers_json);
    to.has_half = from.has_half;
    to.has_bfloat = from.has_bfloat;
    to.has_quantized = from.has_quantized;
    to.warnings = list(from.warnings);
    to.log = list(from.log);
    return to;
}

api::Profile from_rust(const Profile& from) {
    api::Profile to;
    for (const ShapeRange& range : from.ranges) {
        to.push_back({text(range.tensor), list(range.min), list(range.opt), list(range.max)});
    }
    return to;
}

api::BuildOptions from_rust(const BuildOptions& from) {
    api::BuildOptions to;
    to.network_name = text(from.network_name);
    for (const PoolLimit& limit : from.pools) {
        to.pools.push_back({same<api::MemoryPool>(limit.pool), limit.bytes});
    }
    for (const Profile& profile : from.profiles) {
        to.profiles.push_back(from_rust(profile));
    }
    to.optimization_level = from.optimization_level;
    to.max_aux_streams = from.max_aux_streams;
    to.avg_timing_iterations = from.avg_timing_iterations;
    to.fp16 = from.fp16;
    to.bf16 = from.bf16;
    to.int8 = from.int8;
    to.fp8 = from.fp8;
    to.tf32 = from.tf32;
    to.strongly_typed = from.strongly_typed;
    to.precision_constraints = same<api::PrecisionConstraints>(from.precision_constraints);
    for (const rust::String& node : from.keep_fp32) {
        to.keep_fp32.push_back(text(node));
    }
    to.calibration = same<api::CalibrationAlgorithm>(from.calibration);
    to.calibration_quantile = from.calibration_quantile;
    to.calibration_shapes = from_rust(from.calibration_shapes);
    to.version_compatible = from.version_compatible;
    to.hardware_compatibility = same<api::HardwareCompatibility>(from.hardware_compatibility);
    to.profiling_verbosity = same<api::ProfilingVerbosity>(from.profiling_verbosity);
    to.compute_capabilities.assign(from.compute_capabilities.begin(), from.compute_capabilities.end());
    to.use_timing_cache = from.use_timing_cache;
    to.verbose = from.verbose;
    return to;
}

// ---- callbacks -----------------------------------------------------------------------------------------------------

class RustObserver final : public api::Observer {
  public:
    explicit RustObserver(const ffi::Observer& observer) noexcept : observer_(observer) {}

    bool progress(const char* phase, const char* parent, int32_t step, int32_t steps) const noexcept override {
        const rust::String safe_phase = rust::String::lossy(phase != nullptr ? phase : "");
        const rust::String safe_parent = rust::String::lossy(parent != nullptr ? parent : "");
        return observer_.progress(safe_phase, safe_parent, step, steps);
    }

  private:
    const ffi::Observer& observer_;
};

class RustCalibrator final : public api::Calibrator {
  public:
    explicit RustCalibrator(const ffi::Calibrator& calibrator) noexcept : calibrator_(calibrator) {}

    bool next() const noexcept override { return calibrator_.next_batch(); }

    std::size_t address(const char* tensor) const noexcept override {
        return calibrator_.address(rust::String::lossy(tensor != nullptr ? tensor : ""));
    }

    std::vector<uint8_t> cache() const override {
        const rust::Vec<uint8_t> bytes = calibrator_.cache();
        return {bytes.begin(), bytes.end()};
    }

    void keep_cache(api::Bytes bytes) const noexcept override {
        calibrator_.keep_cache(rust::Slice<const uint8_t>(bytes.data, bytes.size));
    }

  private:
    const ffi::Calibrator& calibrator_;
};

void to_rust_log(api::Severity severity, const char* line) noexcept {
    const rust::String safe = rust::String::lossy(line);
    native_log_line(same<Severity>(severity), safe);
}

// ---- the border ----------------------------------------------------------------------------------------------------

// Runs `call`; whatever is thrown becomes the reply's failure.
template <typename Call>
auto guarded(const char* operation, Call call) noexcept -> decltype(call()) {
    using Reply = decltype(call());
    api::Failure failure;
    failure.kind = api::FailureKind::Build;
    failure.operation = operation;
    try {
        return call();
    } catch (const std::bad_alloc&) {
        failure.kind = api::FailureKind::OutOfMemory;
        failure.got = "no host memory left";
    } catch (const std::exception& error) {
        failure.got = error.what();
    } catch (...) {
        failure.got = "an exception of unknown type";
    }
    if constexpr (std::is_same_v<Reply, Failure>) {
        return to_rust(failure);
    } else {
        Reply reply{};
        reply.failure = to_rust(failure);
        return reply;
    }
}

BuildReply build(const std::shared_ptr<Library>& library, const api::Model* model, const BuildOptions& options,
                 api::Bytes timing_cache, const Observer& observer, const Calibrator& calibrator) {
    return to_rust(library->build(model, from_rust(options), timing_cache, RustObserver(observer),
                                  RustCalibrator(calibrator)));
}

}  // namespace

rust::Vec<CompiledFlavour> compiled_flavours() noexcept {
    return list<CompiledFlavour>(loader::shims(), [](const loader::Shim& shim) {
        return CompiledFlavour{same<Flavour>(shim.flavour), to_rust(shim.headers)};
    });
}

void forward_log(bool forward, Severity least) noexcept {
    log::forward(forward ? &to_rust_log : nullptr, same<api::Severity>(least));
}

OpenReply open_library(rust::Str name) noexcept {
    return guarded("open a TensorRT library", [&] { return to_rust(loader::open(text(name))); });
}

bool has_linked_library() noexcept {
    return loader::has_linked();
}

OpenReply open_linked_library() noexcept {
    return guarded("use the TensorRT that is linked in", [] { return to_rust(loader::open_linked()); });
}

BuildReply build_onnx(const std::shared_ptr<Library>& library, rust::Slice<const uint8_t> onnx, rust::Str path,
                      const BuildOptions& options, rust::Slice<const uint8_t> timing_cache,
                      const Observer& observer, const Calibrator& calibrator) noexcept {
    return guarded("build a plan", [&] {
        const api::Model model{bytes(onnx), text(path)};
        return build(library, &model, options, bytes(timing_cache), observer, calibrator);
    });
}

BuildReply build_smoke(const std::shared_ptr<Library>& library, const BuildOptions& options, const Observer& observer,
                       const Calibrator& calibrator) noexcept {
    return guarded("build the smoke network",
                   [&] { return build(library, nullptr, options, {}, observer, calibrator); });
}

EngineReply deserialize(const std::shared_ptr<Library>& library, rust::Slice<const uint8_t> plan,
                        bool allow_host_code) noexcept {
    return guarded("load a plan", [&] {
        api::EngineReply reply = library->deserialize(bytes(plan), allow_host_code);
        return EngineReply{to_rust(reply.failure), std::move(reply.engine)};
    });
}

EngineFacts engine_facts(const std::shared_ptr<Engine>& engine) noexcept {
    return to_rust(engine->facts());
}

rust::String engine_layers_json(const std::shared_ptr<Engine>& engine) noexcept {
    return text(engine->layers_json());
}

ContextReply create_context(const std::shared_ptr<Engine>& engine, uint32_t profile, std::size_t stream,
                            bool caller_gives_memory) noexcept {
    return guarded("create an execution context", [&] {
        api::ContextReply reply = engine->create_context(profile, stream, caller_gives_memory);
        return ContextReply{to_rust(reply.failure), std::move(reply.context)};
    });
}

void set_device_memory(Context& context, std::size_t address, uint64_t bytes) noexcept {
    context.set_device_memory(address, bytes);
}

Failure set_input_shape(Context& context, rust::Str tensor, rust::Slice<const int64_t> shape) noexcept {
    return guarded("set an input's shape", [&] {
        return to_rust(context.set_input_shape(text(tensor), std::vector<int64_t>(shape.begin(), shape.end())));
    });
}

rust::Vec<int64_t> tensor_shape(const Context& context, rust::Str tensor) noexcept {
    return list(context.tensor_shape(text(tensor)));
}

Failure set_tensor_address(Context& context, rust::Str tensor, std::size_t address) noexcept {
    return guarded("set a tensor's address",
                   [&] { return to_rust(context.set_tensor_address(text(tensor), address)); });
}

bool all_shapes_specified(Context& context) noexcept {
    return context.all_shapes_specified();
}

rust::Vec<rust::String> take_log(Context& context) noexcept {
    return list(context.take_log());
}

void profile_layers(Context& context) noexcept {
    context.profile_layers();
}

rust::Vec<LayerTime> take_layer_times(Context& context) noexcept {
    rust::Vec<LayerTime> times;
    for (const api::LayerTime& time : context.take_layer_times()) {
        times.push_back(LayerTime{text(time.name), time.ms});
    }
    return times;
}

}  // namespace tickrt::ffi
