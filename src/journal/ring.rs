//! The ring between the hot path and the file: one thread writes records, one other reads them, neither waits for a lock.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::{HEAD, Head, MARK, WhenFull};

/// Records of one size, oldest to newest from `taken` to `made`.
pub(super) struct Ring {
    words: Box<[UnsafeCell<u64>]>,
    words_a_record: usize,
    places: u64,
    when_full: WhenFull,
    /// Records written so far. The writer's own; its release tells the reader that they are whole.
    made: Line,
    /// Records read so far. The reader's own; its release tells the writer that their places are free.
    taken: Line,
    dropped: AtomicU64,
    /// The reader writes no file any more: nobody waits for it.
    broken: AtomicBool,
    pub(super) started: Instant,
}

/// A count on a cache line of its own: the other thread's stores must not take it away.
#[repr(align(128))]
struct Line(AtomicU64);

// SAFETY: `words` are written by the one `Writer` and read by the one `Reader`, and a place only by whom `made` and `taken`
// say that it belongs to.
unsafe impl Sync for Ring {}
// SAFETY: as above; nothing here belongs to a thread.
unsafe impl Send for Ring {}

/// The hot path's end. Whoever has several shares them among sessions of which one thread at a time uses any.
pub(crate) struct Writer(Arc<Ring>);

/// The file's end.
pub(super) struct Reader(Arc<Ring>);

/// A ring of so many bytes, at least four records, every page of it touched.
pub(super) fn ring(bytes: usize, record_bytes: usize, when_full: WhenFull) -> (Writer, Reader) {
    let words_a_record = record_bytes.div_ceil(8);
    let places = (bytes / (words_a_record * 8)).max(4);
    // No zeros: those the kernel would only promise.
    let words = (0..places * words_a_record).map(|_| UnsafeCell::new(u64::MAX)).collect();
    let (made, taken) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
    let ring = Arc::new(Ring {
        words,
        words_a_record,
        places: places as u64,
        when_full,
        made,
        taken,
        dropped: AtomicU64::new(0),
        broken: AtomicBool::new(false),
        started: Instant::now(),
    });
    (Writer(Arc::clone(&ring)), Reader(ring))
}

impl Ring {
    fn record(&self, number: u64) -> *mut u8 {
        let place = (number % self.places) as usize * self.words_a_record;
        // Of all its words, not of the first alone.
        UnsafeCell::raw_get(self.words[place..place + self.words_a_record].as_ptr()).cast()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn has_room(&self, made: u64) -> bool {
        // Acquire pairs with the release in `Reader::free`: what was there has been read.
        made - self.taken.0.load(Ordering::Acquire) < self.places
    }
}

impl Writer {
    /// For another session of the same predictor.
    pub(crate) fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Nanoseconds since the journal began.
    #[inline]
    pub(crate) fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0.started).as_nanos() as u64
    }

    /// Adds a record: `fill` writes the input and the output to where they go. Neither allocates nor calls the system.
    #[inline]
    pub(crate) fn write(&self, mut head: Head, fill: impl FnOnce(&mut [u8], &mut [u8])) {
        let ring = &*self.0;
        // Relaxed: this thread wrote it.
        let made = ring.made.0.load(Ordering::Relaxed);
        if !self.wait_for_room(made) {
            ring.dropped.store(ring.dropped() + 1, Ordering::Relaxed);
            return;
        }
        let (inputs, outputs) = (head.input_bytes as usize, head.output_bytes as usize);
        let bytes = (HEAD + inputs + outputs).next_multiple_of(8);
        assert!(bytes <= ring.words_a_record * 8, "the ring was made for the session's shapes");
        (head.mark, head.bytes, head.dropped) = (MARK, bytes as u32, ring.dropped());
        // SAFETY: the place is free, and the writer's alone until `made` says otherwise; it has `bytes`, all of them written
        // before.
        let record = unsafe { std::slice::from_raw_parts_mut(ring.record(made), bytes) };
        let (start, tensors) = record.split_at_mut(HEAD);
        start.copy_from_slice(bytemuck::bytes_of(&head));
        let (input, rest) = tensors.split_at_mut(inputs);
        let (output, padding) = rest.split_at_mut(outputs);
        fill(input, output);
        padding.fill(0);
        // Release pairs with the acquire in `Reader::ready`: who sees the count sees the record.
        ring.made.0.store(made + 1, Ordering::Release);
    }

    #[inline]
    fn wait_for_room(&self, made: u64) -> bool {
        let ring = &*self.0;
        while !ring.has_room(made) {
            if ring.when_full == WhenFull::Drop || ring.broken.load(Ordering::Relaxed) {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }
}

impl Reader {
    /// The numbers of the records that are there.
    pub(super) fn ready(&self) -> std::ops::Range<u64> {
        let taken = self.0.taken.0.load(Ordering::Relaxed);
        taken..self.0.made.0.load(Ordering::Acquire)
    }

    /// One of them, as long as it is not [freed](Self::free).
    pub(super) fn record(&self, number: u64) -> &[u8] {
        let start = self.0.record(number).cast_const();
        // SAFETY: `number` is one of `ready`: written whole, and not written again before it is freed.
        unsafe {
            let head = start.cast::<Head>().read();
            std::slice::from_raw_parts(start, head.bytes as usize)
        }
    }

    /// Gives the places of all before `number` back.
    pub(super) fn free(&self, number: u64) {
        self.0.taken.0.store(number, Ordering::Release);
    }

    /// Nothing is read any more.
    pub(super) fn give_up(&self) {
        self.0.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.0)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(tag: u64) -> Head {
        Head { tag, input_bytes: 16, output_bytes: 8, ..Head::default() }
    }

    fn tags(reader: &Reader) -> Vec<u64> {
        reader.ready().map(|number| bytemuck::pod_read_unaligned::<Head>(&reader.record(number)[..HEAD]).tag).collect()
    }

    #[test]
    fn full_ring_drops_the_new_and_counts_them() {
        let (writer, reader) = ring(0, 128, WhenFull::Drop);
        (0..7).for_each(|tag| writer.write(head(tag), |input, output| (input.fill(1), output.fill(2)).0));
        assert_eq!((tags(&reader), reader.ring().dropped()), (vec![0, 1, 2, 3], 3));
        reader.free(2);
        writer.write(head(7), |_, _| {});
        assert_eq!(tags(&reader), [2, 3, 7]);
        let last = reader.record(4);
        assert_eq!(bytemuck::pod_read_unaligned::<Head>(&last[..HEAD]).dropped, 3, "the gap is told");
    }

    #[test]
    fn writer_that_blocks_loses_nothing_and_does_not_wait_for_a_reader_that_is_gone() {
        let (writer, reader) = ring(0, 128, WhenFull::Block);
        let reads = std::thread::spawn(move || {
            let mut all = Vec::new();
            while all.len() < 1000 {
                all.extend(tags(&reader).into_iter().take(reader.ready().count()));
                reader.free(all.len() as u64);
            }
            all
        });
        (0..1000).for_each(|tag| writer.write(head(tag), |_, _| {}));
        assert!(reads.join().unwrap().into_iter().eq(0..1000));
        (0..10).for_each(|tag| writer.write(head(tag), |_, _| {}));
        assert_eq!(writer.0.dropped(), 6);
    }
}
