//! The kernels' own source, compiled for the host and run thread by thread: what they compute is tested where no GPU is.
//! `tests/kernels.rs` tests the same on a GPU, where threads run at once.
#[path = "common/cases.rs"]
mod cases;
mod common;

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use cases::Random;
use half::{bf16, f16};
use tickrt::backend::tensorrt::testing::{Host, HostRun, read_in_band};
use tickrt::backend::{OutputShape, SlotHeader};
use tickrt::{DataType, IoMode, Layout, Normalization, Normalizer, Stats, Status, TensorInfo};

/// `tickrt_host_run`, compiled with CUDA's headers; `None` where they are missing.
fn kernels() -> Option<HostRun> {
    static KERNELS: OnceLock<Option<usize>> = OnceLock::new();
    let run = (*KERNELS.get_or_init(compile))?;
    // SAFETY: the function of kernels_on_host.cc has this type.
    Some(unsafe { std::mem::transmute::<usize, HostRun>(run) })
}

fn compile() -> Option<usize> {
    let root = common::root();
    let cuda = std::env::var_os("CUDA_HOME").map(PathBuf::from);
    let sdk = std::env::var_os("TICKRT_SDK").map(|sdk| PathBuf::from(sdk).join("cuda"));
    let include = cuda.into_iter().chain(sdk).map(|cuda| cuda.join("include")).find(|i| i.join("cuda_fp16.h").exists());
    let source = root.join("tests/common/kernels_on_host.cc");
    let (Some(include), true) = (include, source.exists()) else {
        assert!(std::env::var_os("TICKRT_REQUIRE_SDK").is_none(), "CUDA's headers or {} missing", source.display());
        eprintln!("skipped: CUDA's headers or the kernels' source are missing");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("kernels.so");
    let compiled = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
        .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-isystem"])
        .arg(include)
        .arg("-I")
        .arg(root.join("kernels"))
        .arg(source)
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let path = CString::new(library.to_str().unwrap()).unwrap();
    // SAFETY: opens the library just made, which has no initialisers, and leaves it open.
    let run = unsafe {
        let handle: *mut c_void = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        libc::dlsym(handle, c"tickrt_host_run".as_ptr())
    };
    assert!(!run.is_null());
    Some(run as usize)
}

fn host(ring_bytes: usize) -> Option<Host> {
    // SAFETY: it is that one.
    Some(unsafe { Host::new(kernels()?, ring_bytes) })
}

#[test]
fn normalize_agrees_with_the_scalar_version_bit_by_bit() {
    let (mut refused, mut small) = (0, 0);
    for (number, case) in cases::cases(600).iter().enumerate() {
        let Some(mut host) = host(0) else { return };
        let mut input = vec![0_u64; case.input.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut input)[..case.input.len()].copy_from_slice(&case.input);
        let mut expected = vec![0_u8; case.normalizer.output_bytes()];
        let outcome = case.normalizer.apply(&bytemuck::cast_slice(&input)[..case.input.len()], &mut expected);
        let (got, kernel_refused) = host.normalize(&case.normalizer, 0, &SlotHeader::default(), &case.input);
        assert_eq!(outcome.is_err(), kernel_refused, "case {number}: {:?}", case.what);
        refused += usize::from(kernel_refused);
        let half = case.normalizer.output_type() == DataType::F16;
        if outcome.is_ok() {
            assert!(common::same_bits(&expected, &got, half), "case {number}: {:?} {:?}", case.what, case.shape);
        }
        for in_band in [None, Some(3)] {
            let mut host = self::host(0).unwrap();
            let header = SlotHeader { awaited: 3, ..SlotHeader::default() };
            let got = match in_band {
                None => host.normalize_small(&case.normalizer, &header, &case.input),
                Some(number) => host.normalize_in_band(&case.normalizer, &header, &case.input, |_| number),
            };
            let Some((got, kernel_refused)) = got else { continue };
            small += 1;
            assert_eq!(outcome.is_err(), kernel_refused, "case {number}, in band {in_band:?}: {:?}", case.what);
            let same = outcome.is_err() || common::same_bits(&expected, &got, half);
            assert!(same, "case {number}, in band {in_band:?}: {:?} {:?}", case.what, case.shape);
        }
    }
    assert!(refused > 20 && small > 200, "{refused} refused, {small} of small inputs");
}

#[test]
fn windows_of_many_symbols_are_laid_out_in_time_order() {
    const ROWS: usize = 6;
    const ROW: usize = 3;
    const SYMBOLS: usize = 4;
    let what = Normalization::new("input", DataType::I16)
        .stats(Stats::PerFeature { mean: vec![1.0, 2.0, 3.0], std: vec![2.0, 4.0, 8.0] })
        .layout(Layout::ChannelsLastToFirst);
    let shape = vec![1, ROW as i64, ROWS as i64];
    let tensor =
        TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: DataType::F32, shape: shape.clone() };
    let normalizer = Normalizer::new(&what, &tensor, &shape, Some(ROW)).unwrap();
    let Some(mut host) = host(SYMBOLS * ROWS * ROW * 2) else { return };
    let mut random = Random(99);
    let mut feeds = vec![Vec::<[i16; ROW]>::new(); SYMBOLS];
    let mut sent = [0_usize; SYMBOLS];
    let mut compared = 0;
    for _ in 0..5000 {
        let symbol = random.below(SYMBOLS as u64) as usize;
        feeds[symbol].push([random.next() as i16, random.next() as i16, random.next() as i16]);
        let pushed = feeds[symbol].len();
        if pushed < ROWS || random.below(3) != 0 {
            continue;
        }
        let newest = (pushed - sent[symbol]).min(ROWS);
        sent[symbol] = pushed;
        let window = &feeds[symbol][pushed - ROWS..];
        let mut slot = vec![0_u8; ROWS * ROW * 2];
        // What the slot holds of older rows is rubbish.
        slot.fill(0x5a);
        let at = (ROWS - newest) * ROW * 2;
        slot[at..].copy_from_slice(bytemuck::cast_slice(window[ROWS - newest..].as_flattened()));
        let header = SlotHeader {
            sequence: 1,
            awaited: 1,
            window: 1,
            symbol: symbol as u32,
            new_rows: newest as u32,
            oldest: (pushed % ROWS) as u32,
        };
        let (got, refused) = host.normalize(&normalizer, ROW, &header, &slot);
        let whole: Vec<u64> = {
            let bytes: &[u8] = bytemuck::cast_slice(window.as_flattened());
            let mut aligned = vec![0_u64; bytes.len().div_ceil(8)];
            bytemuck::cast_slice_mut(&mut aligned)[..bytes.len()].copy_from_slice(bytes);
            aligned
        };
        let mut expected = vec![0_u8; normalizer.output_bytes()];
        normalizer.apply(&bytemuck::cast_slice(&whole)[..normalizer.input_bytes()], &mut expected).unwrap();
        assert!(!refused);
        assert_eq!(got, expected, "symbol {symbol} after {pushed} rows, {newest} of them new");
        compared += 1;
    }
    assert!(compared > 1000, "{compared}");
}

