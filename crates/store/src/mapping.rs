//! A mapped file of which something may get lost without ending the process.
//!
//! Whoever touches a page of a mapping that the disk does not give, or that the file no longer has because somebody made it shorter,
//! gets SIGBUS. Here a handler puts a page of zeros in its place, so that the thread goes on, and notes in the mapping that something
//! is lost. What was read or written then is worth nothing: whoever used the mapping asks [`Mapping::loss`] after that and before
//! anything comes of it. A handler, and not a guard around each access: those that find everything, all but one in years, cost
//! nothing more.
//!
//! Where the kernel touches the memory for us (a socket is written to from the log), it says EFAULT and there is no signal.
#![allow(unsafe_code, reason = "a signal handler and a table that it may read; every block states its proof")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

/// Places of the table come in blocks of so many, and there are at most so many blocks: more mappings than a process is given.
const BLOCK: usize = 1024;
const BLOCKS: usize = 1024;

/// A file mapped as a whole.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
    place: &'static Place,
}

impl Mapping {
    pub fn new(file: &File) -> io::Result<Mapping> {
        Mapping::of(MmapOptions::new().len(file_len(file)?).map_raw(file)?)
    }

    /// One that cannot be written to.
    pub fn read_only(file: &File) -> io::Result<Mapping> {
        Mapping::of(MmapOptions::new().len(file_len(file)?).map_raw_read_only(file)?)
    }

    fn of(map: MmapRaw) -> io::Result<Mapping> {
        let place = Place::take(map.as_ptr() as usize, map.len())?;
        Ok(Mapping { map, place })
    }

    /// The byte in the page that was lost first, if one was. Whatever was done through the mapping before this was asked is as good as
    /// it should be if there is none.
    pub fn loss(&self) -> Option<usize> {
        self.place.lost.load(Ordering::Acquire).checked_sub(1)
    }

    /// Notes that something is lost from byte `at` on, whatever shows it.
    pub fn note_loss(&self, at: usize) {
        self.place.note_loss(at);
    }

    /// Puts bytes of `file` from `offset` on in the place of what is mapped at `range`; all of it whole pages. Whoever reads there
    /// meanwhile sees the one or the other, so where somebody may, both have the same bytes.
    pub fn put_over(&self, range: Range<usize>, file: &File, offset: u64) -> io::Result<()> {
        let page = page_len();
        let is_whole = range.start.is_multiple_of(page) && range.end.is_multiple_of(page);
        assert!(is_whole && range.start < range.end && range.end <= self.map.len(), "{range:?} of {}", self.map.len());
        // Mapped elsewhere and then moved: whatever may fail in a filesystem fails before anything is taken away.
        let map = MmapOptions::new().offset(offset).len(range.len()).map_raw(file)?;
        // SAFETY: what is moved is a mapping of its own, of this very length, which nobody else knows of. The range that it is moved over
        // is inside this mapping (asserted), so nothing else of the process is replaced, and there is always something there: the kernel
        // does the exchange under its own lock. What slices see there does not change, by the promise above.
        let moved = unsafe {
            let to = self.map.as_mut_ptr().add(range.start).cast::<libc::c_void>();
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(map.as_mut_ptr().cast(), range.len(), range.len(), flags, to)
        };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // It is part of this one now.
        std::mem::forget(map);
        Ok(())
    }

    /// [`Mapping::loss`] as an error.
    pub fn check(&self) -> io::Result<()> {
        self.loss().map_or(Ok(()), |at| {
            // No `UnexpectedEof`: what is asked for may be there, and can be read when the file is opened anew.
            Err(io::Error::other(format!("byte {at} is gone: the file was made shorter, or the disk does not give it")))
        })
    }
}

impl Deref for Mapping {
    type Target = MmapRaw;

    fn deref(&self) -> &MmapRaw {
        &self.map
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the memory is unmapped: another mapping may get the same addresses.
        self.place.give_back();
    }
}

/// Bytes of a page of this machine's memory.
pub fn page_len() -> usize {
    // SAFETY: asks the system for a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(crate::disk::PAGE)
}

