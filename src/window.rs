//! Rolling windows by symbol, on the host.
//!
//! `push` only copies the row into its symbol's ring here. Where the backend keeps rings on the device, a submit hands
//! over the rows that came since the symbol's last one; where it does not, the whole window. So the host always has
//! every window, and any backend can take over. A ring holds two windows, so that a window submitted a moment ago can
//! still be laid out after newer rows have come.

use crate::config::{GapPolicy, WindowConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::normalize::{NonFinite, Normalizer};
use crate::tensor::DataType;

/// The rings of all symbols, and how far each has come.
#[derive(Debug)]
pub(crate) struct Windows {
    row_bytes: usize,
    rows: usize,
    data_type: DataType,
    refuse_non_finite: bool,
    on_gap: GapPolicy,
    states: Box<[State]>,
    data: Box<[u8]>,
}

/// One symbol.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Rows ever pushed: row `n` lies at place `n % (2 * rows)` here and at `n % rows` on the device.
    pushed: u64,
    /// Rows since the start, a reset or a gap, at most a window's.
    filled: u32,
    /// Rows that the device has not seen, at most `filled`.
    pending: u32,
    after_gap: bool,
}

/// A window as it was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) symbol: u32,
    /// Rows pushed until then.
    pub(crate) pushed: u64,
}