#[test]
fn launch_ahead_computes_for_its_call_alone_and_gives_up_in_time() {
    const ROW: usize = 2;
    let tensor = TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: DataType::F32, shape: vec![1, 4] };
    for (what, windows) in [(DataType::F32, false), (DataType::F32, true), (DataType::U8, false), (DataType::U8, true)]
    {
        let scaled = Normalization::new("input", what).stats(Stats::PerTensor { mean: [1.0], std: [2.0] });
        let row = windows.then_some(ROW);
        let normalizer = Normalizer::new(&scaled, &tensor, &[1, 4], row).unwrap();
        let input = match what {
            DataType::U8 => vec![1_u8, 3, 5, 7],
            _ => bytemuck::cast_slice(&[1.0_f32, 3.0, 5.0, 7.0]).to_vec(),
        };
        let Some(mut host) = host(64) else { return };
        host.patience_us = 40;
        let header = |sequence| SlotHeader {
            sequence,
            awaited: 8,
            window: u32::from(windows),
            new_rows: 2,
            ..SlotHeader::default()
        };
        let output = OutputShape { data_type: DataType::F32, shape: vec![1], count: 1 };
        let status = |host: &mut Host| {
            let units = host.publish_in_band(DataType::F32, &output, &[0]).unwrap();
            read_in_band(&units, 8).expect("its number, whatever became of it").0
        };
        let (network, _) = host.normalize(&normalizer, row.unwrap_or(0), &header(7), &input);
        assert_eq!(network, [0; 16], "{what} {windows}: the call before is not this one's");
        assert_eq!(status(&mut host), Status(Status::EXPIRED));
        let (network, _) = host.normalize(&normalizer, row.unwrap_or(0), &header(8), &input);
        assert_eq!(bytemuck::cast_slice::<u8, f32>(&network), [0.0, 1.0, 2.0, 3.0], "{what} {windows}");
        assert_eq!(status(&mut host), Status::default());

        let (network, _) = host.normalize_in_band(&normalizer, &header(0), &input, |_| 7).unwrap();
        assert_eq!(network, [0; 16], "{what} in band: the call before is not this one's");
        assert_eq!(status(&mut host), Status(Status::EXPIRED));
        // All of it, the unit that makes an even number of one word, too, must be this call's.
        let units = input.len().div_ceil(4).next_multiple_of(2);
        for late in 0..units {
            host.normalize_in_band(&normalizer, &header(0), &input, |unit| if unit == late { 7 } else { 8 }).unwrap();
            assert_eq!(status(&mut host), Status(Status::EXPIRED), "{what}: unit {late} of {units}");
        }
        let (network, _) = host.normalize_in_band(&normalizer, &header(0), &input, |_| 8).unwrap();
        assert_eq!(bytemuck::cast_slice::<u8, f32>(&network), [0.0, 1.0, 2.0, 3.0], "{what} in band");
        assert_eq!(status(&mut host), Status::default());
    }
}