fn file_len(file: &File) -> io::Result<usize> {
    usize::try_from(file.metadata()?.len()).map_err(io::Error::other)
}

/// Where a mapping is, for the handler. Zero is no address: an empty place.
#[derive(Debug)]
struct Place {
    from: AtomicUsize,
    len: AtomicUsize,
    /// One more than the offset of the page that was lost first; 0 when nothing is.
    lost: AtomicUsize,
}

/// The places, for the handler: blocks are added and never taken away.
static TABLE: [AtomicPtr<[Place; BLOCK]>; BLOCKS] = [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS];
/// Those that no mapping has.
static FREE: Mutex<Vec<&'static Place>> = Mutex::new(Vec::new());
/// What handled the signal before, and the length of a page of memory.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

impl Place {
    fn take(from: usize, len: usize) -> io::Result<&'static Place> {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        let mut free = FREE.lock();
        if free.is_empty() {
            let Some(room) = TABLE.iter().find(|block| block.load(Ordering::Relaxed).is_null()) else {
                let reason = format!("more than {} files are mapped", BLOCK * BLOCKS);
                return Err(io::Error::new(io::ErrorKind::OutOfMemory, reason));
            };
            let empty = [const { Place { from: AtomicUsize::new(0), len: AtomicUsize::new(0), lost: AtomicUsize::new(0) } };
                BLOCK];
            let block = Box::into_raw(Box::new(empty));
            room.store(block, Ordering::Release);
            // SAFETY: just made, never given back, and only read from here on: its fields are atomic.
            free.extend(unsafe { &*block });
        }
        let place = free.pop().ok_or_else(|| io::Error::other("a block has places"))?;
        place.lost.store(0, Ordering::Relaxed);
        place.len.store(len, Ordering::Relaxed);
        // Last: from here on it is found. See `find`.
        place.from.store(from, Ordering::SeqCst);
        Ok(place)
    }

    fn give_back(&'static self) {
        self.from.store(0, Ordering::SeqCst);
        FREE.lock().push(self);
    }

    fn note_loss(&self, at: usize) {
        let _ = self.lost.compare_exchange(0, at + 1, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The place of the mapping that has `address`, and where in it that is. Called by the handler: no lock, no allocation.
    fn find(address: usize) -> Option<(&'static Place, usize)> {
        for block in &TABLE {
            let block = block.load(Ordering::Acquire);
            if block.is_null() {
                return None;
            }
            // SAFETY: not null, so it was leaked in `take`, which wrote it before it stored the pointer: it is there for good. All of its
            // fields are atomic.
            for place in unsafe { &*block } {
                let from = place.from.load(Ordering::SeqCst);
                let len = place.len.load(Ordering::SeqCst);
                // Both are of one mapping if the first is still there: in between, the place is empty.
                if from != 0 && (from..from + len).contains(&address) && place.from.load(Ordering::SeqCst) == from {
                    return Some((place, address - from));
                }
            }
        }
        None
    }
}

/// Puts the handler in place, once in a process.
fn install() {
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `sigaction` is plain data, of which all zeros is a value: no flags, an empty mask. The handler has the signature that
    // SA_SIGINFO asks for and does only what a signal handler may (see there). The old action is written into memory of ours.
    unsafe {
        if libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) != 0 {
            tracing::warn!(error = %io::Error::last_os_error(), "what the disk does not give will end the process");
            return;
        }
        // Before the handler is there, which reads it.
        let _ = BEFORE.set((before.assume_init(), page_len()));
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_bus_error as *const () as usize;
        // The stack for signals, where a thread has one, as Rust's own handler asks for it.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) != 0 {
            tracing::warn!(error = %io::Error::last_os_error(), "what the disk does not give will end the process");
        }
    }
}

