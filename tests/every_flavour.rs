//! Every flavour of TensorRT against a stand-in library that writes down what it is asked: for the calls that no test machine
//! can make for real. A flavour whose headers were not there for the build is skipped, and named.
//!
//! What a test asks runs in a process of its own (the ignored tests), because TensorRT's library, its logger and the driver are
//! a process's.
mod common;
#[path = "common/onnx.rs"]
mod onnx;
mod standin;

use std::path::PathBuf;

use standin::{Child, Installed, flavours, load_cuda};
use tickrt::{
    Builder, BuilderConfig, Calibration, CalibrationMethod, ComputeCapabilities, Engine, Error, Flavour,
    HardwareCompatibility, Library, MemoryPool, OptimizationProfile, Plan, PrecisionConstraints, Preference,
    ProfilingVerbosity, Session, SessionConfig, Shapes,
};

/// The library that `Child::on` has named.
fn library() -> tickrt::Result<Library> {
    Library::open_any(&Preference::Any)
}

fn relu() -> Vec<u8> {
    onnx::model(
        vec![onnx::node("relu", "Relu", &["input"], &["output"])],
        vec![onnx::value("input", &[-1, 4])],
        vec![onnx::value("output", &[-1, 4])],
    )
}

fn profile() -> OptimizationProfile {
    OptimizationProfile::new().tensor("input", &[1, 4], &[2, 4], &[8, 4])
}

fn build(config: &BuilderConfig) -> tickrt::Result<tickrt::BuiltPlan> {
    Builder::new(&library()?).build_bytes(&relu(), config)
}

/// Nothing may be called that the stand-in did not expect.
#[track_caller]
fn assert_calls(flavour: Flavour, calls: &[String], expected: &[&str]) {
    let lines: Vec<&str> = calls.iter().map(String::as_str).collect();
    assert_eq!(lines, expected, "{flavour}");
}

/// Ends with the error, for the test that started this process to read.
fn report<T>(result: tickrt::Result<T>) {
    println!("{}", describe(&result.err().expect("an error")));
}

fn describe(error: &Error) -> String {
    format!("<<{:?}|{error}>>", error.kind())
}

// ---- configuring ----

#[test]
#[ignore = "a child's"]
fn child_configures() {
    let library = library().unwrap();
    let flavour = library.flavour();
    let cache = PathBuf::from(std::env::var_os("TIMING_CACHE").unwrap());
    let mut config = BuilderConfig::new()
        .name("asked")
        .workspace(64 << 20)
        .memory_pool(MemoryPool::TacticDram, 1 << 20)
        .profile(profile())
        .profile(OptimizationProfile::new().tensor("input", &[8, 4], &[16, 4], &[16, 4]))
        .builder_optimization_level(4)
        .max_aux_streams(1)
        .avg_timing_iterations(3)
        .tf32(false)
        .profiling_verbosity(ProfilingVerbosity::Detailed)
        .timing_cache_file(&cache);
    if flavour == Flavour::Rtx {
        config = config.compute_capabilities(ComputeCapabilities::List(vec![86, 120]));
    } else {
        config = config.version_compatible(true).hardware_compatibility(HardwareCompatibility::AmperePlus);
    }
    if !flavour.is_strongly_typed() {
        config = config.fp16(true).precision_constraints(PrecisionConstraints::Obey).keep_fp32(["relu"]);
    }
    if flavour == Flavour::Trt10 {
        config = config.bf16(true).memory_pool(MemoryPool::TacticSharedMemory, 4096);
    }
    let mut seen = Vec::new();
    let (send, steps) = std::sync::mpsc::channel();
    let mut builder = Builder::new(&library).progress(move |progress| {
        send.send((progress.phase.to_owned(), progress.step)).unwrap();
        std::ops::ControlFlow::Continue(())
    });
    let built = builder.build_bytes(&relu(), &config).unwrap();
    drop(builder);
    seen.extend(steps);
    assert_eq!((built.flavour, built.version), (flavour, library.version()));
    assert_eq!(built.bytes.len(), 64);
    assert!(seen.contains(&("parse".to_owned(), 1)), "{seen:?}");
    assert_eq!(seen.contains(&("Building Engine".to_owned(), 2)), flavour != Flavour::Trt8, "{seen:?}");
    assert_eq!(cache.exists(), flavour != Flavour::Rtx);
    println!("parsed {}", relu().len());
}

