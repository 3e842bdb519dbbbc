//! What a thread that waits for answers can ask of the operating system, each optional: a core of its own, a priority,
//! memory that stays where it is. Linux; control plane.

use std::io;
use std::path::Path;

use crate::device::Device;
use crate::error::{Error, ErrorKind, Result};

/// Keeps the calling thread on core `core`, so that nothing moves it from its caches.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if the process may not run there.
pub fn pin(core: usize) -> Result<()> {
    // SAFETY: a set of plain bits, in which `core` has a place.
    let pinned = core < libc::CPU_SETSIZE as usize
        && unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0
        };
    if pinned {
        return Ok(());
    }
    // What the thread may do now may be less than what it could: a thread inherits its parent's pin.
    Err(Error::new(ErrorKind::InvalidArgument, format!("pin the thread to core {core}"))
        .expected(format!("a core that this process may run on; now the thread runs on {}", ranges(&allowed_cores())))
        .got(core.to_string())
        .advice("see taskset -pc and the container's cpuset"))
}

/// The cores that the calling thread runs on now: a thread that is pinned, or was started by one, has but that one.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: a set of plain bits, written by the call and then read.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            // More cores than such a set has places for.
            return (0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).collect();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
    }
}

/// Keeps the calling thread out of the way of the one that started it, which may run on `cores`: an ordinary priority, and if
/// that one is pinned, any core but its own.
pub(crate) fn step_back(cores: &[usize]) {
    // SAFETY: an empty set is all zeros; the numbers are below the size of a set. The kernel takes those cores that exist and
    // that the process may use, and refuses if there are none: then the thread stays where it is.
    unsafe {
        let ordinary = libc::sched_param { sched_priority: 0 };
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary);
        if let [own] = *cores {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            let others = (0..libc::CPU_SETSIZE as usize).filter(|&core| core != own);
            others.for_each(|core| libc::CPU_SET(core, &mut set));
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
        }
    }
}

/// Runs the calling thread before every ordinary one (`SCHED_FIFO`), 1 to 99. A spinning thread at such a priority starves
/// whatever else shares its core.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] outside 1 to 99; [`ErrorKind::Io`] without the right to do so.
pub fn raise(priority: i32) -> Result<()> {
    if !(1..=99).contains(&priority) {
        return Err(Error::new(ErrorKind::InvalidArgument, "raise the thread's priority")
            .expected("1 to 99")
            .got(priority.to_string()));
    }
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: reads one struct; 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    let how = "run as root, give it CAP_SYS_NICE, or raise the limit: ulimit -r 99";
    checked(done, || format!("raise the thread's priority to {priority}"), how)
}

/// Keeps all memory of the process in RAM, that of now and that to come (`mlockall`): no page of it is fetched when it is
/// touched. Call it before sessions are started.
///
/// # Errors
/// [`ErrorKind::Io`] where the limit for locked memory is too low.
pub fn lock_memory() -> Result<()> {
    // SAFETY: no pointers.
    let done = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) };
    checked(done, || "lock the process's memory".to_owned(), "raise the limit: ulimit -l unlimited")
}

/// Touches this much of the calling thread's stack, so that the first deep call finds it there. At most 1 MiB.
pub fn prefault_stack(bytes: usize) {
    const PAGE: usize = 4096;
    #[inline(never)]
    fn touch(pages: usize) {
        let mut page = [0_u8; PAGE];
        std::hint::black_box(&mut page);
        if pages > 1 {
            touch(pages - 1);
        }
        std::hint::black_box(&mut page);
    }
    touch(bytes.min(1 << 20).div_ceil(PAGE));
}

/// The cores near `device`, which share its NUMA node: pinned memory that a thread on one of them allocates first lies
/// there, too. All cores where the machine does not say; never empty. Ask before the thread is pinned.
#[must_use]
pub fn cores_near(device: &Device) -> Vec<usize> {
    let (near, allowed) = (parse_core_list(&told(device, "local_cpulist")), allowed_cores());
    let both: Vec<usize> = allowed.iter().copied().filter(|core| near.contains(core)).collect();
    if both.is_empty() { allowed } else { both }
}