#[test]
fn publish_delivers_every_type_and_then_the_number() {
    let normalizer = {
        let tensor =
            TensorInfo { name: "input".into(), mode: IoMode::Input, data_type: DataType::F32, shape: vec![1, 4] };
        let refuse = Normalization::new("input", DataType::F32).clamp(-1.0, 1.0).non_finite(tickrt::NonFinite::Refuse);
        Normalizer::new(&refuse, &tensor, &[1, 4], None).unwrap()
    };
    let (mut sequence, mut in_band) = ((1_u64 << 40) + 5, 0);
    for network in [DataType::F32, DataType::F16, DataType::Bf16, DataType::I64, DataType::U8] {
        for count in [1_usize, 3, 16, 257, 1000] {
            for input in [[1.0_f32, 2.0, 3.0, 4.0], [1.0, f32::NAN, 3.0, 4.0]] {
                let Some(mut host) = host(0) else { return };
                sequence += 1;
                let header = SlotHeader { sequence, ..SlotHeader::default() };
                let (_, refused) = host.normalize(&normalizer, 0, &header, bytemuck::cast_slice(&input));
                assert_eq!(refused, input[1].is_nan());
                let delivered = tickrt::backend::delivered_type(network);
                let shape = OutputShape { data_type: delivered, shape: vec![count as i64], count };
                let values: Vec<f32> = (0..count).map(|i| (i % 50) as f32 * 0.25).collect();
                let bytes: Vec<u8> = match network {
                    DataType::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
                    DataType::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
                    DataType::I64 => values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
                    DataType::U8 => values.iter().map(|&v| v as u8).collect(),
                    _ => bytemuck::cast_slice(&values).to_vec(),
                };
                let mut output = vec![0_u64; bytes.len().div_ceil(8) + 1];
                bytemuck::cast_slice_mut(&mut output)[..bytes.len()].copy_from_slice(&bytes);
                let (got, done) = host.publish(network, &shape, &output);
                let expected = if delivered == network { bytes } else { bytemuck::cast_slice(&values).to_vec() };
                assert_eq!(got, expected, "{network} {count}");
                assert_eq!(done, sequence << 16 | u64::from(refused));
                // The status is for one call alone.
                assert_eq!(host.publish(network, &shape, &output).1, sequence << 16);

                let (_, refused) = host.normalize(&normalizer, 0, &header, bytemuck::cast_slice(&input));
                let Some(units) = host.publish_in_band(network, &shape, &output) else {
                    assert!(delivered.size() != 4 || count > 256, "{network} {count}");
                    continue;
                };
                let (status, words) = read_in_band(&units, sequence).expect("every unit carries the call's number");
                assert_eq!(bytemuck::cast_slice::<u32, u8>(&words), expected, "{network} {count} in band");
                assert_eq!(status.0 & Status::NON_FINITE_INPUT != 0, refused);
                assert!(read_in_band(&units, sequence + 1).is_none());
                let units = host.publish_in_band(network, &shape, &output).unwrap();
                assert_eq!(read_in_band(&units, sequence).unwrap().0, Status::default());
                in_band += 1;
            }
        }
    }
    assert_eq!(in_band, 3 * 3 * 2);
}