#[test]
fn builder_is_configured_as_each_flavour_wants_it() {
    for flavour in flavours() {
        let (installed, folder) = (Installed::whole(flavour), tempfile::tempdir().unwrap());
        let cache = folder.path().join("timing.cache");
        let child = Child::new("child_configures").on(&installed);
        let calls = child.with("TIMING_CACHE", cache.to_str().unwrap()).calls();
        let parse = format!("Parser.parse {} null", relu().len());
        let flags = !flavour.is_strongly_typed();
        let only = |when: bool, lines: &'static [&'static str]| if when { lines } else { &[] };
        let expected = [
            &["createInferBuilder of the headers' version"][..],
            match flavour {
                Flavour::Trt8 => &["Builder.createNetworkV2 EXPLICIT_BATCH"],
                _ => &["Builder.createNetworkV2"],
            },
            &["Network.setName asked", "createNvOnnxParser of the headers' version", &parse],
            &["Config.setMemoryPoolLimit WORKSPACE 67108864", "Config.setMemoryPoolLimit TACTIC_DRAM 1048576"],
            only(flavour == Flavour::Trt10, &["Config.setMemoryPoolLimit TACTIC_SHARED_MEMORY 4096"]),
            &["Config.setBuilderOptimizationLevel 4", "Config.setMaxAuxStreams 1", "Config.setAvgTimingIterations 3"],
            &["Config.setProfilingVerbosity DETAILED"],
            only(flavour == Flavour::Trt8, &["Config.setPreviewFeature PROFILE_SHARING_0806 on"]),
            &["Config.clearFlag TF32"],
            only(flags, &["Config.setFlag FP16"]),
            only(flavour == Flavour::Trt10, &["Config.setFlag BF16"]),
            only(flags, &["Config.setFlag OBEY_PRECISION_CONSTRAINTS"]),
            match flavour {
                Flavour::Rtx => &[
                    "Config.setNbComputeCapabilities 2",
                    "Config.setComputeCapability 0 86",
                    "Config.setComputeCapability 1 120",
                ],
                _ => &["Config.setFlag VERSION_COMPATIBLE", "Config.setHardwareCompatibilityLevel AMPERE_PLUS"],
            },
            &["Profile.setDimensions input MIN 1x4", "Profile.setDimensions input OPT 2x4"],
            &["Profile.setDimensions input MAX 8x4", "Config.addOptimizationProfile"],
            &["Profile.setDimensions input MIN 8x4", "Profile.setDimensions input OPT 16x4"],
            &["Profile.setDimensions input MAX 16x4", "Config.addOptimizationProfile"],
            only(flags, &["relu.setPrecision FLOAT", "relu.setOutputType 0 FLOAT"]),
            only(flavour != Flavour::Rtx, &["Config.createTimingCache 0", "Config.setTimingCache check"]),
            &["Builder.buildSerializedNetwork"],
            only(flavour != Flavour::Rtx, &["TimingCache.serialize"]),
        ];
        assert_calls(flavour, &calls, &expected.concat());
    }
}

#[test]
#[ignore = "a child's"]
fn child_builds_the_smoke_network() {
    let library = library().unwrap();
    let typed = BuilderConfig::new().strongly_typed(library.flavour() == Flavour::Trt10);
    let built = Builder::new(&library).build_smoke_network(&typed).unwrap();
    let names: Vec<&str> = built.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["input", "output"]);
}

#[test]
fn network_made_by_hand_is_made_with_the_flags_of_its_flavour() {
    for flavour in flavours() {
        let installed = Installed::whole(flavour).without_parser();
        let calls = Child::new("child_builds_the_smoke_network").on(&installed).calls();
        let network = calls.iter().find(|call| call.starts_with("Builder.createNetworkV2")).unwrap();
        let expected = match flavour {
            Flavour::Trt8 => "Builder.createNetworkV2 EXPLICIT_BATCH",
            Flavour::Trt10 => "Builder.createNetworkV2 STRONGLY_TYPED",
            _ => "Builder.createNetworkV2",
        };
        assert_eq!(network, expected);
        assert!(calls.iter().all(|call| !call.starts_with('?')), "{flavour}: {calls:?}");
    }
}