/// Asks for huge pages under large memory and has the pages made now, and not when a row is first pushed: a fault costs more
/// than all the rest of a push. What is very large is left to the system, which makes the pages that are used.
pub(crate) fn settle(data: &mut [u8]) {
    const PAGE: usize = 4096;
    const HUGE: usize = 2 << 20;
    const MOST: usize = 256 << 20;
    if data.len() > MOST {
        return;
    }
    let lead = data.as_ptr().align_offset(HUGE);
    if data.len() > lead + HUGE {
        let inside = &mut data[lead..];
        let whole = inside.len() / HUGE * HUGE;
        // SAFETY: whole pages of one allocation of ours. An old kernel or one without huge pages refuses: nothing is lost.
        let _ = unsafe { libc::madvise(inside.as_mut_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
    for page in data.chunks_mut(PAGE) {
        // SAFETY: a byte of ours. Volatile, because a zero over a zero is no write to the compiler.
        unsafe { std::ptr::write_volatile(page.as_mut_ptr(), 0) };
    }
}

/// Has memory that the calling thread allocates from here on lie on the NUMA node of `device`, where there is room: pinned
/// memory too, if the session is started on this thread. Says which node; `None` where the machine has but one or does not
/// say.
///
/// # Errors
/// [`ErrorKind::Io`] where the system refuses.
pub fn allocate_near(device: &Device) -> Result<Option<u32>> {
    const PREFERRED: libc::c_int = 1; // MPOL_PREFERRED
    // -1 where there is one node.
    let node = told(device, "numa_node").trim().parse::<u32>().ok();
    let Some(node) = node.filter(|&node| node < 64) else { return Ok(None) };
    let nodes = 1_u64 << node;
    // SAFETY: reads one word of 64 nodes.
    let done = unsafe { libc::syscall(libc::SYS_set_mempolicy, PREFERRED, &raw const nodes, 65_u64) };
    checked(done as libc::c_int, || format!("allocate memory on NUMA node {node}"), "")?;
    Ok(Some(node))
}

/// What the system tells of the device's place in the machine; nothing where it does not.
fn told(device: &Device, what: &str) -> String {
    let folder = Path::new("/sys/bus/pci/devices").join(device.pci_address());
    std::fs::read_to_string(folder.join(what)).unwrap_or_default()
}

fn checked(done: libc::c_int, operation: impl FnOnce() -> String, advice: &str) -> Result<()> {
    if done == 0 {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Io, operation()).got(io::Error::last_os_error().to_string());
    Err(if advice.is_empty() { error } else { error.advice(advice) })
}

/// Cores as the kernel lists them: `0-3,8` as numbers. What is no number is left out.
#[must_use]
pub fn parse_core_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// Numbers as `0-3,8`.
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let parts =
        parts.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written_as_linux_does() {
        assert_eq!(parse_core_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_core_list("\n"), [0; 0]);
        assert_eq!(ranges(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
    }

    #[test]
    fn thread_pinned_stays_on_its_core() {
        std::thread::spawn(|| {
            let core = *allowed_cores().last().unwrap();
            pin(core).unwrap();
            assert_eq!(allowed_cores(), [core]);
            // SAFETY: no pointers.
            assert_eq!(unsafe { libc::sched_getcpu() }, core as i32);
            // A thread inherits the pin and may leave it.
            std::thread::spawn(|| pin(0)).join().unwrap().unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn memory_settled_has_its_pages() {
        let mut data = bytemuck::allocation::zeroed_slice_box::<u8>(8 << 20);
        settle(&mut data);
        let start = data.as_ptr() as usize / 4096 * 4096;
        let mut resident = vec![0_u8; (8 << 20) / 4096];
        // SAFETY: `resident` has a byte for each page of the range, which is mapped.
        let done = unsafe { libc::mincore(start as *mut libc::c_void, 8 << 20, resident.as_mut_ptr()) };
        assert_eq!(done, 0);
        assert!(resident.iter().all(|page| page & 1 == 1));
    }

    #[test]
    fn core_or_priority_that_cannot_be_is_refused() {
        let error = pin(100_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("a core that this process may run on; now the thread runs on 0"), "{error}");
        assert_eq!(raise(0).unwrap_err().kind(), ErrorKind::InvalidArgument);
        prefault_stack(usize::MAX);
    }
}
