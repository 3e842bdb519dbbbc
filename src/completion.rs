//! How a device says that an answer is there, and a host that an input is: the only atomics of the data plane.
//!
//! Two ways, a backend's choice. A **flag** is written after the outputs, with release order: for answers of any size. An
//! answer **in band** carries the call's number beside each word, so that no word waits for another's arrival: for small
//! ones, about a microsecond sooner over PCIe. The input of a call launched ahead may go in band likewise, two microseconds
//! sooner.
//!
//! # Why the reader sees the answer
//!
//! **The flag.** Threads of the publish kernel store the outputs to mapped host memory and meet at `__syncthreads`; then one of
//! them stores the flag with `st.release.sys`. The barrier puts the block's stores before that one, and in PTX's memory model a
//! release at system scope is cumulative: what happens before it, other threads' stores included, is visible to whoever acquires
//! the flag, the host included. On the host `load(Acquire)` reads the flag: on x86-64 a plain load, which neither the processor
//! nor, for its being an acquire, the compiler moves later loads ahead of. So stores of outputs, barrier, release, acquire, reads
//! of outputs: each happens before the next. `kernels/publish.cuh` has the other half.
//!
//! **In band.** Number and data are one aligned word of 8 bytes. CUDA stores and x86-64 loads it whole, so no ordering is
//! needed between words; the session reads every one until each shows the call's number. Relaxed suffices: a word that shows
//! the number is that call's word. The next writer of a unit comes only after the session has launched the slot again, which
//! it does after it has read the answer.
//!
//! **The way there.** The session writes input and header, and then launches: CUDA orders what the host wrote before a launch
//! before the kernel's reads. A graph launched ahead polls the header's number with `ld.acquire.sys`
//! (`kernels/normalize.cuh`), which pairs with the session's release of that number after the input; or, of an input in band, it
//! polls each unit (`kernels/normalize_small.cuh`), for which what was said of answers holds the other way round.
//!
//! A window that is handed over whole to a device that keeps windows lies beside its units, as plain words: the unit that tells
//! how many rows come is stored with release order, and the device reads them behind a fence of system scope.
//!
//! **Through BAR1** the units of an input lie in the GPU's memory, which the host maps write-combined: stores leave the processor
//! in any order and in any company, each aligned 8 bytes whole, and the backend's `launch` flushes them. Units need no order
//! among each other, as above.
//!
//! **What could go wrong** is modelled in `tests/completion_model` with this very file over loom's atomics, the GPU being a
//! thread: an answer seen in part, one of an earlier call taken for this one's, a slot given out while its late answer is on
//! its way.

use std::ptr::NonNull;

use crate::atomic::{AtomicU64, Ordering};

/// One slot's flag: the sequence number of the last finished call in the upper 48 bits, its [`Status`] in the lower 16.
///
/// It lies in memory that the device writes (or, for a CPU backend, that the same thread writes). 48 bits last for
/// 89 years of 100 000 calls a second.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Completion(AtomicU64);

/// What the device saw while it computed an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status(pub u16);

impl Status {
    /// The input held NaN or infinity, and the normalisation refuses them.
    pub const NON_FINITE_INPUT: u16 = 1;
    /// It was launched ahead of its call, which did not come in time: nothing was computed.
    pub const EXPIRED: u16 = 2;

    #[inline]
    pub(crate) fn is(self, bit: u16) -> bool {
        self.0 & bit != 0
    }
}

/// Where a slot says that its answer is there.
#[derive(Debug, Clone, Copy)]
pub enum Done {
    /// The answer lies in the slot's outputs once the flag shows the call.
    Flag(NonNull<Completion>),
    /// The answer comes in units, one for each element of 4 bytes, output after output; the session moves it to the
    /// slot's outputs.
    InBand(NonNull<Unit>),
}

impl Completion {
    /// The call's status if call `sequence` has finished.
    #[inline]
    #[must_use]
    pub fn finished(&self, sequence: u64) -> Option<Status> {
        // Acquire pairs with the device's `st.release.sys` in kernels/publish.cuh, and with the release below: whoever
        // sees the number sees the output that was written before it.
        let seen = self.0.load(Ordering::Acquire);
        (seen >> 16 == sequence).then_some(Status(seen as u16))
    }

    /// Says that call `sequence` has finished: what a CPU backend does where the device's kernel would.
    #[inline]
    pub fn publish(&self, sequence: u64, status: Status) {
        // Release pairs with the acquire above.
        self.0.store(sequence << 16 | u64::from(status.0), Ordering::Release);
    }
}

