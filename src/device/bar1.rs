//! Memory of the GPU that the host writes: through BAR1, the window of the GPU's memory on the bus. A kernel that waits for what
//! comes there polls its own memory and not the host's.
//!
//! CUDA has no call for that. Vulkan has, and an NVIDIA driver that is installed whole brings Vulkan along: memory that is the
//! device's and visible to the host, exported as a file descriptor, which CUDA imports. Neither a kernel module of its own
//! (GDRCopy's gdrdrv) nor a right is needed.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use ash::vk;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::{Device, Feature, Mapping, cuda_error, mib, name};
use crate::error::{Error, ErrorKind, Result};

/// The GPU's pages: what is exported is whole ones.
const PAGE: usize = 2 << 20;

/// GPU memory that the host writes. Zeroed when it is made.
///
/// The host's mapping is write-combined: stores are posted in any order, wait in the processor until
/// [`flush`](Self::flush), and loads take microseconds. The device reads what the host has flushed.
#[derive(Debug)]
pub(crate) struct Bar1Buffer {
    mapping: Mapping,
    imported: sys::CUexternalMemory,
    device: Arc<Device>,
    /// Behind what CUDA has of it.
    _vulkan: Vulkan,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Bar1Buffer {}

impl Bar1Buffer {
    /// # Errors
    /// [`ErrorKind::Unavailable`] where no Vulkan is there, or it has no such memory of this GPU.
    pub(crate) fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        Feature::ExternalMemory.check().map_err(unavailable)?;
        let _beside = device.enter()?;
        let bytes = bytes.next_multiple_of(PAGE);
        let vulkan = Vulkan::allocate(uuid(device)?, bytes)?;
        let (imported, address) = import(&vulkan, bytes)?;
        let mapping = Mapping { host: vulkan.host, address, bytes };
        let buffer = Self { mapping, imported, device: Arc::clone(device), _vulkan: vulkan };
        // SAFETY: mapped, `bytes` long.
        unsafe { buffer.host(0).as_ptr().write_bytes(0, bytes) };
        buffer.flush();
        Ok(buffer)
    }

    /// What this thread has stored there goes out now.
    #[inline]
    pub(crate) fn flush(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has it.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
        #[cfg(not(target_arch = "x86_64"))]
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
}

impl std::ops::Deref for Bar1Buffer {
    type Target = Mapping;
    fn deref(&self) -> &Mapping {
        &self.mapping
    }
}

impl Drop for Bar1Buffer {
    fn drop(&mut self) {
        let _beside = self.device.enter();
        // SAFETY: mapped and imported in `new`, each given back once, the mapping first.
        let _ = unsafe { (result::free_sync(self.address(0)), sys::cuDestroyExternalMemory(self.imported)) };
    }
}

fn unavailable(got: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, "map memory of the GPU for the host (BAR1)")
        .expected(
            "a Vulkan driver of this GPU with memory that is device local and host visible, which CUDA can import",
        )
        .got(got)
        .advice("leave ResidentConfig::bar1 (--resident-bar1) out to have calls in the host's memory")
}

/// What keeps Vulkan's memory from being had.
enum Missing {
    /// Vulkan is not there for this GPU.
    Vulkan(String),
    /// It is, and says no.
    Memory(String),
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Memory(got) => unavailable(got),
            Missing::Vulkan(got) => unavailable(got).and_advice(
                "install libvulkan.so.1 and the Vulkan part of NVIDIA's driver (in a container: \
                 NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics)",
            ),
        }
    }
}

fn uuid(device: &Device) -> Result<[u8; vk::UUID_SIZE]> {
    let mut uuid = sys::CUuuid { bytes: [0; vk::UUID_SIZE] };
    // SAFETY: writes 16 bytes.
    unsafe { sys::cuDeviceGetUuid_v2(&raw mut uuid, device.handle) }
        .result()
        .map_err(|error| cuda_error(error, "ask for the GPU's UUID"))?;
    Ok(uuid.bytes.map(|byte| byte as u8))
}

