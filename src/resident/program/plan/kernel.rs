//! The kernel's text around the stages.

use std::fmt::Write as _;

use super::{COME_WORD, FIRST_BARRIER, Plan, ROWS_WORD, SHARED_STATE, STAMPS, STOP_WORD, Step, unsupported};
use crate::error::Result;
use crate::resident::network::ValueId;
use crate::resident::program::guess::{predicted_cycles, predicted_cycles_in_bands, predicted_cycles_on_grid};
use crate::resident::program::{Program, templates};
use crate::resident::semantics::Semantics;

impl Plan<'_> {
    /// The program, if it fits.
    pub(in crate::resident::program) fn finish(mut self, stamps: bool) -> Result<Program> {
        let (mut answers, mut touches) = (String::new(), String::new());
        let mut first = 0;
        for (number, &id) in self.network.outputs.iter().enumerate() {
            let from = self.share_of_whole(id);
            let numbers = self.common(id).int("from", from).int("first", first);
            let _ = write!(self.structures, "struct Answer{number} {{\n{}}};\n", numbers.0);
            let _ = writeln!(answers, "answer<Answer{number}>(b, turn);");
            let _ = write!(touches, "look_at_answer<Answer{number}>(b, turn); ");
            first += self.place(id).count;
        }
        let answering =
            self.network.outputs.iter().map(|&id| self.place(id)).map(|place| place.count.div_ceil(place.each));
        if self.to_each && answering.max().unwrap_or(1).max(self.heard_in_time) < self.blocks {
            return Err(unsupported("blocks that look for a call and that no answer waits for".into()));
        }
        let alone = |&id: &ValueId| self.blocks == 1 || self.place(id).each == self.place(id).count;
        let answers_early = self.network.outputs.iter().all(alone);
        (self.is_behind, self.guard) = (true, "");
        match self.job.semantics {
            Semantics::Whole => {}
            Semantics::Window => self.new_row()?,
            Semantics::Stateful => self.gather_state()?,
        }
        if self.heard < self.blocks {
            self.acknowledge()?;
        }
        if self.job.semantics == Semantics::Stateful {
            self.keep_state()?;
        }
        let mut source = templates();
        let spent = stamps.then(|| self.room(8 * STAMPS as u32));
        let room = (self.hardware.shared_bytes as u32).checked_sub(self.shared).ok_or_else(|| {
            unsupported(format!("{} bytes of activations in a block", self.shared))
                .expected(format!("at most {} of shared memory", self.hardware.shared_bytes))
        })?;
        let body = self.body([&answers, &touches], answers_early, spent);
        let mut text = format!("\nnamespace tickrt {{\nnamespace resident {{\n{}\n}}\n}}\n{body}", self.structures);
        let mut left = room;
        let mut wanted: Vec<_> = self.wanted.iter().copied().enumerate().collect();
        // What a call waits for comes first.
        wanted.sort_by_key(|&(_, (_, in_time))| !in_time);
        for (number, (bytes, in_time)) in wanted {
            let fits = bytes + 16 <= left;
            if in_time && !fits && !self.job.rolling.is_empty() {
                // They are wanted sooner than what windows side by side have there.
                return Err(unsupported(format!("{bytes} bytes of weights in a block")));
            }
            let kept = if fits { self.room(bytes) } else { 0 };
            left = (self.hardware.shared_bytes as u32).saturating_sub(self.shared);
            let place = if fits { "Weights::Shared" } else { "Weights::Global" };
            text = text.replace(&format!("@where{number}@"), place);
            text = text.replace(&format!("@is{number}@"), if fits { "true" } else { "false" });
            text = text.replace(&format!("@kept{number}@"), &kept.to_string());
        }
        let shared_bytes = self.shared.next_multiple_of(16);
        let of_blocks = u64::from(self.state) * u64::from(self.blocks);
        let text = text.replace("@words@", &(shared_bytes / 4).to_string());
        source += &text.replace(SHARED_STATE, &of_blocks.to_string());
        let (lead_units, state_bytes) = (self.lead(), of_blocks + u64::from(self.shared_state));
        let Self { constants, bands, grid, blocks, threads, notes, job, .. } = self;
        let guess = match (&bands, &grid) {
            (Some(_), _) => predicted_cycles_in_bands,
            (_, Some(_)) => predicted_cycles_on_grid,
            _ => predicted_cycles,
        };
        let (semantics, predicted_cycles) =
            (job.semantics, guess(job, grid.as_ref().map_or(blocks, |grid| grid.blocks)));
        Ok(Program {
            source,
            constants,
            blocks,
            clusters: grid.map_or(1, |grid| grid.blocks),
            threads,
            shared_bytes,
            state_bytes,
            semantics,
            lead_units,
            notes,
            predicted_cycles,
        })
    }

    /// Blocks whose share of everything is empty say that they have come to the call's end.
    fn acknowledge(&mut self) -> Result<()> {
        let (heard, others) = (self.heard, self.blocks - self.heard);
        let (acknowledged, barriers) = (self.room(2 * 4 * others), self.barriers()?);
        let numbers = self
            .common(self.network.inputs[0])
            .int("heard", heard)
            .int("acknowledged", acknowledged)
            .int("barriers", barriers);
        self.step(
            "Acknowledge",
            numbers,
            true,
            false,
            format!("{others} blocks without a share say that they are through"),
        );
        Ok(())
    }

    fn body(&self, [answers, touches]: [&str; 2], answers_early: bool, spent: Option<u32>) -> String {
        let stamps = spent.is_some();
        let (blocks, threads) = (self.blocks, self.threads);
        let cluster = if blocks > 1 { format!("__cluster_dims__({blocks}, 1, 1) ") } else { String::new() };
        // Calls of a window or with state: what they leave is looked at behind the answer.
        let goes_on = self.job.semantics != Semantics::Whole;
        let of_window = self.job.semantics == Semantics::Window;
        let mut made = String::new();
        let mut armed = String::new();
        for step in self.steps.iter().filter(|step| step.is_another) {
            let Step { template, number, .. } = step;
            let _ = writeln!(made, "  const {template}<S{number}> s{number}(b, turn);");
            if step.arms {
                let _ = writeln!(armed, "  {template}<S{number}>::arm(b);");
            }
        }
        let (ahead, in_time): (Vec<&Step>, Vec<&Step>) = self.steps.iter().partition(|step| step.is_ahead);
        let mut calls = String::new();
        let grid = self.grid.as_ref().map(|grid| grid.blocks);
        if grid.is_some() {
            // Not all blocks have found a place in time: no round takes place.
            calls += "    if (!b.tag) break;\n";
        }
        if of_window {
            let (row, steps) = (self.job.count, self.job.steps);
            let _ = writeln!(calls, "    b.window = window_of<{row}, {steps}>(b);");
        }
        ahead.iter().for_each(|step| calls += &step.line());
        for Step { number, .. } in in_time.iter().filter(|step| !step.is_another) {
            let _ = writeln!(calls, "    const auto late{number} = s{number}.in_time(b, turn);");
        }
        let rehearses = goes_on && in_time.iter().all(|step| step.template != "Recurrent");
        if rehearses {
            // What was computed ahead has driven the instructions of what follows out of their caches: they come back in a
            // rehearsal of the same instructions.
            calls += "    bool ends = true;\n#pragma unroll 1\n    for (b.rehearses = true;; b.rehearses = false) {\n";
        }
        let (behind, in_time): (Vec<&Step>, Vec<&Step>) = in_time.into_iter().partition(|step| step.is_behind);
        for (stage, step) in in_time.iter().enumerate() {
            // A rehearsal is of no call.
            calls += &step.line_if(if rehearses && stage == 0 { "!b.rehearses && " } else { "" });
            if stamps {
                let _ = match stage {
                    0 => writeln!(calls, "    u64 at = cycles();"),
                    _ => writeln!(calls, "    if (!b.rehearses) stamp(b, spent, {}, at);", stage.min(STAMPS) - 1),
                };
            }
        }
        if rehearses {
            let _ = writeln!(calls, "    if (b.rehearses) {{ {touches}continue; }}");
            calls += "    ends = false;\n    break;\n    }\n    if (ends) break;\n";
        }
        // What the call leaves is kept behind the answer where it can be: its time is none of the call's.
        if !goes_on {
            calls += answers;
        } else if answers_early {
            let _ = writeln!(calls, "    if (is_final(b, {ROWS_WORD})) {{\n{answers}    }}");
        }
        behind.iter().for_each(|step| calls += &step.line());
        if goes_on && !answers_early {
            let _ = writeln!(calls, "    if (!b.again) {{\n{answers}    }}");
        }
        let stamp = if stamps {
            "__device__ static void stamp(const Block& b, u64* spent, u32 stage, u64& at) {\n  const u64 now = cycles();\n  \
             if (b.is_first_thread()) spent[stage] += now - at;\n  at = now;\n}\n"
        } else {
            ""
        };
        // The zeros are of threads, and runs of the copy engine come behind them.
        let runs = self.steps.iter().any(|step| step.template == "GatherRuns");
        let zeroed = if runs { "  written_for_runs();\n" } else { "" };
        let meet = if blocks > 1 { "sync_cluster();" } else { "sync_block();" };
        format!(
            "using namespace tickrt::resident;\n{stamp}\
extern \"C\" __global__ void {cluster}__launch_bounds__({threads}, 1) tickrt_resident(const __grid_constant__ Turn turn) {{
  for (u32 i = this_thread(); i < @words@; i += {threads}) shared(0)[i] = 0;
{zeroed}  sync_block();
  Block b = {begin};
{made}  if (b.thread == 0)
    for (u32 i = 0; i < {barriers}; ++i) barrier_init({FIRST_BARRIER} + 8 * i);
  barriers_are_there();
  sync_block();
{armed}  {meet}
{counted}  for (;; next_call(b, turn)) {{
{calls}    sync_block();
{leave}  }}
  finish<{blocks}>(b, turn, spent);
}}
",
            begin = match grid {
                Some(grid) => format!("begin_on_grid<{grid}>(turn, {STOP_WORD}, {COME_WORD})"),
                None => format!("begin(turn, {STOP_WORD}, {})", self.state),
            },
            counted = match spent {
                Some(offset) => format!("  u64* const spent = reinterpret_cast<u64*>(shared({offset}));\n"),
                None => "  const u64* const spent = nullptr;\n".to_owned(),
            },
            leave = if of_window { "    if (b.leaves) {\n      next_call(b, turn);\n      break;\n    }\n" } else { "" },
            barriers = self.barriers * 2
        )
    }
}
