//! What a session tells about its calls while they end: counts, for those who asked for them.

use std::sync::Arc;

use super::{Answer, Session};
use crate::counters::Counters;
use crate::error::{Error, Result};

impl Session {
    /// From here on every call is counted: what it returned and how long it took, for another thread to read. The same
    /// counters each time.
    ///
    /// A session of a [`Predictor`](crate::Predictor) has that one's counters.
    pub fn counters(&mut self) -> Arc<Counters> {
        let counters = self.counters.get_or_insert_with(Counters::new);
        counters.active(self.backend.kind(), self.backend.engine_id());
        Arc::clone(counters)
    }

    pub(crate) fn count_into(&mut self, counters: Option<Arc<Counters>>) {
        self.counters = counters;
    }

    /// A call has ended so.
    #[inline]
    pub(super) fn ended(&self, result: Result<Answer>) -> Result<Answer> {
        if let Some(counters) = &self.counters {
            match &result {
                Ok(answer) => counters.answered(answer.backend, answer.latency()),
                Err(error) => counters.failed(error),
            }
        }
        result
    }

    /// A call has ended with this error.
    #[cold]
    pub(super) fn failed(&self, error: Error) -> Error {
        if let Some(counters) = &self.counters {
            counters.failed(&error);
        }
        error
    }
}