/// CUDA's view of it.
fn import(vulkan: &Vulkan, bytes: usize) -> Result<(sys::CUexternalMemory, sys::CUdeviceptr)> {
    // Whether the GPU is still there, the next call of CUDA's tells.
    let failed = |error: DriverError| {
        let (name, code) = (name(error), error.0 as i32);
        unavailable(format!("{} of Vulkan's memory that CUDA does not import: {name} ({code})", mib(bytes as u64)))
    };
    let fd = vulkan.export()?.into_raw_fd();
    let handle = sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC {
        type_: sys::CUexternalMemoryHandleType_enum::CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD,
        handle: sys::CUDA_EXTERNAL_MEMORY_HANDLE_DESC_st__bindgen_ty_1 { fd },
        size: bytes as u64,
        flags: 0,
        reserved: [0; 16],
    };
    let mut imported = std::ptr::null_mut();
    // SAFETY: a descriptor of an export of so many bytes; it is CUDA's once this has succeeded.
    if let Err(error) = unsafe { sys::cuImportExternalMemory(&raw mut imported, &raw const handle) }.result() {
        // SAFETY: CUDA has not taken it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return Err(failed(error));
    }
    let range = sys::CUDA_EXTERNAL_MEMORY_BUFFER_DESC { offset: 0, size: bytes as u64, flags: 0, reserved: [0; 16] };
    let mut address = 0;
    // SAFETY: a range of what was imported.
    let mapped = unsafe { sys::cuExternalMemoryGetMappedBuffer(&raw mut address, imported, &raw const range) }.result();
    mapped.map(|()| (imported, address)).map_err(|error| {
        // SAFETY: imported above, given back once.
        let _ = unsafe { sys::cuDestroyExternalMemory(imported) };
        failed(error)
    })
}

/// One allocation of Vulkan's, mapped for the host.
struct Vulkan {
    host: NonNull<u8>,
    memory: vk::DeviceMemory,
    gpu: Arc<Gpu>,
}

/// A GPU as Vulkan has it, made once and kept to the end of the process: after some thirty times NVIDIA's driver is not loaded again.
struct Gpu {
    uuid: [u8; vk::UUID_SIZE],
    /// The type of its memory that the host sees.
    kind: u32,
    device: ash::Device,
    exports: ash::khr::external_memory_fd::Device,
    /// The loaded library.
    _entry: ash::Entry,
}

static GPUS: Mutex<Vec<Arc<Gpu>>> = Mutex::new(Vec::new());

const OPAQUE_FD: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;

impl Vulkan {
    fn allocate(uuid: [u8; vk::UUID_SIZE], bytes: usize) -> Result<Self, Missing> {
        let gpu = Gpu::with(uuid)?;
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(OPAQUE_FD);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes as u64)
            .memory_type_index(gpu.kind)
            .push_next(&mut export);
        // SAFETY: the structures live beyond the call; freed in `Drop` or below.
        let memory = unsafe { gpu.device.allocate_memory(&info, None) }.map_err(|error| {
            Missing::Memory(said(&format!("no {} of such memory to export", mib(bytes as u64)), error))
        })?;
        // SAFETY: host visible, mapped once, whole.
        unsafe { gpu.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()) }
            .map_err(|error| said("memory that is not mapped", error))
            .and_then(|host| NonNull::new(host.cast()).ok_or_else(|| "memory mapped nowhere".to_owned()))
            // SAFETY: allocated above, in use by nobody.
            .inspect_err(|_| unsafe { gpu.device.free_memory(memory, None) })
            .map_err(Missing::Memory)
            .map(|host| Self { host, memory, gpu: Arc::clone(&gpu) })
    }

    fn export(&self) -> Result<OwnedFd, Missing> {
        let info = vk::MemoryGetFdInfoKHR::default().memory(self.memory).handle_type(OPAQUE_FD);
        // SAFETY: allocated for export with this type; the descriptor is the caller's.
        unsafe { self.gpu.exports.get_memory_fd(&info).map(|fd| OwnedFd::from_raw_fd(fd)) }
            .map_err(|error| Missing::Memory(said("memory that is not exported", error)))
    }
}

