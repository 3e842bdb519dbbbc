//! What a call costs through the C API, beside the same call from Rust: both over a backend of plain memory that does
//! nothing, so that the difference is all there is. Rust's functions are inlined into their caller, as in a user's program;
//! C's are called.
//!
//! `cargo bench -p tickrt-capi --bench overhead`

use std::ffi::c_void;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use criterion::{Criterion, criterion_group, criterion_main};
use tickrt::backend::{CallShape, Health, OutputShape, Region, Signature, SlotHeader, SlotMemory};
use tickrt::{
    Backend, BackendKind, Completion, DataType, Done, IoMode, Normalization, Normalizer, Session, SessionConfig,
    Status, TensorInfo, WindowConfig,
};
use tickrt_capi::{
    Answer, CSession, MaybeError, Output, TicketParts, started, tickrt_session_free, tickrt_session_input,
    tickrt_session_poll, tickrt_session_push, tickrt_session_submit, tickrt_session_submit_window,
    tickrt_session_write,
};

const INPUT: usize = 256;
const OUTPUT: usize = 3;
const ROW: usize = 8;

#[repr(C, align(64))]
struct Memory {
    header: SlotHeader,
    done: Completion,
    output: [f32; 16],
    input: [f32; INPUT],
}

/// Answers at once, with whatever lies in its outputs.
struct Nothing {
    signature: Signature,
    slots: Vec<SlotMemory>,
    // Boxed one by one: the slots' addresses are out in the world.
    #[allow(clippy::vec_box)]
    _memory: Vec<Box<Memory>>,
}

impl Nothing {
    fn new(config: &SessionConfig) -> Self {
        let tensor = |name: &str, mode, count: usize| TensorInfo {
            name: name.into(),
            mode,
            data_type: DataType::F32,
            shape: vec![1, count as i64],
        };
        let (input, output) = (tensor("input", IoMode::Input, INPUT), tensor("output", IoMode::Output, OUTPUT));
        let normalizer = Normalizer::new(
            &Normalization::new("input", DataType::F32),
            &input,
            &input.shape,
            config.windows.as_ref().map(|windows| windows.row),
        );
        let shape = CallShape {
            inputs: vec![normalizer.expect("an identity")],
            outputs: vec![OutputShape { data_type: DataType::F32, shape: output.shape.clone(), count: OUTPUT }],
        };
        #[allow(clippy::vec_box)]
        let mut memory: Vec<Box<Memory>> = (0..config.depth)
            .map(|_| {
                let (header, done) = (SlotHeader::default(), Completion::default());
                Box::new(Memory { header, done, output: [0.0; 16], input: [0.0; INPUT] })
            })
            .collect();
        let slots = memory.iter_mut().map(|slot| SlotMemory {
            input_units: None,
            newest_row: None,
            header: NonNull::from(&mut slot.header),
            inputs: vec![Region { start: NonNull::from(&mut slot.input).cast(), bytes: INPUT * 4 }],
            outputs: vec![Region { start: NonNull::from(&mut slot.output).cast(), bytes: OUTPUT * 4 }],
            done: Done::Flag(NonNull::from(&mut slot.done)),
        });
        let slots = slots.collect();
        let signature = Signature { inputs: vec![input], outputs: vec![output], shapes: vec![shape] };
        Self { signature, slots, _memory: memory }
    }
}

