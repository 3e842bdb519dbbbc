// The C++ side of src/bridge.rs: cxx's types on the outside, api.h's on the inside.
#pragma once

#include <memory>

#include "api.h"
#include "rust/cxx.h"

namespace tickrt::ffi {

using api::Context;
using api::Engine;
using api::Library;

// Shared structs and the observer, defined by the header that cxx generates.
struct BuildOptions;
struct BuildReply;
struct Calibrator;
struct CompiledFlavour;
struct ContextReply;
struct EngineFacts;
struct EngineReply;
struct Failure;
struct LayerTime;
struct Observer;
struct OpenReply;
enum class Severity : ::std::uint8_t;

rust::Vec<CompiledFlavour> compiled_flavours() noexcept;
void forward_log(bool forward, Severity least) noexcept;
OpenReply open_library(rust::Str name) noexcept;
bool has_linked_library() noexcept;
OpenReply open_linked_library() noexcept;

BuildReply build_onnx(const std::shared_ptr<Library>& library, rust::Slice<const uint8_t> onnx, rust::Str path,
                      const BuildOptions& options, rust::Slice<const uint8_t> timing_cache,
                      const Observer& observer, const Calibrator& calibrator) noexcept;
BuildReply build_smoke(const std::shared_ptr<Library>& library, const BuildOptions& options, const Observer& observer,
                       const Calibrator& calibrator) noexcept;

EngineReply deserialize(const std::shared_ptr<Library>& library, rust::Slice<const uint8_t> plan,
                        bool allow_host_code) noexcept;
EngineFacts engine_facts(const std::shared_ptr<Engine>& engine) noexcept;
rust::String engine_layers_json(const std::shared_ptr<Engine>& engine) noexcept;

ContextReply create_context(const std::shared_ptr<Engine>& engine, uint32_t profile, std::size_t stream,
                            bool caller_gives_memory) noexcept;
void set_device_memory(Context& context, std::size_t address, uint64_t bytes) noexcept;
Failure set_input_shape(Context& context, rust::Str tensor, rust::Slice<const int64_t> shape) noexcept;
rust::Vec<int64_t> tensor_shape(const Context& context, rust::Str tensor) noexcept;
Failure set_tensor_address(Context& context, rust::Str tensor, std::size_t address) noexcept;
bool all_shapes_specified(Context& context) noexcept;
rust::Vec<rust::String> take_log(Context& context) noexcept;
void profile_layers(Context& context) noexcept;
rust::Vec<LayerTime> take_layer_times(Context& context) noexcept;

}  // namespace tickrt::ffi