/// One word in band. Of an answer: 4 bytes of data below, above them the lower 24 bits of the call's number and 8 of its
/// status. Of an input: 4 bytes of data, and the lower 32 bits of the call's number. An aligned 8-byte word is stored and
/// loaded whole, by x86-64 and by CUDA.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Unit(AtomicU64);

impl Unit {
    /// Says one word of call `sequence`: what a backend on the host does where the device's kernel would.
    #[inline]
    pub fn publish(&self, sequence: u64, status: Status, word: u32) {
        // Relaxed, here and below: the number and the data it speaks for are one word.
        self.0.store(u64::from(tag(sequence, status)) << 32 | u64::from(word), Ordering::Relaxed);
    }

    /// Hands one word of an input over: 4 bytes of data below, above them the lower 32 bits of the call's number.
    #[inline]
    fn send(&self, sequence: u64, word: u32) {
        self.0.store(sequence << 32 | u64::from(word), Ordering::Relaxed);
    }

    #[inline]
    fn status(&self, sequence: u64) -> Option<Status> {
        let seen = (self.0.load(Ordering::Relaxed) >> 32) as u32;
        let status = Status(seen as u16 & 0xff);
        (seen == tag(sequence, status)).then_some(status)
    }
}

#[inline]
fn tag(sequence: u64, status: Status) -> u32 {
    (sequence as u32) << 8 | u32::from(status.0 & 0xff)
}

/// Inputs and answers in band, as the units of one slot.
pub(crate) mod in_band {
    use super::{Status, Unit, tag};
    use crate::atomic::{Ordering, fence};
    use crate::backend::OutputShape;

    /// Beyond this many words the flag is no slower.
    const MOST_WORDS: usize = 256;

    /// After so many calls an answer's number comes again.
    pub(crate) const NUMBERS: u64 = 1 << 24;

    /// Whether these outputs can be delivered so.
    pub(crate) fn fits(outputs: &[OutputShape]) -> bool {
        outputs.iter().all(|output| output.data_type.size() == 4)
            && (1..=MOST_WORDS).contains(&outputs.iter().map(|output| output.count).sum())
    }

    /// The call's status once all of its units are there. The last is written last more often than not.
    #[inline]
    pub(crate) fn finished(units: &[Unit], sequence: u64) -> Option<Status> {
        let status = units.last()?.status(sequence)?;
        let whole = u64::from(tag(sequence, status)) << 32;
        // Without a way out on the way: half as long.
        let apart = units.iter().fold(0, |apart, unit| apart | (unit.0.load(Ordering::Relaxed) ^ whole));
        (apart >> 32 == 0).then_some(status)
    }

    /// Whether any unit looks like one of call `sequence`.
    #[inline]
    pub(crate) fn any(units: &[Unit], sequence: u64) -> bool {
        units.iter().any(|unit| unit.status(sequence).is_some())
    }

    /// Moves the words to `into`, where they lie plainly.
    #[inline]
    pub(crate) fn unpack(units: &[Unit], into: &mut [u32]) {
        for (word, unit) in into.iter_mut().zip(units) {
            *word = unit.0.load(Ordering::Relaxed) as u32;
        }
    }

    /// Hands the input of call `sequence` to the device. Pairs with kernels/normalize_small.cuh, for which every unit must
    /// carry the number: those beyond the words, too.
    #[inline]
    pub(crate) fn send(words: &[u32], units: &[Unit], sequence: u64) {
        let sent = send_by_fours(words, units, sequence);
        for (unit, &word) in units.iter().zip(words).skip(sent) {
            unit.send(sequence, word);
        }
        for unit in units.iter().skip(words.len()) {
            unit.send(sequence, 0);
        }
    }

