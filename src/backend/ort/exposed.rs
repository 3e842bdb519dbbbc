//! A network whose intermediate tensors are outputs, on the CPU: for calibration.

use std::ffi::{CString, c_char};
use std::ptr::{self, NonNull};

use onnx_runtime::AsPointer;
use onnx_runtime::session::Session;
use onnx_runtime::sys::{OrtApi, OrtValue};
use ort as onnx_runtime;

use super::memory::Block;
use super::raw::{Value, check};
use super::{OnnxRuntime, RUN, START, common_builder, translate};
use crate::error::{Error, ErrorKind, Result};
use crate::onnx::{Exposed, Model};
use crate::tensor::DataType;

/// A session of an [`Exposed`] model.
pub(crate) struct ExposedSession {
    session: Session,
    api: &'static OrtApi,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
}

impl ExposedSession {
    pub(crate) fn new(model: &Model, exposed: &Exposed) -> Result<Self> {
        let runtime = OnnxRuntime::load(None)?;
        let session = common_builder()
            .and_then(|mut builder| builder.commit_from_memory(&exposed.bytes).map_err(|error| error.to_string()));
        let session = session.map_err(|message| translate(START, &message))?;
        let strings = |names: &mut dyn Iterator<Item = &str>| names.map(CString::new).collect::<Result<Vec<_>, _>>();
        let names = strings(&mut model.inputs().iter().map(|tensor| tensor.name.as_str()))
            .and_then(|inputs| Ok((inputs, strings(&mut exposed.tensors.iter().map(String::as_str))?)));
        let (inputs, outputs) = names.map_err(|_| {
            Error::new(ErrorKind::Onnx, START).expected("names of tensors").got("one with a zero byte in it")
        })?;
        Ok(Self { session, api: runtime.api, inputs, outputs })
    }

    /// Runs one batch, each input with its type and shape, and shows every tensor.
    pub(crate) fn run<'batch>(
        &mut self,
        inputs: impl Iterator<Item = (&'batch [u8], DataType, &'batch [i64])>,
        see: &mut dyn FnMut(&str, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let outputs = self.run_raw(inputs).map_err(|message| translate(RUN, &message))?;
        for (name, value) in self.outputs.iter().zip(&outputs) {
            let values = value.floats().map_err(|message| translate(RUN, &message))?;
            see(&name.to_string_lossy(), values)?;
        }
        Ok(())
    }

    fn run_raw<'batch>(
        &mut self,
        inputs: impl Iterator<Item = (&'batch [u8], DataType, &'batch [i64])>,
    ) -> Result<Vec<Value>, String> {
        let mut blocks = Vec::new();
        let mut values = Vec::new();
        for (bytes, data_type, shape) in inputs {
            let block = Block::new(bytes.len()).map_err(|error| error.to_string())?;
            // SAFETY: the block is new and has at least that many bytes.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), block.start().as_ptr(), bytes.len()) };
            // SAFETY: the blocks live to the end of this function, and the values do not leave it.
            values.push(unsafe { Value::over(self.api, block.start(), bytes.len(), data_type, shape)? });
            blocks.push(block);
        }
        let pointers = |names: &[CString]| names.iter().map(|name| name.as_ptr()).collect::<Vec<*const c_char>>();
        let (input_names, output_names) = (pointers(&self.inputs), pointers(&self.outputs));
        let inputs: Vec<*const OrtValue> = values.iter().map(|value| value.as_ptr().cast_const()).collect();
        let mut outputs = vec![ptr::null_mut::<OrtValue>(); output_names.len()];
        // SAFETY: everything is alive and as long as it is said to be; outputs that are null are made.
        unsafe {
            check((self.api.Run)(
                self.session.ptr().cast_mut(),
                ptr::null(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                output_names.as_ptr(),
                outputs.len(),
                outputs.as_mut_ptr(),
            ))?;
        }
        // SAFETY: they were made for us just now.
        let made =
            outputs.into_iter().map(|value| NonNull::new(value).map(|value| unsafe { Value::owned(self.api, value) }));
        made.map(|value| value.ok_or_else(|| "an output is missing".to_owned())).collect()
    }
}
