// Building a plan.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "calibrate.h"
#include "network.h"

namespace tickrt::TICKRT_FLAVOUR {

// A serialised engine or timing cache, still in TensorRT's memory.
class HostMemory final : public api::Blob {
  public:
    explicit HostMemory(Owned<nvinfer1::IHostMemory> memory) noexcept : memory_(std::move(memory)) {}

    api::Bytes bytes() const noexcept override {
        return {static_cast<const uint8_t*>(memory_->data()), memory_->size()};
    }

  private:
    const Owned<nvinfer1::IHostMemory> memory_;
};

// ---- progress ------------------------------------------------------------------------------------------------------

#if TICKRT_IS_10_OR_LATER
// TensorRT calls it from several threads; the observer sees to one at a time. A phase's parent and number of steps are
// told when it starts and wanted at every step, hence the table.
class Monitor final : public nvinfer1::IProgressMonitor {
  public:
    explicit Monitor(const api::Observer& observer) : observer_(observer) {}

    void phaseStart(char const* phase, char const* parent, int32_t steps) noexcept override {
        try {
            const std::lock_guard<std::mutex> guard(mutex_);
            phases_[or_empty(phase)] = {or_empty(parent), steps};
        } catch (...) {
            // Out of memory: the phase is shown without parent and steps.
        }
        // The answer counts at the next step, or at the end: TensorRT takes none here.
        (void)observer_.progress(phase, parent, 0, steps);
    }

    bool stepComplete(char const* phase, int32_t step) noexcept override {
        const Phase known = find(phase);
        // TensorRT counts from 0.
        return observer_.progress(phase, known.parent.c_str(), step + 1, known.steps);
    }

    void phaseFinish(char const* phase) noexcept override {
        const Phase known = find(phase);
        (void)observer_.progress(phase, known.parent.c_str(), known.steps, known.steps);
    }

  private:
    struct Phase {
        std::string parent;
        int32_t steps = 0;
    };

    Phase find(char const* phase) noexcept {
        try {
            const std::lock_guard<std::mutex> guard(mutex_);
            const auto found = phases_.find(or_empty(phase));
            return found != phases_.end() ? found->second : Phase{};
        } catch (...) {
            return {};
        }
    }

