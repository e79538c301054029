//! What the store asks of the disk where it can fail or wait: making, naming and removing files, writing and syncing them, reading what is
//! not in memory.
//! The seam through which tests inject a full disk, a failing sync, a bad sector, slowness, and power cuts.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rustix::fs::{FallocateFlags, FsWord, fallocate, fstatfs, statfs, statvfs, syncfs};
use rustix::io::Errno;

use crate::mapping::Mapping;

/// A page of memory, in bytes.
pub const PAGE: usize = 4096;

/// A range of a mapped file, whole pages. What can be done with it is in `mapped_file`.
pub struct MappedRange<'a> {
    pub path: &'a Path,
    pub from: usize,
    pub len: usize,
    pub(crate) map: &'a Mapping,
    /// What to sync where the mapping has other memory in the place of the file's.
    pub(crate) file: Option<&'a File>,
}

impl<'a> MappedRange<'a> {
    /// From the start of the page that `range` begins in.
    pub(crate) fn new(path: &'a Path, map: &'a Mapping, range: Range<usize>) -> MappedRange<'a> {
        let from = range.start - range.start % PAGE;
        MappedRange { path, from, len: range.end - from, map, file: None }
    }
}

/// The clock that dates changes of files goes in steps, of 10 ms at most (a kernel's timer, `CONFIG_HZ=100`; 1 to 4 ms are usual): two
/// changes within one may have one time. Twice that, as the steps are counted by another clock than ours.
pub const CLOCK_STEP: Duration = Duration::from_millis(20);
/// Where a file system keeps no more than seconds of it, or two of them.
const COARSE_CLOCK_STEP: Duration = Duration::from_secs(2);

/// Which file it is, and when it was changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    pub device: u64,
    pub inode: u64,
    pub len: u64,
    /// Its ctime in nanoseconds since 1970: whatever changes a byte of it, its length or its name moves that, and nobody can set it. What
    /// is changed through a mapping moves it when a page is changed that was not since it was synced.
    pub changed_ns: i64,
    /// Whether a change that comes from now on moves it.
    pub is_settled: bool,
}

impl FileState {
    fn of(file: &std::fs::Metadata, now: SystemTime) -> FileState {
        // Up to the year 2262; beyond it all are one, and none is settled.
        let changed_ns = file.ctime().saturating_mul(1_000_000_000).saturating_add(file.ctime_nsec());
        // A clock that was set back leaves files of the future, which may have any time again.
        let now_ns = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let step = if file.ctime_nsec() == 0 { COARSE_CLOCK_STEP } else { CLOCK_STEP };
        let is_settled = u128::try_from(changed_ns).is_ok_and(|ns| ns + step.as_nanos() <= now_ns);
        FileState { device: file.dev(), inode: file.ino(), len: file.len(), changed_ns, is_settled }
    }
}

/// How full a filesystem is, as Java counts it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskUsage {
    pub total_bytes: u64,
    /// What is left for anyone, blocks reserved for root not counted.
    pub free_bytes: u64,
    /// 0..=1: used / (used + usable), rounded up to a whole percent. Java: UtilAll.getDiskPartitionSpaceUsedPercent.
    pub used_ratio: f64,
}

