//! Asking now and then what is known, because a GPU whose memory or arithmetic has gone wrong answers as fast as ever.

use std::time::{Duration, Instant};

use super::{Predictor, ends_backend};
use crate::backend::BackendKind;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Outputs;
use crate::tensor::{DataType, Element};

const OPERATION: &str = "ask what is known of";
const ADVICE: &str = "see the GPU's memory errors (`tickrt doctor`), then rearm or restart";

/// An input whose answer is known, for [`Predictor::ask_known_answer`].
#[derive(Debug, Clone)]
pub struct KnownAnswer {
    input_type: DataType,
    input: Vec<u8>,
    expected: Vec<f32>,
    atol: f32,
    rtol: f32,
    every: Duration,
}

/// What became of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// There is no question, it is not yet time again, or no slot is free.
    NotNow,
    /// The answer was the one expected.
    Right,
}

/// A question, and when it is asked again.
#[derive(Debug)]
pub(super) struct Question {
    known: KnownAnswer,
    next: Instant,
}

impl KnownAnswer {
    /// The network of one input and of float scores answers `expected` to `input`, as it is handed over, before
    /// normalisation. An element is right when |got − expected| ≤ `atol` + `rtol` · |expected|. Asked every 10 s unless
    /// [`every`](Self::every) says otherwise.
    #[must_use]
    pub fn new<T: Element>(input: &[T], expected: &[f32], [atol, rtol]: [f32; 2]) -> Self {
        let (input_type, input) = (T::TYPE, bytemuck::cast_slice(input).to_vec());
        Self { input_type, input, expected: expected.to_vec(), atol, rtol, every: Duration::from_secs(10) }
    }

    /// How long after one question the next is asked, at the earliest.
    #[must_use]
    pub fn every(self, every: Duration) -> Self {
        Self { every, ..self }
    }

    fn check(&self, predictor: &Predictor) -> Result<()> {
        let shape = &predictor.session().signature().shapes[0];
        let wrong = |expected: String, got: String| {
            Err(Error::new(ErrorKind::InvalidArgument, "set a known answer").expected(expected).got(got))
        };
        let inputs: Vec<_> = shape.inputs.iter().map(|input| (input.input_type(), input.input_bytes())).collect();
        if inputs != [(self.input_type, self.input.len())] {
            return wrong(
                format!("the elements of inputs of {inputs:?} (type, bytes)"),
                format!("one of {:?}", (self.input_type, self.input.len())),
            );
        }
        let output = &shape.outputs[0];
        if (output.data_type, output.count) != (DataType::F32, self.expected.len()) {
            return wrong(
                format!("{} elements of {}", output.count, output.data_type),
                format!("{} of f32", self.expected.len()),
            );
        }
        let usable = |tolerance: f32| tolerance >= 0.0 && tolerance.is_finite();
        if !usable(self.atol) || !usable(self.rtol) || !self.expected.iter().all(|value| value.is_finite()) {
            return wrong("finite answers, and finite tolerances from 0 on".into(), "others".into());
        }
        Ok(())
    }

    /// The first element that is not as expected, and what it is.
    fn first_wrong(&self, outputs: &Outputs<'_>) -> Result<Option<(usize, f32)>> {
        let close = |got: f32, expected: f32| (got - expected).abs() <= self.atol + self.rtol * expected.abs();
        let mut pairs = outputs.slice::<f32>(0)?.iter().zip(&self.expected).enumerate();
        Ok(pairs.find(|&(_, (&got, &expected))| !close(got, expected)).map(|(element, (&got, _))| (element, got)))
    }

    fn story(&self, backend: BackendKind, (element, got): (usize, f32)) -> Error {
        Error::new(ErrorKind::WrongAnswer, format!("{OPERATION} {backend}"))
            .expected(format!("{} in element {element}", self.expected[element]))
            .got(got.to_string())
            .advice(ADVICE)
    }
}

impl Predictor {
    /// What [`ask_known_answer`](Self::ask_known_answer) asks, for the first time when that is called next; `None` stops it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a question that does not fit the network.
    pub fn set_known_answer(&mut self, known: Option<KnownAnswer>) -> Result<()> {
        if let Some(known) = &known {
            known.check(self)?;
        }
        self.question = known.map(|known| Question { known, next: Instant::now() });
        Ok(())
    }

    /// For the caller's idle loop or between two calls: asks the backend that answers now what is known, if it is time again,
    /// and waits for the answer as long as for any other. A wrong answer ends that backend until [`rearm`](Self::rearm): the
    /// next one answers from then on, also what was asked of that one and is not yet collected.
    ///
    /// Allocates nothing unless the answer is wrong. Counted among the calls, and by itself. While it is not yet time it
    /// reads the clock and returns.
    ///
    /// # Errors
    /// The fallback has latched, and why: [`ErrorKind::WrongAnswer`] with what was expected and got, or the backend's own
    /// error. [`ErrorKind::Unavailable`] when no backend is left.
    pub fn ask_known_answer(&mut self) -> Result<Checked> {
        // Taken out while the sessions are asked, and put back.
        let Some(mut question) = self.question.take() else { return Ok(Checked::NotNow) };
        let due = Instant::now() >= question.next;
        let asked = if due { self.ask(&question.known) } else { Ok(Checked::NotNow) };
        if asked.as_ref().map_or(true, |asked| *asked == Checked::Right) {
            question.next = Instant::now() + question.known.every;
        }
        self.question = Some(question);
        asked
    }

    fn ask(&mut self, known: &KnownAnswer) -> Result<Checked> {
        self.check_usable()?;
        let (entry, mut wrong) = (self.active, None);
        let session = &mut self.entries[entry].session;
        let answer = session.submit_bytes(&known.input).and_then(|ticket| {
            session.wait_into(ticket, |outputs| {
                wrong = known.first_wrong(outputs)?;
                Ok(())
            })
        });
        let error = match (answer, wrong) {
            (Ok(_), None) => None,
            (Ok(answer), Some(wrong)) => Some(known.story(answer.backend, wrong)),
            // The ring is full of the caller's calls: another time.
            (Err(error), _) if matches!(error.kind(), ErrorKind::Full { .. }) => return Ok(Checked::NotNow),
            (Err(error), _) if ends_backend(&error) || error.kind() == ErrorKind::DeadlineMissed => Some(error),
            // What the input does on the way in or the output on the way out is known as well.
            (Err(error), _) => {
                Some(Error::new(ErrorKind::WrongAnswer, OPERATION).got(error.to_string()).advice(ADVICE))
            }
        };
        if let Some(counters) = &self.observers.counters {
            counters.knew(error.is_none());
        }
        match error {
            None => Ok(Checked::Right),
            Some(error) => {
                self.retire(entry, error.clone());
                Err(error)
            }
        }
    }
}