impl Drop for Vulkan {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate`, freed once, which unmaps it.
        unsafe { self.gpu.device.free_memory(self.memory, None) };
    }
}

impl std::fmt::Debug for Vulkan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vulkan").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Gpu {
    fn with(uuid: [u8; vk::UUID_SIZE]) -> Result<Arc<Self>, Missing> {
        let mut all = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = all.iter().find(|gpu| gpu.uuid == uuid) {
            return Ok(Arc::clone(gpu));
        }
        let gpu = Arc::new(Self::open(uuid)?);
        all.push(Arc::clone(&gpu));
        Ok(gpu)
    }

    fn open(uuid: [u8; vk::UUID_SIZE]) -> Result<Self, Missing> {
        // SAFETY: opens libvulkan; the loader runs its initialisers, as every Vulkan program does.
        let entry =
            unsafe { ash::Entry::load() }.map_err(|error| Missing::Vulkan(format!("no libvulkan.so.1: {error}")))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structures live beyond the call.
        let instance = unsafe { entry.create_instance(&info, None) }
            .map_err(|error| Missing::Vulkan(said("no Vulkan driver", error)))?;
        let made = on(&instance, uuid).and_then(|(gpu, kind)| {
            let queue = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
            let extensions = [ash::khr::external_memory_fd::NAME.as_ptr()];
            let info = vk::DeviceCreateInfo::default().queue_create_infos(&queue).enabled_extension_names(&extensions);
            // SAFETY: as above; every GPU has a queue of family 0.
            unsafe { instance.create_device(gpu, &info, None) }.map(|device| (kind, device)).map_err(|error| {
                Missing::Vulkan(said("no device that exports memory (VK_KHR_external_memory_fd)", error))
            })
        });
        let (kind, device) = made.inspect_err(|_| {
            // SAFETY: nothing of it is in use.
            unsafe { instance.destroy_instance(None) }
        })?;
        let exports = ash::khr::external_memory_fd::Device::new(&instance, &device);
        Ok(Self { uuid, kind, device, exports, _entry: entry })
    }
}

/// The GPU with that UUID, and its type of memory that is its own and the host's to write.
fn on(instance: &ash::Instance, uuid: [u8; vk::UUID_SIZE]) -> Result<(vk::PhysicalDevice, u32), Missing> {
    // SAFETY: a live instance.
    let all = unsafe { instance.enumerate_physical_devices() }
        .map_err(|error| Missing::Vulkan(said("no Vulkan device", error)))?;
    let same = |&gpu: &vk::PhysicalDevice| {
        let mut id = vk::PhysicalDeviceIDProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut id);
        // SAFETY: of a live instance; fills the structures.
        unsafe { instance.get_physical_device_properties2(gpu, &mut properties) };
        id.device_uuid == uuid
    };
    let gpu = all.iter().copied().find(same).ok_or_else(|| {
        let name = |&gpu: &vk::PhysicalDevice| {
            // SAFETY: as above.
            let properties = unsafe { instance.get_physical_device_properties(gpu) };
            properties
                .device_name_as_c_str()
                .map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned())
        };
        let names: Vec<String> = all.iter().map(name).collect();
        Missing::Vulkan(match names.len() {
            0 => "a Vulkan that sees no GPU".to_owned(),
            _ => format!("a Vulkan that sees others than CUDA's GPU: {}", names.join(", ")),
        })
    })?;
    // SAFETY: as above.
    let memory = unsafe { instance.get_physical_device_memory_properties(gpu) };
    let wanted = vk::MemoryPropertyFlags::DEVICE_LOCAL
        | vk::MemoryPropertyFlags::HOST_VISIBLE
        | vk::MemoryPropertyFlags::HOST_COHERENT;
    memory
        .memory_types_as_slice()
        .iter()
        .position(|kind| {
            kind.property_flags.contains(wanted) && !kind.property_flags.contains(vk::MemoryPropertyFlags::HOST_CACHED)
        })
        .map(|kind| (gpu, kind as u32))
        .ok_or_else(|| Missing::Memory("no memory of the GPU that the host sees".to_owned()))
}

fn said(what: &str, error: vk::Result) -> String {
    format!("{what} (Vulkan says {error:?})")
}
