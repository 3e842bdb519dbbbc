//! The few functions of ONNX Runtime's C API that `ort` wraps with an allocation a call, wrapped without.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

use ort::sys::{self, ONNXTensorElementDataType, OrtApi, OrtStatusPtr};

use crate::tensor::DataType;

/// Turns a status into its message.
///
/// # Safety
/// The status comes from the C API and was not released.
pub(super) unsafe fn check(status: OrtStatusPtr) -> Result<(), String> {
    if status.0.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise; it is released by the error that it becomes.
    unsafe { ort::Error::result_from_status(status) }.map_err(|error| error.to_string())
}

/// A tensor: an `OrtValue`, released when dropped.
pub(super) struct Value {
    pointer: NonNull<sys::OrtValue>,
    api: &'static OrtApi,
}

impl Value {
    /// A tensor over memory that stays the caller's.
    ///
    /// # Safety
    /// `bytes` from `start` on stay valid, and are written by nobody else during a run, as long as the value lives.
    pub(super) unsafe fn over(
        api: &'static OrtApi,
        start: NonNull<u8>,
        bytes: usize,
        data_type: DataType,
        shape: &[i64],
    ) -> Result<Self, String> {
        let mut info = ptr::null_mut();
        // SAFETY: the result is valid for writing; the memory is the caller's promise.
        unsafe {
            let device = sys::OrtAllocatorType::OrtDeviceAllocator;
            check((api.CreateCpuMemoryInfo)(device, sys::OrtMemType::OrtMemTypeDefault, &mut info))?;
            Self::with_info(api, info, start.as_ptr().cast(), bytes, data_type, shape)
        }
    }

    /// As [`over`](Self::over), of memory on GPU `device`.
    ///
    /// # Safety
    /// As [`over`](Self::over).
    pub(super) unsafe fn over_cuda(
        api: &'static OrtApi,
        address: u64,
        bytes: usize,
        data_type: DataType,
        shape: &[i64],
        device: usize,
    ) -> Result<Self, String> {
        let mut info = ptr::null_mut();
        let device = i32::try_from(device).map_err(|error| error.to_string())?;
        // SAFETY: as above.
        unsafe {
            let kind = sys::OrtAllocatorType::OrtDeviceAllocator;
            let memory = sys::OrtMemType::OrtMemTypeDefault;
            check((api.CreateMemoryInfo)(c"Cuda".as_ptr(), kind, device, memory, &mut info))?;
            Self::with_info(api, info, address as *mut c_void, bytes, data_type, shape)
        }
    }

    /// # Safety
    /// As [`over`](Self::over); `info` is nobody else's.
    unsafe fn with_info(
        api: &'static OrtApi,
        info: *mut sys::OrtMemoryInfo,
        start: *mut c_void,
        bytes: usize,
        data_type: DataType,
        shape: &[i64],
    ) -> Result<Self, String> {
        let mut value = ptr::null_mut();
        // SAFETY: the caller's promise; the result is valid for writing, and `info`, which is copied by the call that
        // uses it, is released once.
        unsafe {
            let kind = element_type(data_type);
            let made =
                (api.CreateTensorWithDataAsOrtValue)(info, start, bytes, shape.as_ptr(), shape.len(), kind, &mut value);
            (api.ReleaseMemoryInfo)(info);
            check(made)?;
        }
        Ok(Self { pointer: NonNull::new(value).ok_or("no tensor was made")?, api })
    }

    /// # Safety
    /// `pointer` is a value that nobody else releases.
    pub(super) unsafe fn owned(api: &'static OrtApi, pointer: NonNull<sys::OrtValue>) -> Self {
        Self { pointer, api }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::OrtValue {
        self.pointer.as_ptr()
    }

    /// Its dimensions and the number of its element type (as in ONNX), if it is a tensor.
    pub(super) fn shape(&self) -> Result<(Vec<i64>, i32), String> {
        let (mut info, mut rank) = (ptr::null_mut(), 0);
        let mut kind = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        // SAFETY: the value is alive, every result is valid for writing, `shape` has `rank` elements, and `info` is
        // released once.
        unsafe {
            check((self.api.GetTensorTypeAndShape)(self.as_ptr(), &mut info))?;
            let mut shape = Vec::new();
            let read = check((self.api.GetDimensionsCount)(info, &mut rank))
                .and_then(|()| {
                    shape.resize(rank, 0);
                    check((self.api.GetDimensions)(info, shape.as_mut_ptr(), rank))
                })
                .and_then(|()| check((self.api.GetTensorElementType)(info, &mut kind)));
            (self.api.ReleaseTensorTypeAndShapeInfo)(info);
            read.map(|()| (shape, kind as i32))
        }
    }

    /// The elements of a tensor of f32 in CPU memory.
    pub(super) fn floats(&self) -> Result<&[f32], String> {
        let (shape, kind) = self.shape()?;
        let count = crate::tensor::elements(&shape).unwrap_or(0);
        if kind != ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT as i32 {
            return Err(format!("expected a tensor of f32, got ONNX's element type {kind}"));
        }
        let mut start = ptr::null_mut();
        // SAFETY: the value is alive and the result valid for writing.
        unsafe { check((self.api.GetTensorMutableData)(self.as_ptr(), &mut start))? };
        if count == 0 {
            return Ok(&[]);
        }
        // SAFETY: a tensor of f32 has as many as its shape says, aligned for them, and lives as long as the value.
        Ok(unsafe { std::slice::from_raw_parts(start.cast::<f32>(), count) })
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: it was made once and is released once.
        unsafe { (self.api.ReleaseValue)(self.as_ptr()) };
    }
}

/// An `OrtIoBinding`, released when dropped.
pub(super) struct Binding {
    pointer: NonNull<sys::OrtIoBinding>,
    api: &'static OrtApi,
}

impl Binding {
    /// # Safety
    /// The session outlives the binding.
    pub(super) unsafe fn new(api: &'static OrtApi, session: *mut sys::OrtSession) -> Result<Self, String> {
        let mut pointer = ptr::null_mut();
        // SAFETY: the caller's promise; the result is valid for writing.
        unsafe { check((api.CreateIoBinding)(session, &mut pointer))? };
        Ok(Self { pointer: NonNull::new(pointer).ok_or("no binding was made")?, api })
    }

    /// Binds a tensor in CPU memory. The binding holds a reference of its own to the value, not to its memory.
    pub(super) fn input(&mut self, name: &CStr, value: &Value) -> Result<(), String> {
        // SAFETY: three live objects.
        unsafe { check((self.api.BindInput)(self.as_ptr(), name.as_ptr(), value.as_ptr())) }
    }

    /// Like [`input`](Self::input).
    pub(super) fn output(&mut self, name: &CStr, value: &Value) -> Result<(), String> {
        // SAFETY: three live objects.
        unsafe { check((self.api.BindOutput)(self.as_ptr(), name.as_ptr(), value.as_ptr())) }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::OrtIoBinding {
        self.pointer.as_ptr()
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: it was made once and is released once.
        unsafe { (self.api.ReleaseIoBinding)(self.as_ptr()) };
    }
}

fn element_type(data_type: DataType) -> ONNXTensorElementDataType {
    use ONNXTensorElementDataType as Onnx;
    match data_type {
        DataType::F32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::F16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::F64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::I8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::U8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::I16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::I32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::I64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Bool => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
    }
}
