//! How the state that calls carry is kept.

use std::fmt::Write as _;

use super::{Plan, ROWS_WORD};
use crate::error::Result;
use crate::resident::program::STATE_KEPT;

impl Plan<'_> {
    /// Brings the outputs of this call's step together in every block.
    pub(super) fn gather_state(&mut self) -> Result<()> {
        let job = self.job;
        job.states.iter().try_for_each(|state| self.whole_everywhere(state.after).map(drop))
    }

    /// What puts the outputs of this call's step where the next one looks for them, behind everything else.
    pub(super) fn keep_state(&mut self) -> Result<()> {
        let (threads, job) = (self.threads, self.job);
        let (mut keep, mut anew) = (String::new(), String::new());
        for (state, &before) in job.states.iter().zip(&job.network.inputs[1..]) {
            let place = self.place(before).whole.expect("`state` gave it one").offset;
            let after = self.whole_everywhere(state.after)?;
            let units = self.place(state.after).count;
            let from = format!("whole<{}, {}>(b)", after.offset, after.copy_bytes);
            let _ = writeln!(keep, "    keep_output<{threads}, {units}>(b, {place}, {from});");
            // Zeros where the network says nothing.
            let padded = |given: &[f32], count: u32| {
                given.iter().copied().chain(std::iter::repeat(0.0)).take(count as usize).collect::<Vec<_>>()
            };
            let initial = self.constant(padded(&state.initial, units));
            let _ = writeln!(anew, "    set_state<{threads}>(b, turn, {place}, {initial}, {units});");
            if let Some(cells) = &state.initial_cell {
                let own = self.cells.iter().find(|(id, _)| *id == state.after).expect("`recurrent_step` kept it").1;
                let each = self.place(state.after).each;
                let cells = self.constant(padded(cells, each * self.blocks));
                let _ = writeln!(
                    anew,
                    "    set_state<{threads}>(b, turn, {own}, {cells} + b.rank * {}, {each});",
                    4 * each
                );
            }
        }
        let barriers = if self.blocks > 1 { self.barriers()? } else { 0 };
        let rows_to = self.room(16);
        let numbers = self
            .common(job.network.inputs[0])
            .int("rows_word", ROWS_WORD)
            .int("rows_to", rows_to)
            .int("barriers", barriers)
            .text(&format!("  __device__ static void keep(const Block& b) {{\n{keep}  }}\n"))
            .text(&format!("  __device__ static void begin_anew(const Block& b, const Turn& turn) {{\n{anew}  }}\n"));
        self.step("KeepState", numbers, self.blocks > 1, true, STATE_KEPT.into());
        Ok(())
    }
}