// ---- calibrating ----

#[test]
#[ignore = "a child's"]
fn child_calibrates() {
    load_cuda();
    let method = match &*std::env::var("METHOD").unwrap() {
        "entropy" => CalibrationMethod::Entropy,
        "min-max" => CalibrationMethod::MinMax,
        _ => CalibrationMethod::Percentile(99.9),
    };
    let cache = PathBuf::from(std::env::var_os("CACHE").unwrap());
    let shapes = Shapes::from([("input".to_owned(), vec![2, 4])]);
    let mut calibration = Calibration::new(method).shapes(shapes).cache_file(&cache);
    if !cache.exists() {
        calibration = calibration.samples((1..=3_u8).map(|batch| vec![f32::from(batch); 8]).collect::<Vec<_>>());
    }
    let config = BuilderConfig::new().int8(true).profile(profile());
    Builder::new(&library().unwrap()).calibration(calibration).build_bytes(&relu(), &config).unwrap();
    let kept = std::fs::read_to_string(cache).unwrap();
    assert!(kept.contains("input: 3c010a14"), "TensorRT's result is kept: {kept}");
}

#[test]
fn calibrator_is_given_and_fed_where_the_flavour_calibrates() {
    for flavour in flavours().into_iter().filter(|flavour| !flavour.is_strongly_typed()) {
        let installed = Installed::whole(flavour);
        for method in ["entropy", "min-max", "percentile"] {
            let folder = tempfile::tempdir().unwrap();
            let cache = folder.path().join("calibration.cache");
            let run = || {
                let child = Child::new("child_calibrates").on(&installed).with_cuda(&[]).with("METHOD", method);
                child.with("CACHE", cache.to_str().unwrap()).calls()
            };
            let calls = run();
            let of = |what: &str| calls.iter().filter(|call| call.starts_with(what)).cloned().collect::<Vec<_>>();
            assert_eq!(of("Config.setFlag"), ["Config.setFlag INT8"], "{flavour}");
            assert_eq!(of("Config.setInt8Calibrator").len(), 1, "{flavour}");
            assert_eq!(of("Config.setQuantizationFlag").len(), usize::from(method == "percentile"), "{flavour}");
            let profile = calls.iter().position(|call| call == "Config.setCalibrationProfile").unwrap();
            let limits = ["MIN", "OPT", "MAX"].map(|limit| format!("Profile.setDimensions input {limit} 2x4"));
            assert_eq!(calls[profile - 3..profile], limits, "{flavour}");
            let batches = [1, 2, 3].map(|batch| format!("Calibrator.getBatch {batch}.000000 to {batch}.000000"));
            assert_eq!(of("Calibrator.getBatch"), batches, "{flavour}");
            assert!(calls.iter().all(|call| !call.starts_with('?')), "{flavour}: {calls:?}");
            // Without data the next time: what was found is what TensorRT is given.
            let again = run();
            let fed: Vec<_> = again.iter().filter(|call| call.starts_with("Calibrator.")).collect();
            assert!(matches!(*fed, [one] if one.starts_with("Calibrator.readCalibrationCache")), "{again:?}");
        }
    }
}

// ---- errors of the build ----

#[test]
#[ignore = "a child's"]
fn child_fails_to_build() {
    report(build(&BuilderConfig::new().workspace(1 << 20).profile(profile())));
}

#[test]
fn errors_of_the_build_are_passed_on_in_full() {
    for flavour in flavours() {
        let installed = Installed::whole(flavour);
        let with_names = "node 7 `frobnicate_1` (Frobnicate): standin: no importer for operator Frobnicate";
        let without = "node 7: standin: no importer for operator Frobnicate";
        let parse = if flavour == Flavour::Trt8 { without } else { with_names };
        for (step, kind, parts) in [
            ("parse", "UnsupportedOperator", vec![parse, "[UNSUPPORTED_NODE, importer.cpp:42 in importNode]"]),
            ("network", "Build", vec!["create a network", "nothing came back"]),
            ("configure", "Unsupported", vec!["set the builder's options", "standin: no such pool"]),
            ("profile", "Shape", vec!["set the optimization profile of `input`", "TensorRT refused it"]),
            (
                "build",
                "Build",
                vec![
                    "serialize the network: expected",
                    "standin: [optimizer.cpp::computeCosts::1] Error Code 10: no tactic for node relu",
                    "standin: [builder.cpp::build::2] Error Code 2: the second line",
                ],
            ),
        ] {
            let said = Child::new("child_fails_to_build").on(&installed).with(standin::FAIL, step).said();
            assert!(said.contains(&format!("<<{kind}|")), "{flavour}, {step}: {said}");
            let parts = parts.into_iter().map(|part| part.trim_end_matches(": expected"));
            parts.for_each(|part| assert!(said.contains(part), "{flavour}, {step}: `{part}` is not in: {said}"));
        }
    }
}