    const api::Observer& observer_;
    std::mutex mutex_;
    std::map<std::string, Phase> phases_;
};
#endif

// ---- configuration -------------------------------------------------------------------------------------------------

inline void set_precision(nvinfer1::IBuilderConfig& config, const api::BuildOptions& options) {
    using nvinfer1::BuilderFlag;
    if (!options.tf32) {
        config.clearFlag(BuilderFlag::kTF32);
    }
#if TICKRT_HAS_PRECISION_FLAGS
    if (options.fp16) {
        config.setFlag(BuilderFlag::kFP16);
    }
    // A strongly typed network takes INT8 from its Q/DQ nodes and refuses the flag.
    if (options.int8 && !options.strongly_typed) {
        config.setFlag(BuilderFlag::kINT8);
    }
#if TICKRT_IS_10_OR_LATER
    if (options.bf16) {
        config.setFlag(BuilderFlag::kBF16);
    }
    // As INT8's: the nodes in the model say what is FP8.
    if (options.fp8 && !options.strongly_typed) {
        config.setFlag(BuilderFlag::kFP8);
    }
#endif
    if (options.precision_constraints == api::PrecisionConstraints::Prefer) {
        config.setFlag(BuilderFlag::kPREFER_PRECISION_CONSTRAINTS);
    }
    if (options.precision_constraints == api::PrecisionConstraints::Obey) {
        config.setFlag(BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);
    }
#endif
}

#if TICKRT_RTX
inline api::Failure set_compute_capabilities(nvinfer1::IBuilderConfig& config, const std::vector<uint32_t>& wanted) {
    using nvinfer1::ComputeCapability;
    const auto count = static_cast<int32_t>(wanted.empty() ? 1 : wanted.size());
    // The number comes first: TensorRT-RTX refuses an index beyond it.
    bool taken = config.setNbComputeCapabilities(count);
    for (int32_t index = 0; index < count && taken; ++index) {
        // ComputeCapability's values are the capabilities themselves (kSM75 = 75); src/builder/config.rs has checked.
        const auto capability = wanted.empty()
                                    ? ComputeCapability::kCURRENT
                                    : static_cast<ComputeCapability>(wanted[static_cast<std::size_t>(index)]);
        taken = config.setComputeCapability(capability, index);
    }
    if (taken) {
        return {};
    }
    return failure(api::FailureKind::Unsupported, "set the compute capabilities",
                   wanted.empty() ? "no supported GPU at hand" : "TensorRT-RTX refused one of them", "",
                   "name capabilities that this TensorRT-RTX supports");
}
#endif

inline api::Failure configure(nvinfer1::IBuilderConfig& config, const api::BuildOptions& options) {
    for (const api::PoolLimit& limit : options.pools) {
        config.setMemoryPoolLimit(convert(limit.pool), limit.bytes);
    }
    if (options.optimization_level >= 0) {
        config.setBuilderOptimizationLevel(options.optimization_level);
    }
    if (options.max_aux_streams >= 0) {
        config.setMaxAuxStreams(options.max_aux_streams);
    }
    if (options.avg_timing_iterations >= 0) {
        config.setAvgTimingIterations(options.avg_timing_iterations);
    }
    config.setProfilingVerbosity(convert(options.profiling_verbosity));
#if !TICKRT_RTX && TICKRT_MAJOR == 8
    // Without it a profile serves one context at a time: one session, with one shape. Later versions share always.
    config.setPreviewFeature(nvinfer1::PreviewFeature::kPROFILE_SHARING_0806, true);
#endif
    set_precision(config, options);
#if TICKRT_RTX
    return set_compute_capabilities(config, options.compute_capabilities);
#else
    if (options.version_compatible) {
        config.setFlag(nvinfer1::BuilderFlag::kVERSION_COMPATIBLE);
    }
    config.setHardwareCompatibilityLevel(convert(options.hardware_compatibility));
    return {};
#endif
}

// ---- timing cache --------------------------------------------------------------------------------------------------

// The configuration points to the cache that comes back: it has to live until the build is done.
inline Owned<nvinfer1::ITimingCache> set_timing_cache(nvinfer1::IBuilderConfig& config, api::Bytes given,
                                                      api::TimingCacheState& state) {
    state = api::TimingCacheState::Unused;
    if (given.size > 0) {
        Owned<nvinfer1::ITimingCache> cache(config.createTimingCache(given.data, given.size));
        // `false`: one from another version or GPU is not taken.
        if (cache != nullptr && config.setTimingCache(*cache, false)) {
            state = api::TimingCacheState::Used;
            return cache;
        }
        state = api::TimingCacheState::Stale;
    }
    Owned<nvinfer1::ITimingCache> fresh(config.createTimingCache(nullptr, 0));
    if (fresh != nullptr) {
        (void)config.setTimingCache(*fresh, false);
    }
    return fresh;
}

// ---- the build -----------------------------------------------------------------------------------------------------

inline nvinfer1::NetworkDefinitionCreationFlags network_flags([[maybe_unused]] const api::BuildOptions& options) {
    using nvinfer1::NetworkDefinitionCreationFlag;
#if !TICKRT_RTX && TICKRT_MAJOR == 8
    return 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#elif TICKRT_HAS_PRECISION_FLAGS
    return options.strongly_typed ? 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED) : 0U;
#else
    return 0U;  // strongly typed in any case
#endif
}

class Build {
  public:
    Build(const loader::Native& native, const api::BuildOptions& options, const api::Observer& observer,
          const api::Calibrator& source)
        : native_(native),
          options_(options),
          observer_(observer),
          source_(source),
          capture_(options.verbose ? api::Severity::Verbose : api::Severity::Warning) {}

    api::BuildReply run(const api::Model* model, api::Bytes timing_cache) {
        api::BuildReply reply;
        {
            const log::SharedScope scope(capture_);
            run(model, timing_cache, reply);
        }
        reply.warnings = capture_.warnings();
        reply.log = capture_.lines();
        return reply;
    }

  private:
    void run(const api::Model* model, api::Bytes timing_cache, api::BuildReply& reply) {
        native_.preload_builder_resource();
        const loader::Create create = native_.create_builder();
        if (create == nullptr) {
            reply.failure = lacks(native_, "createInferBuilder_INTERNAL");
            return;
        }
        const Owned<nvinfer1::IBuilder> builder(
            static_cast<nvinfer1::IBuilder*>(create(&Logger::instance(), NV_TENSORRT_VERSION)));
        if (builder == nullptr) {
            reply.failure = failed("create TensorRT's builder", "nothing came back");
            return;
        }
        const Owned<nvinfer1::INetworkDefinition> network(builder->createNetworkV2(network_flags(options_)));
        const Owned<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
        if (network == nullptr || config == nullptr) {
            reply.failure = failed("create a network", "nothing came back");
            return;
        }
        network->setName(options_.network_name.c_str());

        // Kept to the end: the network points to weights in it.
        const Parser parser = fill(*network, model, reply);
        if (reply.failure) {
            return;
        }
        describe(*network, reply);
        reply.failure = set_up(*builder, *config, *network);
#if TICKRT_HAS_PRECISION_FLAGS
        // Kept to the end: the configuration points to it.
        const Calibrator calibrator = set_calibrator(*config, options_, source_);
        if (!reply.failure) {
            keep_in_fp32(*network, options_, reply);
        }
        if (!reply.failure) {
            reply.failure = set_calibration_shapes(*builder, *config, options_);
        }
#endif
        if (!reply.failure) {
            serialize(*builder, *network, *config, timing_cache, reply);
        }
    }

