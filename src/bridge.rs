//! The only `cxx` bridge: signatures and shared structs, nothing else.
//!
//! No nvinfer type and no nvinfer number crosses it. TensorRT renumbers its enums from major to major, so the enums
//! here are our own and `cpp/flavour/convert.h` maps them by name. What can go wrong comes back as a [`ffi::Failure`],
//! never as an exception; the conversions to this crate's types are in `native.rs`.

use crate::builder::Observer;
use crate::calibration::Calibrator;
use crate::library::native_log_line;

#[cxx::bridge(namespace = "tickrt::ffi")]
pub(crate) mod ffi {
    /// One header set that was compiled in.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Flavour {
        Trt8,
        Trt10,
        Trt11,
        Rtx,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Version {
        major: u32,
        minor: u32,
        patch: u32,
    }

    #[derive(Debug, Clone, Copy)]
    struct CompiledFlavour {
        flavour: Flavour,
        headers: Version,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Severity {
        Error,
        Warning,
        Info,
        Verbose,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum FailureKind {
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
    }

    /// What went wrong; `None` where nothing did.
    #[derive(Debug)]
    struct Failure {
        kind: FailureKind,
        operation: String,
        expected: String,
        got: String,
        advice: String,
        log: Vec<String>,
    }

    /// One error of the ONNX parser. Texts are empty and `node` is −1 where the parser doesn't say.
    #[derive(Debug)]
    struct ParserError {
        code: String,
        description: String,
        node: i32,
        node_name: String,
        operator_name: String,
        file: String,
        line: i32,
        function: String,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum ElementType {
        F32,
        F16,
        Bf16,
        F64,
        I8,
        U8,
        I16,
        I32,
        I64,
        Bool,
        /// One that this crate has no name for (FP8, INT4, FP4, E8M0).
        Other,
    }

    #[derive(Debug)]
    struct Tensor {
        name: String,
        is_input: bool,
        element: ElementType,
        shape: Vec<i64>,
        /// Whether TensorRT reads or writes it on the host (shape tensors).
        on_host: bool,
        /// TensorRT's words for the layout where it is not plain row-major, else empty.
        layout: String,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum MemoryPool {
        Workspace,
        DlaManagedSram,
        DlaLocalDram,
        DlaGlobalDram,
        TacticDram,
        TacticSharedMemory,
    }

    #[derive(Debug)]
    struct PoolLimit {
        pool: MemoryPool,
        bytes: u64,
    }

    #[derive(Debug)]
    struct ShapeRange {
        tensor: String,
        min: Vec<i64>,
        opt: Vec<i64>,
        max: Vec<i64>,
    }

    #[derive(Debug)]
    struct Profile {
        ranges: Vec<ShapeRange>,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum PrecisionConstraints {
        None,
        Prefer,
        Obey,
    }

    /// TensorRT 8 and 10: how activations' ranges are found.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum CalibrationAlgorithm {
        /// By the model's Q/DQ nodes, if at all.
        None,
        Entropy,
        MinMax,
        Percentile,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum HardwareCompatibility {
        None,
        AmperePlus,
        SameComputeCapability,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum ProfilingVerbosity {
        LayerNamesOnly,
        None,
        Detailed,
    }

    /// What the builder is asked for. What the flavour can't do was refused in Rust already.
    #[derive(Debug)]
    struct BuildOptions {
        network_name: String,
        pools: Vec<PoolLimit>,
        profiles: Vec<Profile>,
        /// −1: TensorRT's own default. The same for the other counts below.
        optimization_level: i32,
        max_aux_streams: i32,
        avg_timing_iterations: i32,
        fp16: bool,
        bf16: bool,
        int8: bool,
        fp8: bool,
        tf32: bool,
        strongly_typed: bool,
        precision_constraints: PrecisionConstraints,
        /// Nodes whose layers compute in FP32; without strong typing alone.
        keep_fp32: Vec<String>,
        calibration: CalibrationAlgorithm,
        /// Of `Percentile`, 0 to 1.
        calibration_quantile: f64,
        /// A calibration batch's shapes, where the network is dynamic.
        calibration_shapes: Profile,
        version_compatible: bool,
        hardware_compatibility: HardwareCompatibility,
        profiling_verbosity: ProfilingVerbosity,
        /// TensorRT-RTX: 75 for 7.5, 120 for 12.0; empty for the GPU at hand.
        compute_capabilities: Vec<u32>,
        use_timing_cache: bool,
        /// Keep TensorRT's info and verbose lines as well.
        verbose: bool,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum TimingCacheState {
        /// None was given, or the flavour has none.
        Unused,
        /// The given one fits.
        Used,
        /// The given one is another version's, another GPU's or damaged; a new one was begun.
        Stale,
    }

    #[derive(Debug)]
    struct BuildReply {
        failure: Failure,
        parser_errors: Vec<ParserError>,
        plan: Vec<u8>,
        timing_cache: Vec<u8>,
        timing_cache_state: TimingCacheState,
        tensors: Vec<Tensor>,
        /// The network's layers as the parser made them: a JSON array of objects with index, name, type.
        layers_json: String,
        has_half: bool,
        has_bfloat: bool,
        has_quantized: bool,
        warnings: Vec<String>,
        log: Vec<String>,
    }

    #[derive(Debug)]
    struct EngineFacts {
        name: String,
        tensors: Vec<Tensor>,
        profiles: Vec<Profile>,
        layers: u32,
        device_memory_bytes: u64,
        aux_streams: u32,
        hardware_compatibility: HardwareCompatibility,
        refittable: bool,
    }

    struct OpenReply {
        failure: Failure,
        flavour: Flavour,
        version: Version,
        path: String,
        library: SharedPtr<Library>,
    }

    struct EngineReply {
        failure: Failure,
        engine: SharedPtr<Engine>,
    }

    struct LayerTime {
        name: String,
        ms: f32,
    }

    struct ContextReply {
        failure: Failure,
        context: UniquePtr<Context>,
    }

    extern "Rust" {
        type Observer;

        /// Called from TensorRT's builder threads; `false` ends the build. Never unwinds.
        fn progress(self: &Observer, phase: &str, parent: &str, step: i32, steps: i32) -> bool;

        type Calibrator;

        /// Puts the next batch into device memory; `false`: there is none. This and the next three never unwind.
        fn next_batch(self: &Calibrator) -> bool;
        /// Where the batch of an input lies; 0 if there is no such input.
        fn address(self: &Calibrator, tensor: &str) -> usize;
        /// An earlier calibration's result, or nothing.
        fn cache(self: &Calibrator) -> Vec<u8>;
        fn keep_cache(self: &Calibrator, bytes: &[u8]);

        /// One line of TensorRT's for whoever listens. Never unwinds.
        fn native_log_line(severity: Severity, line: &str);

        /// One copy of a whole block; `rust::Vec` has element-wise appending alone.
        fn copy_bytes(bytes: &[u8]) -> Vec<u8>;
    }

    unsafe extern "C++" {
        include!("tickrt/cpp/bridge.h");

        #[namespace = "tickrt::api"]
        type Library;
        #[namespace = "tickrt::api"]
        type Engine;
        #[namespace = "tickrt::api"]
        type Context;

        fn compiled_flavours() -> Vec<CompiledFlavour>;

        /// Lines of at most this severity go to [`native_log_line`]; `forward` false: none.
        fn forward_log(forward: bool, least: Severity);

        /// `name` is what dlopen takes: a path or a soname.
        fn open_library(name: &str) -> OpenReply;

        /// Whether a TensorRT is linked in (the feature tensorrt-static), and that one.
        fn has_linked_library() -> bool;
        fn open_linked_library() -> OpenReply;

        fn build_onnx(
            library: &SharedPtr<Library>,
            onnx: &[u8],
            path: &str,
            options: &BuildOptions,
            timing_cache: &[u8],
            observer: &Observer,
            calibrator: &Calibrator,
        ) -> BuildReply;

        fn build_smoke(
            library: &SharedPtr<Library>,
            options: &BuildOptions,
            observer: &Observer,
            calibrator: &Calibrator,
        ) -> BuildReply;

        fn deserialize(library: &SharedPtr<Library>, plan: &[u8], allow_host_code: bool) -> EngineReply;

        fn engine_facts(engine: &SharedPtr<Engine>) -> EngineFacts;
        fn engine_layers_json(engine: &SharedPtr<Engine>) -> String;

        fn create_context(
            engine: &SharedPtr<Engine>,
            profile: u32,
            stream: usize,
            caller_gives_memory: bool,
        ) -> ContextReply;

        fn set_device_memory(context: Pin<&mut Context>, address: usize, bytes: u64);
        fn set_input_shape(context: Pin<&mut Context>, tensor: &str, shape: &[i64]) -> Failure;
        fn tensor_shape(context: &Context, tensor: &str) -> Vec<i64>;
        fn set_tensor_address(context: Pin<&mut Context>, tensor: &str, address: usize) -> Failure;
        fn all_shapes_specified(context: Pin<&mut Context>) -> bool;
        /// TensorRT's lines since the last call.
        fn take_log(context: Pin<&mut Context>) -> Vec<String>;
        /// From here on each `enqueue` waits for the GPU and tells what every layer took.
        fn profile_layers(context: Pin<&mut Context>);
        /// In the order of execution, since the last call.
        fn take_layer_times(context: Pin<&mut Context>) -> Vec<LayerTime>;

        /// `enqueueV3`: nothing is allocated on our side unless TensorRT logs.
        fn enqueue(self: Pin<&mut Context>, stream: usize) -> bool;
    }

    impl SharedPtr<Library> {}
    impl SharedPtr<Engine> {}
    impl UniquePtr<Context> {}
}

fn copy_bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}
