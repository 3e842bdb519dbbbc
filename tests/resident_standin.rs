//! The host's side of resident engines without a GPU: a stand-in libcuda plays the kernel of the network identity, and a stand-in
//! libvulkan has the GPU's memory that the host writes. In processes of their own (the ignored tests), as the driver is a process's.
mod common;
mod standin;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::model;
use standin::{Child, load_cuda};
use tickrt::onnx::Model;
use tickrt::resident::nvrtc::Nvrtc;
use tickrt::resident::{Artefact, ArtefactOptions, Asks};
use tickrt::{BackendKind, Error, ErrorKind, ResidentConfig, Session, SessionConfig, Shapes, Ticket, WaitStrategy};

/// Names the engine that the parent has built.
const ENGINE: &str = "ENGINE";
/// Whether calls go through BAR1.
const BAR1: &str = "BAR1";

/// The network identity for an H100, in `folder`.
fn engine(folder: &Path) -> Option<PathBuf> {
    if let Err(error) = Nvrtc::open() {
        assert!(!standin::must_be_set_up(), "{error}");
        eprintln!("skipped: {error}");
        return None;
    }
    let (path, options) =
        (folder.join("identity.resident"), ArtefactOptions { asks: Asks::Each, ..Default::default() });
    let network = Model::read(model("identity.onnx")).unwrap();
    Artefact::build(&network, None, &Shapes::new(), &options).unwrap().write(&path).unwrap();
    Some(path)
}

fn child(test: &str, engine: &Path, bar1: bool) -> Child {
    let child = Child::new(test).with_cuda(&[]).with(ENGINE, engine.to_str().unwrap());
    if bar1 { child.with(BAR1, "1") } else { child }
}

/// How often the stand-ins were asked.
fn count(calls: &[String], what: &str) -> usize {
    calls.iter().filter(|call| *call == what).count()
}

// ---- in a child ----

fn config() -> SessionConfig {
    // What never comes back must not hold the tests up.
    // SAFETY: a number.
    unsafe { libc::alarm(240) };
    load_cuda();
    let turn = Duration::from_millis(1);
    let bar1 = std::env::var_os(BAR1).is_some();
    let resident = ResidentConfig { turn, bar1, share_gpu: true, ..ResidentConfig::default() };
    // The stand-in's kernel may have no other core.
    let wait_strategy = WaitStrategy::SpinThenYield;
    SessionConfig { resident, wait_strategy, depth: 4, wait_limit: Duration::from_secs(20), ..SessionConfig::default() }
}

fn start(config: &SessionConfig) -> tickrt::Result<Session> {
    Session::resident(&Artefact::read(std::env::var_os(ENGINE).expect("set by `child`")).unwrap(), config)
}

/// Finite floats that tell the call and the place.
fn payload(call: u64) -> [f32; 8] {
    std::array::from_fn(|place| {
        let mixed = call.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
        f32::from_bits((mixed >> 32) as u32 & 0xbfff_ffff)
    })
}

fn submit(session: &mut Session, call: u64) -> (u64, Ticket) {
    let mut slot = session.input().unwrap();
    slot.write(0, &payload(call)).unwrap();
    (call, slot.submit().unwrap())
}

#[track_caller]
fn collect(session: &mut Session, (call, ticket): (u64, Ticket)) {
    let mut output = [0.0_f32; 8];
    session.wait(ticket, &mut output).unwrap();
    assert_eq!(output.map(f32::to_bits), payload(call).map(f32::to_bits), "call {call}");
}

fn turns(session: &Session) -> u64 {
    session.turns().unwrap().turns
}