// ---- functions that are missing ----

#[test]
#[ignore = "a child's"]
fn child_lacks_something() {
    let opened = Library::open_any(&Preference::Path(std::env::var_os("TICKRT_TENSORRT").unwrap().into()));
    match opened {
        Err(error) => println!("{}", describe(&error)),
        Ok(library) => {
            load_cuda();
            let built = Builder::new(&library).build_bytes(&relu(), &BuilderConfig::new().profile(profile()));
            let plan = Plan::read_unverified(std::env::var_os("PLAN").unwrap()).unwrap();
            for error in [built.err(), Engine::from_plan(&plan, 0).err()].iter().flatten() {
                println!("{}", describe(error));
            }
        }
    }
}

#[test]
fn library_that_lacks_a_function_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for flavour in flavours() {
        let plan = plan_of(flavour, folder.path());
        let said = |installed: &Installed| {
            let child = Child::new("child_lacks_something").on(installed).with_cuda(&[]);
            child.with("PLAN", plan.to_str().unwrap()).said()
        };
        for function in [
            "getInferLibVersion",
            "createInferBuilder_INTERNAL",
            "createInferRuntime_INTERNAL",
            "createNvOnnxParser_INTERNAL",
        ] {
            let said = said(&Installed::without(flavour, function));
            // Building needs no runtime, and loading neither builder nor parser: one error each.
            let errors: Vec<&str> = said.split("<<").skip(1).collect();
            assert_eq!(errors.len(), 1, "{flavour}: {said}");
            let named = errors[0].starts_with("TensorRtMissing|") && errors[0].contains(function);
            assert!(named, "{flavour}, {function}: {said}");
        }
        let said = said(&Installed::whole(flavour).without_parser());
        let cannot_open =
            said.contains("<<TensorRtMissing|") && said.contains("onnxparser") && said.contains("install it beside");
        assert!(cannot_open, "{flavour}: {said}");
    }
}

#[test]
fn version_that_no_headers_fit_is_refused_before_anything_is_called() {
    for flavour in flavours() {
        let versions: &[(&str, &str)] = match flavour {
            Flavour::Trt8 => &[("8503", "TensorRT before 8.6"), ("9300", "9.3.0")],
            Flavour::Trt10 => &[("120000", "12.0.0")],
            Flavour::Trt11 => &[("130100", "13.1.0")],
            Flavour::Rtx => &[("10400", "changes its ABI"), ("19900", "changes its ABI")],
        };
        let installed = Installed::whole(flavour);
        for (version, part) in versions {
            let child = Child::new("child_lacks_something").on(&installed).with(standin::VERSION, version);
            let (calls, said) = child.run();
            assert!(said.contains("<<TensorRtMissing|") && said.contains(part), "{flavour} {version}: {said}");
            assert!(calls.is_empty(), "{flavour} {version}: {calls:?}");
        }
    }
}

#[test]
fn version_that_fits_though_it_is_another_than_the_headers_is_taken() {
    for flavour in flavours() {
        // Newer than any, or, where a minor release may change the ABI, one between the first that is known and the headers.
        let version = match flavour {
            Flavour::Trt8 => "8700",
            Flavour::Trt10 => "109900",
            Flavour::Trt11 => "119900",
            Flavour::Rtx => "10599",
        };
        let installed = Installed::whole(flavour);
        let child = Child::new("child_builds_the_smoke_network").on(&installed).with(standin::VERSION, version);
        let calls = child.calls();
        assert!(calls.iter().any(|call| call == "Builder.buildSerializedNetwork"), "{flavour}: {calls:?}");
    }
}

// ---- side by side ----