    Parser fill(nvinfer1::INetworkDefinition& network, const api::Model* model, api::BuildReply& reply) {
        Parser parser;
        if (!observer_.progress("parse", "", 0, 1)) {
            reply.failure = cancelled();
        } else if (model != nullptr) {
            parser = parse(native_, network, *model, capture_, reply);
        } else if (!make_smoke(network)) {
            reply.failure = failed("make the smoke network", "TensorRT refused a layer");
        }
        if (!reply.failure && !observer_.progress("parse", "", 1, 1)) {
            reply.failure = cancelled();
        }
        return parser;
    }

    api::Failure set_up(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                        const nvinfer1::INetworkDefinition& network) {
        const std::size_t errors = capture_.errors();
        api::Failure refused = configure(config, options_);
        if (!refused && capture_.errors() > errors) {
            // Most setters return nothing: a value that TensorRT doesn't take shows in its log alone.
            refused = failure(api::FailureKind::Unsupported, "set the builder's options", "TensorRT refused one");
        }
        if (refused) {
            refused.log = capture_.lines();
            return refused;
        }
        if (options_.profiles.empty()) {
            return check_profile(network, {});
        }
        for (const api::Profile& profile : options_.profiles) {
            if (api::Failure unfit = add_profile(builder, config, network, profile, capture_)) {
                return unfit;
            }
        }
        return {};
    }

    void serialize(nvinfer1::IBuilder& builder, nvinfer1::INetworkDefinition& network, nvinfer1::IBuilderConfig& config,
                   api::Bytes given_cache, api::BuildReply& reply) {
        Owned<nvinfer1::ITimingCache> cache;
        if (options_.use_timing_cache) {
            cache = set_timing_cache(config, given_cache, reply.timing_cache_state);
        }
#if TICKRT_IS_10_OR_LATER
        Monitor monitor(observer_);
        config.setProgressMonitor(&monitor);
#endif
        // TensorRT 8 has no monitor: this is all that is seen of its build.
        if (!observer_.progress("build", "", 0, 1)) {
            reply.failure = cancelled();
            return;
        }
        Owned<nvinfer1::IHostMemory> plan(builder.buildSerializedNetwork(network, config));
        const bool goes_on = observer_.progress("build", "", 1, 1);
#if TICKRT_IS_10_OR_LATER
        config.setProgressMonitor(nullptr);
#endif
        if (!goes_on) {
            reply.failure = cancelled();
            return;
        }
        if (plan == nullptr || plan->size() == 0) {
            reply.failure = failed("serialize the network", "TensorRT gave no plan");
            const bool obeys = options_.precision_constraints == api::PrecisionConstraints::Obey;
            if (reply.failure.kind == api::FailureKind::Build && obeys && !options_.keep_fp32.empty()) {
                // 8.6.1 on an H100 has no FP32 kernel that obeys for a convolution or matrix product with its activation.
                reply.failure.advice =
                    "leave out --strict-types: kept nodes are then preferred, and --precision-report says what they "
                    "ended in";
            }
            return;
        }
        reply.plan = std::make_unique<HostMemory>(std::move(plan));
        if (cache != nullptr) {
            Owned<nvinfer1::IHostMemory> serialized(cache->serialize());
            if (serialized != nullptr) {
                reply.timing_cache = std::make_unique<HostMemory>(std::move(serialized));
            }
        }
    }

    api::Failure failed(std::string operation, std::string got) const {
        return failure_with_log(api::FailureKind::Build, std::move(operation), std::move(got), capture_.lines());
    }

    static api::Failure cancelled() {
        return failure(api::FailureKind::Cancelled, "serialize the network", "the caller stopped it");
    }

    const loader::Native& native_;
    const api::BuildOptions& options_;
    const api::Observer& observer_;
    [[maybe_unused]] const api::Calibrator& source_;
    log::Capture capture_;
};

}  // namespace tickrt::TICKRT_FLAVOUR