/// The handler. It uses atomics, `mmap`, `sigaction` and `errno` only: no lock, no allocation, nothing that a thread may be in the
/// middle of. (POSIX does not list `mmap` for handlers; on Linux it is a system call and nothing else.)
extern "C" fn on_bus_error(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let Some((before, page_len)) = BEFORE.get() else { return };
    // SAFETY: the kernel gives a valid `info`, and for SIGBUS the address is what it holds. `errno` is the thread's own, and restored.
    // The page that is replaced is inside a mapping of ours, because its place is in the table: a mapping leaves the table before it is
    // unmapped, and the thread that is stopped here uses it. Zeros in the place of what is lost are bytes like others to that thread. A
    // `sigaction` of zeros is SIG_DFL.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let address = (*info).si_addr() as usize;
        // Otherwise somebody sent it, and there is no address.
        let is_fault = (*info).si_code > 0;
        let found = if is_fault { Place::find(address) } else { None };
        let replaced = found.is_some_and(|(place, at)| {
            let page = address - address % page_len;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            place.note_loss(at - at % page_len);
            libc::mmap(page as *mut libc::c_void, *page_len, access, flags, -1, 0) != libc::MAP_FAILED
        });
        if !replaced {
            // Not ours: what was there before does as it would have done, when the access is tried again. What was sent is not, and Rust's own
            // handler, which is there before, would let the process live with no handler any more.
            let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(libc::SIGBUS, if is_fault { before } else { &raw const default }, ptr::null_mut());
            if !is_fault {
                libc::raise(libc::SIGBUS);
            }
        }
        *errno = saved;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file.write_all_at(b"here", len - 4).unwrap();
        file
    }

    fn byte(mapping: &Mapping, at: usize) -> u8 {
        assert!(at < mapping.len());
        // SAFETY: inside the mapping; nobody writes to it.
        unsafe { mapping.as_ptr().add(at).read_volatile() }
    }

    #[test]
    fn what_is_lost_reads_as_zeros_and_is_told() {
        let (cut, whole) = (file(5 * 4096), file(4096));
        let mapping = Mapping::new(&cut).unwrap();
        let other = Mapping::new(&whole).unwrap();
        assert_eq!((byte(&mapping, 5 * 4096 - 4), mapping.loss()), (b'h', None));
        cut.set_len(4096).unwrap();
        assert_eq!((byte(&mapping, 0), mapping.loss()), (0, None));
        assert_eq!((byte(&mapping, 5 * 4096 - 4), mapping.loss()), (0, Some(4 * 4096)));
        assert_eq!((byte(&mapping, 4096), mapping.loss()), (0, Some(4 * 4096)), "the first one stays");
        assert!(mapping.check().unwrap_err().to_string().starts_with("byte 16384 is gone"));
        assert_eq!((byte(&other, 4092), other.loss()), (b'h', None));
        drop(mapping);
        // Whoever gets the place next has lost nothing.
        assert_eq!(Mapping::read_only(&file(4096)).unwrap().loss(), None);
    }

    /// Whoever wants to see the process dead has it dead, and the first time.
    #[test]
    fn a_signal_that_somebody_sends_ends_the_process() {
        use std::os::unix::process::ExitStatusExt as _;
        const CHILD: &str = "FERROMQ_TEST_SENT_SIGBUS";
        if std::env::var_os(CHILD).is_some() {
            let _mapping = Mapping::new(&file(4096)).unwrap();
            let no_core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
            rustix::process::setrlimit(rustix::process::Resource::Core, no_core).unwrap();
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
            // Another thread may have got it, some time.
            std::thread::sleep(std::time::Duration::from_secs(10));
            return;
        }
        let name = "mapping::tests::a_signal_that_somebody_sends_ends_the_process";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.args([name, "--exact"]).env(CHILD, "1").output().unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGBUS), "{ended:?}");
    }

    #[test]
    fn many_threads_map_and_lose() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..200 {
                        let cut = file(3 * 4096);
                        let mapping = Mapping::read_only(&cut).unwrap();
                        if round % 2 == 0 {
                            cut.set_len(4096).unwrap();
                            assert_eq!((byte(&mapping, 8192), mapping.loss()), (0, Some(8192)));
                        } else {
                            assert_eq!((byte(&mapping, 3 * 4096 - 1), mapping.loss()), (b'e', None));
                        }
                    }
                });
            }
        });
    }
}