/// The disk as the store sees it. [`LocalDisk`] is the real one.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes `path` with `len` allocated, zeroed bytes, not yet durable. The file must not exist; on an error it does
    /// not afterwards.
    fn create(&self, path: &Path, len: u64) -> io::Result<File>;
    /// Allocates `range` of a file that is at least so long; what is allocated already stays as it is.
    fn allocate(&self, file: &File, range: Range<u64>) -> io::Result<()>;
    /// Makes a range of a mapped file durable. Any error counts as one of the sync itself, as in [`Disk::sync_file`].
    fn sync_range(&self, range: &MappedRange<'_>) -> io::Result<()>;
    /// Makes a file's data and length durable.
    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()>;
    /// Makes entries of a directory durable. It has to be opened for that, which may fail and leave no harm.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes all durable that there is on the file system of `dir`, which was opened before any of it was written: data, lengths and
    /// names. Any error but `Unsupported`, after which nothing was done, counts as one of the sync itself.
    fn sync_file_system(&self, _dir: &Path, file: &File) -> io::Result<()> {
        sync_file_system(file)
    }
    /// Whether files in `dir` are dated by this machine's clock, and asked for anew each time.
    fn dates_files(&self, dir: &Path) -> bool {
        /// NFS, SMB, CIFS, FUSE, Ceph, 9p, AFS: by the clock of a server, or as somebody else says.
        const OTHERS: [FsWord; 8] =
            [0x6969, 0xFE53_4D42, 0xFF53_4D42, 0x517B, 0x6573_5546, 0x00C3_6400, 0x0102_1997, 0x5346_414F];
        statfs(dir).is_ok_and(|found| !OTHERS.contains(&found.f_type))
    }
    /// Of the file at a path.
    fn state(&self, path: &Path) -> io::Result<FileState> {
        let now = SystemTime::now();
        Ok(FileState::of(&std::fs::metadata(path)?, now))
    }
    /// Of a file that was opened at a path.
    fn state_of(&self, _path: &Path, file: &File) -> io::Result<FileState> {
        let now = SystemTime::now();
        Ok(FileState::of(&file.metadata()?, now))
    }
    /// Whether a range of a mapped file is in memory, so that looking at it waits for nothing and cannot fail.
    fn is_resident(&self, range: &MappedRange<'_>) -> bool {
        range.is_resident()
    }
    /// Bytes that reach the device together: between any two multiples of it, what was not synced may be torn.
    fn page_len(&self) -> usize {
        PAGE
    }
    /// Fills `bytes` with those at `at`; waits for the device. A file that ends before is an error.
    fn read(&self, _path: &Path, file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
        file.read_exact_at(bytes, at)
    }
    /// Puts `bytes` at `at` of a file to which nobody writes through a mapping. On an error, any part of them may be there. Those of the
    /// commit log (with the write pool) are whole pages, and begin at one in the file and in memory: the file may be open for direct I/O.
    fn write(&self, _path: &Path, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }
    /// Turns bytes of a file that is not written to meanwhile into zeros; its length stays. Not yet durable.
    fn zero(&self, _path: &Path, file: &File, range: Range<u64>) -> io::Result<()> {
        zero_range(file, range.start, range.end - range.start)
    }
    /// Gives a file or a directory another name, in place of the file that has it. Durable with the directory's next sync, as are the
    /// three that follow.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    /// Removes a directory with all that is in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }
    /// Makes a directory, and those above it, unless it is there.
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }
    /// How full the filesystem of `path` is.
    fn usage(&self, path: &Path) -> io::Result<DiskUsage>;
    /// What names the time since the machine was started: until the power goes, what was written is there, on the device or not. `None`
    /// where nothing tells.
    fn boot_id(&self) -> Option<String> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }
}

/// The machine's filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path, len: u64) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        if let Err(error) = self.allocate(&file, 0..len) {
            if let Err(left_over) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), error = %left_over, "half-made file stays behind");
            }
            return Err(naming(error, path, len));
        }
        Ok(file)
    }

    fn allocate(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        allocate(file, range)
    }

    fn sync_range(&self, range: &MappedRange<'_>) -> io::Result<()> {
        range.sync()
    }

    fn sync_file(&self, _path: &Path, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all().map_err(sync_failed)
    }

    fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        let stat = statvfs(path)?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let whole = used + stat.f_bavail;
        let percent = if whole == 0 { 0 } else { (used * 100).div_ceil(whole) };
        Ok(DiskUsage {
            total_bytes: stat.f_blocks * stat.f_frsize,
            free_bytes: stat.f_bavail * stat.f_frsize,
            used_ratio: percent as f64 / 100.0,
        })
    }
}

/// What a sync itself said, as opposed to what had to be opened for it. After that nobody knows what the disk holds, and a
/// second try would be answered as if all were well: the kernel tells of a page that it could not write only once.
#[derive(Debug, thiserror::Error)]
#[error("the sync failed: {0}")]
struct SyncFailed(io::Error);

pub(crate) fn sync_failed(error: io::Error) -> io::Error {
    if is_failed_sync(&error) { error } else { io::Error::new(error.kind(), SyncFailed(error)) }
}

/// Whether the store must be poisoned for an error. All others may pass, and what they hindered is tried again.
pub(crate) fn is_failed_sync(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SyncFailed>())
}

/// Adds to an error of the system which file wanted how much.
pub(crate) fn naming(error: io::Error, path: &Path, len: u64) -> io::Error {
    io::Error::new(error.kind(), format!("{len} bytes for {}: {error}", path.display()))
}

