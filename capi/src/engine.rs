//! engine.h: a plan, checked and handed to TensorRT.

use std::ffi::{CString, c_char};

use tickrt::{Engine, IoMode, TensorInfo};

use crate::argument::{Place, given, invalid, string};
use crate::error::{Fault, MaybeError, c_string, discard, guard};

/// `tickrt_engine`.
#[derive(Debug)]
pub struct CEngine {
    pub(crate) engine: Engine,
    names: Vec<CString>,
    library: CString,
}

/// `tickrt_tensor` in engine.h.
#[repr(C)]
#[derive(Debug)]
pub struct CTensor {
    name: *const c_char,
    shape: *const i64,
    dimensions: usize,
    data_type: i32,
    is_input: bool,
}

/// `engine.h`: loads a plan with its sidecar.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_engine_load(
    path: *const c_char,
    device: usize,
    engine: Place<'_, Box<CEngine>>,
) -> MaybeError {
    // SAFETY: the header's contract.
    guard(|| load(unsafe { string(path, "path") }?, engine, |path| Engine::load_on(path, device)))
}

/// `engine.h`: loads a plan that may have no sidecar.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tickrt_engine_load_unverified(
    path: *const c_char,
    device: usize,
    engine: Place<'_, Box<CEngine>>,
) -> MaybeError {
    // SAFETY: the header's contract.
    guard(|| load(unsafe { string(path, "path") }?, engine, |path| Engine::load_unverified_on(path, device)))
}

fn load(
    path: &str,
    place: Place<'_, Box<CEngine>>,
    load: impl FnOnce(&str) -> tickrt::Result<Engine>,
) -> Result<(), Fault> {
    let place = given(place, "engine")?;
    let engine = load(path)?;
    let names = engine.tensors().iter().map(|tensor| c_string(tensor.name.as_str())).collect();
    let library = c_string(engine.library_version().to_string());
    place.write(Box::new(CEngine { engine, names, library }));
    Ok(())
}

/// `engine.h`: frees it; sessions on it live on.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_engine_free(engine: Option<Box<CEngine>>) {
    discard(engine);
}

/// `engine.h`: how many inputs and outputs.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_engine_tensor_count(engine: Option<&CEngine>) -> usize {
    engine.map_or(0, |engine| engine.names.len())
}

/// `engine.h`: an input or output.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_engine_tensor(
    engine: Option<&CEngine>,
    index: usize,
    tensor: Place<'_, CTensor>,
) -> MaybeError {
    guard(|| {
        let (engine, place) = (given(engine, "engine")?, given(tensor, "tensor")?);
        let found = engine.engine.tensors().get(index).zip(engine.names.get(index));
        let (info, name) =
            found.ok_or_else(|| invalid("index", &format!("less than {}", engine.names.len()), index.to_string()))?;
        let TensorInfo { mode, data_type, shape, .. } = info;
        place.write(CTensor {
            name: name.as_ptr(),
            shape: shape.as_ptr(),
            dimensions: shape.len(),
            data_type: *data_type as i32,
            is_input: *mode == IoMode::Input,
        });
        Ok(())
    })
}

/// `engine.h`: the library that runs it.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_engine_library(engine: Option<&CEngine>) -> *const c_char {
    engine.map_or(c"".as_ptr(), |engine| engine.library.as_ptr())
}

/// `engine.h`: bytes of device memory.
#[unsafe(no_mangle)]
pub extern "C" fn tickrt_engine_device_memory(engine: Option<&CEngine>) -> u64 {
    engine.map_or(0, |engine| engine.engine.device_memory())
}