#[test]
#[ignore = "a child's"]
fn child_uses_several() {
    let paths = std::env::var("LIBRARIES").unwrap();
    let libraries = paths.split(':').map(|path| Library::open_any(&Preference::Path(path.into())).unwrap());
    let libraries: Vec<Library> = libraries.collect();
    for _ in 0..2 {
        for library in &libraries {
            let built = Builder::new(library).build_bytes(&relu(), &BuilderConfig::new().profile(profile())).unwrap();
            assert_eq!((built.flavour, built.version), (library.flavour(), library.version()));
            // The plan says which library made it.
            assert_eq!(u32::from(built.bytes[24]), library.version().major);
        }
    }
}

#[test]
fn flavours_work_side_by_side_in_one_process() {
    let installed: Vec<_> = flavours().into_iter().map(Installed::whole).collect();
    let paths: Vec<String> = installed.iter().map(|installed| installed.library().display().to_string()).collect();
    let calls = Child::new("child_uses_several").with("LIBRARIES", &paths.join(":")).calls();
    let builds = calls.iter().filter(|call| *call == "Builder.buildSerializedNetwork").count();
    assert_eq!(builds, 2 * installed.len(), "{calls:?}");
}

// ---- running ----

/// A plan as the stand-in of `flavour` makes it.
fn plan_of(flavour: Flavour, folder: &std::path::Path) -> PathBuf {
    let version = flavour.headers().unwrap();
    let mut bytes = vec![0_u8; 64];
    bytes[..4].copy_from_slice(if flavour == Flavour::Rtx { b"vtrt" } else { b"ftrt" });
    bytes[16] = 64;
    for (at, part) in [version.major, version.minor, version.patch].into_iter().enumerate() {
        bytes[24 + at] = u8::try_from(part).unwrap();
    }
    let path = folder.join(format!("{}.engine", flavour.name()));
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A call of 8 rows, which the second profile admits. No warm-up: the stand-in device answers nothing.
fn session() -> tickrt::Result<Session> {
    load_cuda();
    let plan = Plan::read_unverified(std::env::var_os("PLAN").unwrap())?;
    let shapes = vec![Shapes::from([("input".to_owned(), vec![8, 4])])];
    Engine::from_plan(&plan, 0)?.session(&SessionConfig { shapes, depth: 1, warm_up: 0, ..SessionConfig::default() })
}

#[test]
#[ignore = "a child's"]
fn child_runs() {
    let session = session().unwrap();
    assert_eq!(session.why_no_graph(), None);
}

#[test]
#[ignore = "a child's"]
fn child_fails_to_run() {
    report(session());
}

/// Whether the kernels were compiled: without nvcc no session starts, with or without a GPU.
fn kernels_are_there() -> bool {
    let there = cfg!(tickrt_kernels);
    if !there {
        assert!(!standin::must_be_set_up(), "built without the kernels");
        eprintln!("skipped: built without the kernels, and no session starts without them");
    }
    there
}

#[test]
fn engine_is_loaded_and_run_as_each_flavour_wants_it() {
    if !kernels_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for flavour in flavours() {
        let (installed, plan) = (Installed::whole(flavour), plan_of(flavour, folder.path()));
        let child = Child::new("child_runs").on(&installed).with_cuda(&[]);
        let calls = child.with("PLAN", plan.to_str().unwrap()).calls();
        let tensorrt: Vec<&str> = calls.iter().map(String::as_str).filter(|call| !call.starts_with("cu")).collect();
        let [memory, context]: [&str; 2] = match flavour {
            Flavour::Trt8 => ["Context.setDeviceMemory given", "Engine.createExecutionContextWithoutDeviceMemory"],
            _ => ["Context.setDeviceMemoryV2 given 1024", "Engine.createExecutionContext USER_MANAGED"],
        };
        // Two slots, one of them to keep the device warm with: each runs once, and is captured once.
        let expected = [
            "createInferRuntime of the headers' version",
            "Runtime.setEngineHostCodeAllowed no",
            "Runtime.deserializeCudaEngine 64",
            context,
            "Context.setOptimizationProfileAsync 1 given",
            memory,
            "Context.setInputShape input 8x4",
            "Context.setTensorAddress input given",
            "Context.setTensorAddress output given",
            "Context.enqueueV3 given",
            "Context.enqueueV3 given",
            "Context.enqueueV3 given",
            "Context.enqueueV3 given",
        ];
        assert_eq!(tensorrt, expected, "{flavour}");
        let graphs = calls.iter().filter(|call| *call == "cuGraphInstantiate").count();
        assert_eq!(graphs, 2, "{flavour}: {calls:?}");
    }
}

#[test]
fn errors_of_running_are_passed_on_in_full() {
    let folder = tempfile::tempdir().unwrap();
    for flavour in flavours() {
        let (installed, plan) = (Installed::whole(flavour), plan_of(flavour, folder.path()));
        let steps = [
            ("deserialize", "PlanRefused", "standin: Error Code 1: Serialization (Serialization assertion failed)"),
            ("context", "OutOfMemory", "standin: Error Code 2: OutOfMemory (no further information)"),
            ("address", "InvalidArgument", "standin: Error Code 3: the address is not to its liking"),
            ("enqueue", "Execution", "standin: Error Code 1: Cuda Runtime (invalid resource handle)"),
        ];
        // What comes after the context needs the kernels.
        for (step, kind, line) in steps.into_iter().take(if kernels_are_there() { 4 } else { 2 }) {
            let child = Child::new("child_fails_to_run").on(&installed).with_cuda(&[]).with(standin::FAIL, step);
            let said = child.with("PLAN", plan.to_str().unwrap()).said();
            assert!(said.contains(&format!("<<{kind}|")) && said.contains(line), "{flavour}, {step}: {said}");
        }
    }
}

// ---- an older driver ----

#[test]
#[ignore = "a child's"]
fn child_runs_without_graphs() {
    let session = session().unwrap();
    println!("<<{}>>", session.why_no_graph().unwrap());
}

/// A driver without `functions`, on whatever flavour is there.
fn with_older_driver(test: &str, functions: &[&str]) -> Option<(Vec<String>, String)> {
    let flavour = standin::any_flavour().filter(|_| kernels_are_there())?;
    let (installed, folder) = (Installed::whole(flavour), tempfile::tempdir().unwrap());
    let plan = plan_of(flavour, folder.path());
    Some(Child::new(test).on(&installed).with_cuda(functions).with("PLAN", plan.to_str().unwrap()).run())
}

#[test]
fn driver_with_everything_launches_the_last_kernel_early() {
    let Some((calls, _)) = with_older_driver("child_runs", &[]) else { return };
    assert!(calls.iter().any(|call| call.starts_with("cuLaunchKernelEx tickrt_publish")), "{calls:?}");
}

#[test]
fn driver_without_launch_attributes_launches_without_them() {
    let Some((calls, _)) = with_older_driver("child_runs", &["cuLaunchKernelEx"]) else { return };
    assert!(calls.iter().any(|call| call.starts_with("cuLaunchKernel tickrt_publish")), "{calls:?}");
    assert!(calls.iter().any(|call| call == "cuGraphInstantiate"), "{calls:?}");
}

#[test]
fn driver_without_function_attributes_launches_the_last_kernel_in_turn() {
    let Some((calls, _)) = with_older_driver("child_runs", &["cuFuncGetAttribute"]) else { return };
    assert!(calls.iter().any(|call| call.starts_with("cuLaunchKernel tickrt_publish")), "{calls:?}");
}

#[test]
fn driver_without_graphs_starts_and_says_what_it_lacks() {
    for function in ["cuGraphInstantiateWithFlags", "cuGraphUpload", "cuStreamBeginCapture_v2"] {
        let Some((calls, said)) = with_older_driver("child_runs_without_graphs", &[function]) else { return };
        let told = ["capture a CUDA graph", &format!("the driver lacks {function}"), "update the driver"];
        told.iter().for_each(|part| assert!(said.contains(part), "`{part}` is not in: {said}"));
        assert!(!calls.iter().any(|call| call == "cuGraphInstantiate"), "{calls:?}");
    }
}

#[test]
fn driver_without_what_everything_needs_is_an_error_that_names_it() {
    let Some((_, said)) = with_older_driver("child_fails_to_run", &["cuMemAlloc_v2"]) else { return };
    for part in ["<<NoGpu|", "a libcuda without cuMemAlloc_v2", "470 or newer"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}