/// Neither a thread of ours nor one of the stand-in's stays, nor a file. A thread may be on its way out.
#[track_caller]
fn assert_nothing_left(files: usize) {
    let left = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name.starts_with("tickrt-") || name.starts_with("standin-")).collect::<Vec<_>>()
    };
    let until = Instant::now() + Duration::from_secs(5);
    while !left().is_empty() {
        assert!(Instant::now() < until, "threads are left: {:?}", left());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(open_files(), files, "open files");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn describe(error: &Error) -> String {
    format!("<<{:?}|{error}>>", error.kind())
}

#[test]
#[ignore = "a child's"]
fn child_calls() {
    const CALLS: u64 = 10_000;
    let config = config();
    // The numbers wrap amid the calls: an answer's of 24 bits and an input's of 32.
    let resident = ResidentConfig { calls_before: (1 << 32) - CALLS / 2, ..config.resident };
    let files = open_files();
    let mut session = start(&SessionConfig { resident, ..config }).unwrap();
    assert_eq!(session.backend(), BackendKind::Resident);
    assert_eq!(session.description().ends_with("calls through BAR1"), resident.bar1, "{}", session.description());
    let (mut asked, mut rests) = (VecDeque::new(), 0);
    for call in 0..CALLS {
        // One to four in flight, in turns.
        while asked.len() as u64 > call / 100 % 4 {
            collect(&mut session, asked.pop_front().unwrap());
        }
        asked.push_back(submit(&mut session, call));
        // A rest with so many calls in flight, of four also with no slot for the sign to end.
        if call % 257 == 0 {
            session.rest();
            rests += 1;
            std::thread::sleep(Duration::from_millis(call % 5));
            if call % 2 == 0 {
                session.keep_warm().unwrap();
            }
        }
    }
    asked.drain(..).for_each(|asked| collect(&mut session, asked));
    let sums = session.turns().unwrap();
    println!("{CALLS} calls, {rests} rests, {sums:?}");
    assert!(sums.turns > 20 && sums.stopped > 0 && sums.met > 0, "{sums:?}");
    // Who rests leaves the GPU: behind what was queued no turn comes.
    session.rest();
    let until = Instant::now() + Duration::from_secs(20);
    let mut seen = turns(&session);
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = turns(&session);
        if now == seen {
            break;
        }
        assert!(Instant::now() < until, "it does not rest: {now} turns");
        seen = now;
    }
    let next = submit(&mut session, CALLS);
    collect(&mut session, next);
    while turns(&session) < seen + 5 {
        assert!(Instant::now() < until, "no turns behind the rest");
        std::thread::yield_now();
    }
    // With calls in flight, too.
    submit(&mut session, CALLS + 1);
    let started = Instant::now();
    drop(session);
    println!("dropped in {:.1?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_nothing_left(files);
}

#[test]
#[ignore = "a child's"]
fn child_starts_in_vain() {
    let config = config();
    let files = open_files();
    println!("{}", describe(&start(&config).expect_err("an error")));
    assert_nothing_left(files);
}

#[test]
#[ignore = "a child's"]
fn child_has_its_weights_spoiled() {
    let config = config();
    let files = open_files();
    // Once, at the start.
    let resident = ResidentConfig { known_answer_every: Duration::MAX, ..config.resident };
    let mut session = start(&SessionConfig { resident, ..config.clone() }).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while session.turns().unwrap().turns < 20 {
        session.infer(&[1.0_f32; 8], &mut [0.0_f32; 8]).unwrap();
        assert!(Instant::now() < until, "{:?}", session.turns());
    }
    assert_eq!(session.turns().unwrap().known_answers, 1);
    drop(session);
    let resident = ResidentConfig { known_answer_every: Duration::from_millis(5), ..config.resident };
    let mut session = start(&SessionConfig { resident, ..config }).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    for call in 0.. {
        let asked = submit(&mut session, call);
        collect(&mut session, asked);
        if session.turns().unwrap().known_answers >= 5 {
            break;
        }
        assert!(Instant::now() < until, "{:?}", session.turns());
    }
    std::fs::write(std::env::var_os(standin::SPOILED).unwrap(), "").unwrap();
    let error = loop {
        match session.infer(&[1.0_f32; 8], &mut [0.0_f32; 8]) {
            Ok(_) => assert!(Instant::now() < until, "still answers"),
            Err(error) => break error,
        }
    };
    println!("{}", describe(&error));
    assert_eq!(session.infer(&[1.0_f32; 8], &mut [0.0_f32; 8]).unwrap_err().kind(), error.kind(), "and stays so");
    drop(session);
    assert_nothing_left(files);
}

// ---- the parents ----

#[test]
fn calls_come_back_right_over_many_turns_and_rests() {
    let folder = tempfile::tempdir().unwrap();
    let Some(engine) = engine(folder.path()) else { return };
    for bar1 in [false, true] {
        let child = child("child_calls", &engine, bar1);
        let (calls, said) = if bar1 { child.with_vulkan() } else { child }.run();
        println!("{said}");
        assert!(count(&calls, "cuLaunchKernel tickrt_resident") > 20);
        // The GPU's memory is there once, and given back from the last user of it to the first.
        let ends: Vec<&str> =
            calls.iter().map(String::as_str).filter(|call| !call.contains("tickrt_resident")).collect();
        let expected = [
            "vkCreateInstance",
            "vkCreateDevice",
            "vkAllocateMemory",
            "cuImportExternalMemory",
            "cuDestroyExternalMemory",
            // The rest stays for the next engine.
            "vkFreeMemory",
        ];
        assert_eq!(ends, if bar1 { &expected[..] } else { &[] });
    }
}

#[test]
fn without_memory_of_the_gpu_that_the_host_writes_it_is_said_what_is_lacking() {
    let folder = tempfile::tempdir().unwrap();
    let Some(engine) = engine(folder.path()) else { return };
    let child = || child("child_starts_in_vain", &engine, true);
    let import = |step| child().with_vulkan().with(standin::FAIL, step);
    let lacks = |what| child().with_vulkan().with(standin::VULKAN, what);
    // SAFETY: a valid string; what is opened, if anything, stays open.
    let has_vulkan = unsafe { !libc::dlopen(c"libvulkan.so.1".as_ptr(), libc::RTLD_NOW).is_null() };
    // Whether it helps to install Vulkan.
    const INSTALL: &str = "install libvulkan.so.1";
    for (child, parts) in [
        // The machine's own Vulkan knows no GPU with the stand-in's UUID.
        (child(), if has_vulkan { &["Vulkan"][..] } else { &["no libvulkan.so.1", INSTALL] }),
        (lacks("no-driver"), &["no Vulkan driver", "ERROR_INCOMPATIBLE_DRIVER", INSTALL]),
        (lacks("no-device"), &["a Vulkan that sees no GPU", INSTALL]),
        (lacks("other-gpu"), &["a Vulkan that sees others than CUDA's GPU: Stand-in", INSTALL]),
        (lacks("no-memory"), &["no memory of the GPU that the host sees"]),
        (lacks("no-extension"), &["VK_KHR_external_memory_fd", "ERROR_EXTENSION_NOT_PRESENT", INSTALL]),
        (lacks("no-room"), &["no 2.0 MiB of such memory", "ERROR_OUT_OF_DEVICE_MEMORY"]),
        (lacks("no-map"), &["memory that is not mapped", "ERROR_MEMORY_MAP_FAILED"]),
        (lacks("no-export"), &["memory that is not exported", "ERROR_TOO_MANY_OBJECTS"]),
        (import("cuImportExternalMemory"), &["CUDA does not import"]),
        (import("cuExternalMemoryGetMappedBuffer"), &["CUDA does not import", "CUDA_ERROR_OUT_OF_MEMORY"]),
    ] {
        let (calls, said) = child.run();
        let error = said.split_once("<<").and_then(|(_, rest)| rest.split_once(">>")).expect("an error").0;
        println!("{error}\n");
        for part in ["Unavailable|", "BAR1", "leave ResidentConfig::bar1"].iter().chain(parts) {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert_eq!(error.contains(INSTALL), parts.contains(&INSTALL) || parts == ["Vulkan"], "{error}");
        for (made, given_back) in
            [("vkAllocateMemory", "vkFreeMemory"), ("cuImportExternalMemory", "cuDestroyExternalMemory")]
        {
            assert_eq!(count(&calls, made), count(&calls, given_back), "{made}: {error}");
        }
        // Only a GPU that is of use is kept.
        let kept = count(&calls, "vkCreateDevice");
        assert_eq!(count(&calls, "vkCreateInstance") - count(&calls, "vkDestroyInstance"), kept, "{error}");
        assert_eq!(count(&calls, "cuLaunchKernel tickrt_resident"), 0);
    }
}

#[test]
fn driver_without_external_memory_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(engine) = engine(folder.path()) else { return };
    let child = Child::new("child_starts_in_vain").with_cuda(&["cuDeviceGetUuid_v2"]).with_vulkan();
    let said = child.with(ENGINE, engine.to_str().unwrap()).with(BAR1, "1").said();
    println!("{said}");
    assert!(said.contains("<<Unavailable|") && said.contains("the driver lacks cuDeviceGetUuid_v2"), "{said}");
}

#[test]
fn weights_that_have_changed_end_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let Some(engine) = engine(folder.path()) else { return };
    for bar1 in [false, true] {
        let spoiled = folder.path().join(format!("spoiled-{bar1}"));
        let child = child("child_has_its_weights_spoiled", &engine, bar1).with_vulkan();
        let said = child.with(standin::SPOILED, spoiled.to_str().unwrap()).said();
        println!("{said}");
        assert!(said.contains(&format!("<<{:?}|", ErrorKind::WrongAnswer)), "{said}");
    }
}