impl Windows {
    pub(crate) fn new(config: &WindowConfig, input: &Normalizer) -> Result<Self> {
        let rows = input.count / config.row;
        if rows * config.row != input.count || rows == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "make rolling windows")
                .expected(format!("rows whose length divides the {} elements of the input", input.count))
                .got(format!("{} elements a row", config.row)));
        }
        let row_bytes = config.row * input.input_type.size();
        let bytes = (2 * rows * row_bytes).checked_mul(config.symbols as usize).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "make rolling windows").got("more bytes than can be counted")
        })?;
        let mut data = bytemuck::allocation::try_zeroed_slice_box(bytes).map_err(|()| {
            Error::new(ErrorKind::OutOfMemory, "make rolling windows")
                .expected(format!("{bytes} bytes of host memory"))
                .advice("lower the number of symbols")
        })?;
        crate::thread::settle(&mut data);
        Ok(Self {
            row_bytes,
            rows,
            data_type: input.input_type,
            refuse_non_finite: input.non_finite == NonFinite::Refuse,
            on_gap: config.on_gap,
            states: vec![State::default(); config.symbols as usize].into(),
            data,
        })
    }

    /// Rows of a window.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether rows of the one can be the other's.
    pub(crate) fn has_layout_of(&self, other: &Self) -> bool {
        let layout = |windows: &Self| (windows.row_bytes, windows.rows, windows.data_type, windows.states.len());
        layout(self) == layout(other)
    }

    /// Refuses, and treats gaps, as `other` does from now on.
    pub(crate) fn follow_rules_of(&mut self, other: &Self) {
        (self.refuse_non_finite, self.on_gap) = (other.refuse_non_finite, other.on_gap);
    }

    /// Keeps the newest row of `symbol`.
    pub(crate) fn push(&mut self, symbol: u32, data_type: DataType, row: &[u8]) -> Result<()> {
        self.known(symbol)?;
        if !self.data_type.is_handed_over_as(data_type) {
            return Err(ErrorKind::WrongType { expected: self.data_type, got: data_type }.into());
        }
        if row.len() != self.row_bytes {
            let size = self.data_type.size();
            return Err(ErrorKind::WrongLength { expected: self.row_bytes / size, got: row.len() / size }.into());
        }
        // Here and not in the kernel: a row once in the ring would spoil as many answers as a window has rows.
        if self.refuse_non_finite && !all_finite(data_type, row) {
            return Err(ErrorKind::NonFiniteInput.into());
        }
        let place = self.place(symbol, self.states[symbol as usize].pushed);
        self.data[place..place + self.row_bytes].copy_from_slice(row);
        self.advance(symbol);
        Ok(())
    }

    /// Forgets `symbol`'s rows.
    pub(crate) fn reset(&mut self, symbol: u32) -> Result<()> {
        self.known(symbol)?;
        let state = &mut self.states[symbol as usize];
        (state.filled, state.pending, state.after_gap) = (0, 0, false);
        Ok(())
    }

    /// A row of `symbol` is missing.
    pub(crate) fn gap(&mut self, symbol: u32) -> Result<()> {
        self.known(symbol)?;
        let state = self.states[symbol as usize];
        match self.on_gap {
            GapPolicy::HoldLast if state.filled > 0 => {
                let last = self.place(symbol, state.pushed - 1);
                let next = self.place(symbol, state.pushed);
                self.data.copy_within(last..last + self.row_bytes, next);
                self.advance(symbol);
            }
            GapPolicy::HoldLast | GapPolicy::Refill => {
                self.reset(symbol)?;
                self.states[symbol as usize].after_gap = true;
            }
        }
        Ok(())
    }

    /// The symbol's window as it is now, if it is full.
    pub(crate) fn now(&self, symbol: u32) -> Result<Moment> {
        self.known(symbol)?;
        let state = &self.states[symbol as usize];
        let need = self.rows as u32;
        if state.filled < need {
            let (have, after_gap) = (state.filled, state.after_gap);
            return Err(ErrorKind::WindowNotFull { symbol, have, need, after_gap }.into());
        }
        Ok(Moment { symbol, pushed: state.pushed })
    }

    /// How many of the window's rows, the newest ones, the device needs to be sent: those that it has not seen, and all
    /// of a window that has moved on or was reset since.
    pub(crate) fn to_send(&self, moment: Moment) -> u32 {
        if self.is_now(moment) { self.states[moment.symbol as usize].pending } else { self.rows as u32 }
    }

    /// The device has been sent the window as it was at that moment.
    pub(crate) fn sent(&mut self, moment: Moment) {
        let now = self.is_now(moment);
        let state = &mut self.states[moment.symbol as usize];
        // An older window has gone over whatever the device had of newer rows.
        state.pending = if now { 0 } else { state.filled };
    }

    fn is_now(&self, moment: Moment) -> bool {
        let state = &self.states[moment.symbol as usize];
        state.pushed == moment.pushed && state.filled == self.rows as u32
    }

    /// Another device takes over: it has seen nothing yet.
    pub(crate) fn unsent(&mut self) {
        for state in &mut self.states {
            state.pending = state.filled;
        }
    }

    /// Whether the window as it was at that moment is still there.
    pub(crate) fn has(&self, moment: Moment) -> bool {
        self.states[moment.symbol as usize].pushed <= moment.pushed + self.rows as u64
    }

    /// Writes the last `newest` rows of the window, in time order, to the end of `out`, which has a window's size.
    /// `false` if so many rows have come since that moment that they are gone.
    pub(crate) fn lay_out(&self, moment: Moment, newest: u32, out: &mut [u8]) -> bool {
        if !self.has(moment) {
            return false;
        }
        let first = moment.pushed - u64::from(newest);
        let at = out.len() - newest as usize * self.row_bytes;
        for (number, to) in (first..moment.pushed).zip(out[at..].chunks_exact_mut(self.row_bytes)) {
            let place = self.place(moment.symbol, number);
            to.copy_from_slice(&self.data[place..place + self.row_bytes]);
        }
        true
    }

    fn known(&self, symbol: u32) -> Result<()> {
        let symbols = self.states.len() as u32;
        if symbol < symbols { Ok(()) } else { Err(ErrorKind::UnknownSymbol { symbol, symbols }.into()) }
    }

    /// Where row `number` of `symbol` starts.
    fn place(&self, symbol: u32, number: u64) -> usize {
        let ring = 2 * self.rows;
        (symbol as usize * ring + (number % ring as u64) as usize) * self.row_bytes
    }

    fn advance(&mut self, symbol: u32) {
        let most = self.rows as u32;
        let state = &mut self.states[symbol as usize];
        state.pushed += 1;
        state.filled = (state.filled + 1).min(most);
        state.pending = (state.pending + 1).min(most);
    }
}

impl Moment {
    /// Place of the window's oldest row in the device's ring of `rows`.
    pub(crate) fn oldest(self, rows: usize) -> u32 {
        (self.pushed % rows as u64) as u32
    }
}

/// Whether none of the elements is NaN or infinite. `bytes` need not be aligned.
pub(crate) fn all_finite(data_type: DataType, bytes: &[u8]) -> bool {
    // An exponent of all ones is NaN or infinity.
    match data_type {
        DataType::F32 => bytes.chunks_exact(4).all(|b| u16::from_le_bytes([b[2], b[3]]) & 0x7f80 != 0x7f80),
        DataType::F64 => bytes.chunks_exact(8).all(|b| u16::from_le_bytes([b[6], b[7]]) & 0x7ff0 != 0x7ff0),
        DataType::F16 => bytes.chunks_exact(2).all(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7c00 != 0x7c00),
        DataType::Bf16 => bytes.chunks_exact(2).all(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 != 0x7f80),
        _ => true,
    }
}