    /// The same of fours of words, two units a store, in half the time; how many words those were. Of a store of aligned 16 bytes each aligned
    /// 8 arrive whole: processors with AVX store even all 16 so in memory that they cache (Intel SDM volume 3, 9.1.1; AMD APM volume 2, 7.3.2).
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn send_by_fours(words: &[u32], units: &[Unit], sequence: u64) -> usize {
        use std::arch::x86_64::{
            __m128i, _mm_loadu_si128, _mm_set1_epi32, _mm_store_si128, _mm_unpackhi_epi32, _mm_unpacklo_epi32,
        };
        let fours = words.len().min(units.len()) / 4;
        // Of a model's atomics, which are no plain words, nothing.
        let plain = size_of::<Unit>() == 8;
        if !plain || !std::arch::is_x86_feature_detected!("avx") || !units.as_ptr().addr().is_multiple_of(16) {
            return 0;
        }
        let from = words.as_ptr().cast::<__m128i>();
        let into = units.as_ptr().cast::<__m128i>().cast_mut();
        // SAFETY: so many fours of words and of units are there, and the units are aligned. Units are atomics: they may be written through a
        // shared reference, by this thread alone, and who reads them reads 8 bytes whole, on the device.
        unsafe {
            let number = _mm_set1_epi32(sequence as i32);
            for four in 0..fours {
                let words = _mm_loadu_si128(from.add(four));
                _mm_store_si128(into.add(2 * four), _mm_unpacklo_epi32(words, number));
                _mm_store_si128(into.add(2 * four + 1), _mm_unpackhi_epi32(words, number));
            }
        }
        4 * fours
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn send_by_fours(_words: &[u32], _units: &[Unit], _sequence: u64) -> usize {
        0
    }

    /// As [`send`], of a window's newest row, behind the number of rows that the call brings.
    #[inline]
    pub(crate) fn send_row(rows: u32, words: &[u32], units: &[Unit], sequence: u64) {
        let (front, units) = units.split_at(2);
        if rows > 1 {
            // Where units are write-combined, release does not keep them behind what was written elsewhere.
            fence(Ordering::SeqCst);
        }
        // Release pairs with the fence in kernels/resident/window.cuh: a window that is handed over whole lies beside its units.
        front[0].0.store(sequence << 32 | u64::from(rows), Ordering::Release);
        front[1].send(sequence, 0);
        send(words, units, sequence);
    }

    /// Tells a resident kernel that awaits call `sequence` to end: `kStop` in kernels/resident/turn.cuh.
    pub(crate) fn stop(unit: &Unit, sequence: u64) {
        const STOP: u64 = 1 << 31;
        unit.send(sequence ^ STOP, 0);
    }

    /// Takes [`stop`] back: the kernel goes on to await call `sequence`.
    pub(crate) fn take_back_stop(unit: &Unit, sequence: u64) {
        unit.send(sequence.wrapping_sub(1), 0);
    }

    /// Takes back what looks like the answer of call `sequence`.
    pub(crate) fn forget(units: &[Unit], sequence: u64) {
        for unit in units {
            unit.publish(!sequence, Status::default(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_in_band_is_there_when_all_of_its_words_are() {
        let units: [Unit; 3] = Default::default();
        let sequence = (1 << 24) - 1;
        for (i, unit) in units.iter().enumerate() {
            assert_eq!(in_band::finished(&units, sequence), None, "{i} words");
            unit.publish(sequence, Status(1), i as u32 + 7);
        }
        assert_eq!(in_band::finished(&units, sequence), Some(Status(1)));
        let mut words = [0; 3];
        in_band::unpack(&units, &mut words);
        assert_eq!(words, [7, 8, 9]);
        for other in [sequence - 1, sequence + 1, 0] {
            assert_eq!(in_band::finished(&units, other), None);
        }
    }

    #[test]
    fn input_in_band_has_its_number_beside_each_word_wherever_it_begins() {
        let units: [Unit; 40] = std::array::from_fn(|_| Unit::default());
        for (first, count) in [(0, 0), (0, 1), (1, 9), (2, 17), (3, 4), (4, 30)] {
            let words: Vec<u32> = (0..count as u32).map(|word| 0x8000_0001 + 3 * word).collect();
            let (sequence, behind) = ((7 << 32) + u64::from(u32::MAX) - count as u64, first + count + 2);
            units.iter().for_each(|unit| unit.send(1, 5));
            in_band::send(&words, &units[first..behind], sequence);
            for (place, unit) in units.iter().enumerate() {
                let word = match place.checked_sub(first) {
                    Some(word) if word < count => words[word],
                    Some(word) if word < count + 2 => 0,
                    _ => 5,
                };
                let number = if (first..behind).contains(&place) { sequence } else { 1 };
                assert_eq!(unit.0.load(Ordering::Relaxed), number << 32 | u64::from(word), "{first} {count} {place}");
            }
        }
    }

    #[test]
    fn call_of_so_long_ago_that_its_number_comes_again_is_forgotten() {
        let units: [Unit; 2] = Default::default();
        units.iter().for_each(|unit| unit.publish(5, Status::default(), 1));
        let again = 5 + (1 << 24);
        assert!(in_band::finished(&units, again).is_some());
        in_band::forget(&units, again);
        assert_eq!(in_band::finished(&units, again), None);
        units[1].publish(5, Status::default(), 1);
        assert!(in_band::any(&units, again) && in_band::finished(&units, again).is_none(), "one unit is enough");
    }
}
