//! Every interleaving of the session and a device, as far as the memory model allows. Loom's cells tell a data race; its atomics
//! give back every value that could be seen.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tickrt_completion_model::{Completion, Status, Unit, finished_in_band, forget, unpack};

/// A slot whose answer is two words behind a flag.
#[derive(Default)]
struct Slot {
    done: Completion,
    output: [UnsafeCell<u32>; 2],
}

// SAFETY: the cells are written by the device before it publishes and read by the session after it has seen that; loom looks
// after it.
unsafe impl Sync for Slot {}
// SAFETY: as above.
unsafe impl Send for Slot {}

impl Slot {
    /// What the publish kernel does.
    fn answer(&self, sequence: u64) {
        for (place, word) in self.output.iter().enumerate() {
            // SAFETY: as for `Sync`.
            word.with_mut(|word| unsafe { *word = words(sequence)[place] });
        }
        self.done.publish(sequence, Status::default());
    }

    /// What the session does when it sees the number.
    fn read(&self) -> [u32; 2] {
        // SAFETY: as for `Sync`.
        [0, 1].map(|place| self.output[place].with(|word| unsafe { *word }))
    }
}

fn words(sequence: u64) -> [u32; 2] {
    [sequence as u32 * 10, sequence as u32 * 10 + 1]
}

/// Looks until `seen` gives something; loom needs to be told that another thread must run.
fn spin<T>(mut seen: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(seen) = seen() {
            return seen;
        }
        thread::yield_now();
    }
}

#[test]
fn answer_behind_a_flag_is_whole_when_its_number_is_seen() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let device = thread::spawn({
            let slot = Arc::clone(&slot);
            move || slot.answer(1)
        });
        assert_eq!(slot.done.finished(2), None, "not another call's");
        spin(|| slot.done.finished(1));
        assert_eq!(slot.read(), words(1));
        device.join().unwrap();
    });
}

#[test]
fn slot_given_up_is_lent_again_only_after_its_late_answer() {
    loom::model(|| {
        let slot = Arc::new(Slot::default());
        let launch = |sequence: u64| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.answer(sequence))
        };
        // The deadline of call 1 is missed; call 2 wants the slot.
        let late = launch(1);
        assert_eq!(slot.done.finished(2), None);
        spin(|| slot.done.finished(1));
        // Only now: launched before, both answers would race for the outputs.
        let next = launch(2);
        spin(|| slot.done.finished(2));
        assert_eq!(slot.read(), words(2), "never the late answer");
        late.join().unwrap();
        next.join().unwrap();
    });
}

#[test]
fn answer_in_band_is_whole_though_its_words_come_in_any_order() {
    loom::model(|| {
        let units: Arc<[Unit; 2]> = Arc::default();
        // Each of the kernel's threads stores one word, and none waits for another.
        let threads = [0, 1].map(|place| {
            let units = Arc::clone(&units);
            thread::spawn(move || units[place].publish(5, Status::default(), words(5)[place]))
        });
        spin(|| finished_in_band(&units[..], 5));
        let mut answer = [0; 2];
        unpack(&units[..], &mut answer);
        assert_eq!(answer, words(5));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn answer_in_band_of_the_same_short_number_is_not_taken_for_this_calls() {
    loom::model(|| {
        let units: Arc<[Unit; 2]> = Arc::default();
        let again = 5 + (1 << 24);
        // 2²⁴ calls ago this slot had an answer that looks like the next one's.
        units.iter().for_each(|unit| unit.publish(5, Status::default(), 0));
        forget(&units[..], again);
        let device = thread::spawn({
            let units = Arc::clone(&units);
            move || units.iter().enumerate().for_each(|(i, unit)| unit.publish(again, Status::default(), words(7)[i]))
        });
        spin(|| finished_in_band(&units[..], again));
        let mut answer = [0; 2];
        unpack(&units[..], &mut answer);
        assert_eq!(answer, words(7));
        device.join().unwrap();
    });
}