// SAFETY: every slot is a box of its own that lives as long as the backend; nothing is computed.
unsafe impl Backend for Nothing {
    fn kind(&self) -> BackendKind {
        BackendKind::Custom
    }
    fn description(&self) -> &str {
        "nothing"
    }
    fn engine_id(&self) -> [u8; 32] {
        [0; 32]
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn slots(&self) -> &[SlotMemory] {
        &self.slots
    }
    fn graph(&self) -> Result<(), &str> {
        Err("nothing")
    }
    fn keeps_windows(&self) -> bool {
        false
    }
    fn launch(&mut self, slot: usize, _: usize) -> tickrt::Result<()> {
        let Done::Flag(done) = self.slots[slot].done else { unreachable!("`new` makes flags") };
        // SAFETY: the slots live as long as `self`.
        unsafe { done.as_ref().publish(self.slots[slot].header.as_ref().sequence, Status::default()) };
        Ok(())
    }
    fn health(&mut self) -> Health {
        Health::Idle
    }
    fn device_memory(&self) -> u64 {
        0
    }
    fn quarantine(&mut self) {}
}

fn session() -> Session {
    let config = SessionConfig { windows: Some(WindowConfig::new(1, ROW)), ..SessionConfig::default() };
    Session::start(Box::new(Nothing::new(&config)), &config).expect("a session")
}

/// The library's functions, called as C calls them: nothing of them is inlined here.
struct Library {
    input: extern "C" fn(Handle<'_>, usize) -> MaybeError,
    write: unsafe extern "C" fn(Handle<'_>, usize, *const c_void, usize, i32) -> MaybeError,
    submit: extern "C" fn(Handle<'_>, u64, Option<&mut MaybeUninit<TicketParts>>) -> MaybeError,
    push: unsafe extern "C" fn(Handle<'_>, u32, *const c_void, usize, i32) -> MaybeError,
    submit_window: extern "C" fn(Handle<'_>, u32, u64, Option<&mut MaybeUninit<TicketParts>>) -> MaybeError,
    poll: Poll,
}
type Handle<'a> = Option<&'a mut CSession>;
type Poll = unsafe extern "C" fn(
    Handle<'_>,
    TicketParts,
    *const Output,
    usize,
    Option<&mut MaybeUninit<bool>>,
    Option<&mut MaybeUninit<Answer>>,
) -> MaybeError;

fn overhead(criterion: &mut Criterion) {
    let c = black_box(Library {
        input: tickrt_session_input,
        write: tickrt_session_write,
        submit: tickrt_session_submit,
        push: tickrt_session_push,
        submit_window: tickrt_session_submit_window,
        poll: tickrt_session_poll,
    });
    let (input, row, mut scores) = ([1.0_f32; INPUT], [1.0_f32; ROW], [0.0_f32; OUTPUT]);
    let fill = |session: &mut Session| (0..INPUT / ROW).for_each(|_| session.push(0, &row).expect("a row"));

    let mut group = criterion.benchmark_group("a call with its whole input");
    let mut rust = session();
    group.bench_function("Rust", |bencher| {
        bencher.iter(|| {
            let mut slot = rust.input().expect("a slot");
            slot.write(0, black_box(&input[..])).expect("an input");
            let ticket = slot.submit().expect("a ticket");
            rust.poll(ticket, &mut scores).expect("an answer")
        });
    });
    let mut handle = started(session());
    let outputs = Output::new(0, scores.as_mut_ptr().cast(), OUTPUT, DataType::F32);
    group.bench_function("C", |bencher| {
        bencher.iter(|| {
            let (mut ticket, mut done) = (MaybeUninit::<TicketParts>::uninit(), MaybeUninit::uninit());
            let mut answer = MaybeUninit::<Answer>::uninit();
            let data = black_box(&input).as_ptr().cast::<c_void>();
            assert!((c.input)(Some(&mut handle), 0).is_none());
            // SAFETY: as many elements as are said.
            assert!(unsafe { (c.write)(Some(&mut handle), 0, data, INPUT, 0) }.is_none());
            assert!((c.submit)(Some(&mut handle), 0, Some(&mut ticket)).is_none());
            // SAFETY: written, there was no error; one output, with room for its elements.
            let error = unsafe {
                let ticket = ticket.assume_init();
                (c.poll)(Some(&mut handle), ticket, &outputs, 1, Some(&mut done), Some(&mut answer))
            };
            // SAFETY: written, as there was no error.
            assert!(error.is_none() && unsafe { done.assume_init() });
        });
    });
    tickrt_session_free(Some(handle));
    group.finish();

    let mut group = criterion.benchmark_group("a call on a rolling window");
    let mut rust = session();
    fill(&mut rust);
    group.bench_function("Rust", |bencher| {
        bencher.iter(|| {
            rust.push(0, black_box(&row[..])).expect("a row");
            let ticket = rust.submit_window(0).expect("a ticket");
            rust.poll(ticket, &mut scores).expect("an answer")
        });
    });
    let mut session = session();
    fill(&mut session);
    let mut handle = started(session);
    let outputs = Output::new(0, scores.as_mut_ptr().cast(), OUTPUT, DataType::F32);
    group.bench_function("C", |bencher| {
        bencher.iter(|| {
            let (mut ticket, mut done) = (MaybeUninit::<TicketParts>::uninit(), MaybeUninit::uninit());
            let mut answer = MaybeUninit::<Answer>::uninit();
            let data = black_box(&row).as_ptr().cast::<c_void>();
            // SAFETY: as many elements as are said.
            assert!(unsafe { (c.push)(Some(&mut handle), 0, data, ROW, 0) }.is_none());
            assert!((c.submit_window)(Some(&mut handle), 0, 0, Some(&mut ticket)).is_none());
            // SAFETY: written, there was no error; one output, with room for its elements.
            let error = unsafe {
                let ticket = ticket.assume_init();
                (c.poll)(Some(&mut handle), ticket, &outputs, 1, Some(&mut done), Some(&mut answer))
            };
            // SAFETY: written, as there was no error.
            assert!(error.is_none() && unsafe { done.assume_init() });
        });
    });
    tickrt_session_free(Some(handle));
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