fn sync_file_system(file: &File) -> io::Result<()> {
    /// The first kernel that tells who syncs a file system of all that could not be written: of pages since 5.8, of names since this one.
    const TELLS_SINCE: (u32, u32) = (5, 17);
    /// Ext4 and XFS. One that lies on another (overlayfs, FUSE) does not tell of what that could not write.
    const TELLING: [FsWord; 2] = [0xEF53, 0x5846_5342];
    static TELLS: LazyLock<bool> = LazyLock::new(|| {
        let told = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        told.and_then(|release| version_of(&release)).is_some_and(|version| version >= TELLS_SINCE)
    });
    if !*TELLS || !TELLING.contains(&fstatfs(file)?.f_type) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(syncfs(file)?)
}

/// The first two numbers of a kernel's.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Reserves a range. Where the filesystem cannot, a new file gets zeros: the bytes are there either way, so that a full
/// disk is an error here and not a SIGBUS later.
fn allocate(file: &File, range: Range<u64>) -> io::Result<()> {
    let len = range.end - range.start;
    if len == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), range.start, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return fill_holes(file, range),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Turns `from..from + len` of a file into zeros without giving its blocks back. The file's length stays.
fn zero_range(file: &File, from: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, from, len) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(file, from, len),
        Err(error) => Err(error.into()),
    }
}

/// Writes zeros where the file has nothing, page by page: only what reads as zeros is written, so nothing is lost.
fn fill_holes(file: &File, range: Range<u64>) -> io::Result<()> {
    const STEP: u64 = PAGE as u64;
    let end = file.metadata()?.len();
    if range.start >= end {
        return write_zeros(file, range.start, range.end - range.start);
    }
    let mut at = range.start;
    while at < range.end {
        let to = range.end.min(at + STEP);
        // At most a page.
        let mut page = vec![0; (to - at) as usize];
        let known = end.saturating_sub(at).min(to - at) as usize;
        file.read_exact_at(&mut page[..known], at)?;
        if page.iter().all(|byte| *byte == 0) {
            file.write_all_at(&page, at)?;
        }
        at = to;
    }
    Ok(())
}

fn write_zeros(file: &File, from: u64, len: u64) -> io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let zeros = vec![0; CHUNK];
    let mut at = from;
    while at < from + len {
        let chunk = usize::try_from(from + len - at).map_or(CHUNK, |left| left.min(CHUNK));
        file.write_all_at(&zeros[..chunk], at)?;
        at += chunk as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroing_keeps_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = LocalDisk.create(&path, 10_000).unwrap();
        file.write_all_at(&[7; 10_000], 0).unwrap();
        zero_range(&file, 5_001, 4_999).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 10_000);
        assert!(bytes[..5_001].iter().all(|byte| *byte == 7) && bytes[5_001..].iter().all(|byte| *byte == 0));
        assert!(LocalDisk.create(&path, 1).is_err());
    }

    #[test]
    fn holes_are_filled_where_the_filesystem_cannot_allocate() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(64 << 10).unwrap();
        file.write_all_at(b"kept", 20_000).unwrap();
        let before = file.metadata().unwrap().blocks();
        fill_holes(&file, 8192..40_000).unwrap();
        // Beyond the end, as for a new file.
        fill_holes(&file, 64 << 10..70_000).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len(), &bytes[20_000..20_004]), (70_000, &b"kept"[..]));
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 4);
        assert!(file.metadata().unwrap().blocks() >= before + (32 << 10) / 512, "the range has disk space");
    }

    #[test]
    fn kernels_are_told_apart() {
        assert!(version_of("5.16.19-generic") < Some((5, 17)) && version_of("5.17") == Some((5, 17)));
        assert!(version_of("6.18.44-fc-v657") > Some((5, 10)) && version_of("x.y").is_none());
    }

    #[test]
    fn a_file_is_settled_once_the_clock_has_gone_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.path().metadata().unwrap();
        let changed = SystemTime::UNIX_EPOCH + Duration::new(metadata.ctime() as u64, metadata.ctime_nsec() as u32);
        let is_settled = |now| FileState::of(&metadata, now).is_settled;
        let step = if metadata.ctime_nsec() == 0 { COARSE_CLOCK_STEP } else { CLOCK_STEP };
        assert!(!is_settled(changed) && !is_settled(changed + step - Duration::from_nanos(1)));
        assert!(is_settled(changed + step));
        assert!(!is_settled(changed - Duration::from_secs(3600)), "the clock was set back");
    }

    #[test]
    fn usage_is_a_ratio() {
        let usage = LocalDisk.usage(Path::new("/")).unwrap();
        assert!((0.0..=1.0).contains(&usage.used_ratio) && usage.total_bytes >= usage.free_bytes);
    }
}
