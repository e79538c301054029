//! A small file system of a test's own: one that becomes full, or fails.
//!
//! It is a tmpfs in a mount namespace of its own, which needs no root where users may have namespaces, or an ext4 in a file, which needs root
//! and a loop device. It goes with the process that holds it, and who else is in the namespace.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, run};

/// A directory of a test's own, in memory where there is some: nothing here is to wait for a disk that others keep busy.
pub fn home() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    home.expect("a temporary directory")
}

#[derive(Clone, Copy)]
pub enum FileSystem {
    Tmpfs,
    Ext4,
}

/// A small file system, and the process in whose namespace it is mounted.
pub struct SmallDisk {
    holder: Process,
    pub dir: PathBuf,
    file_system: FileSystem,
}

impl SmallDisk {
    pub fn mount(home: &Path, file_system: FileSystem, mib: u64) -> SmallDisk {
        let dir = home.join("small");
        fs::create_dir_all(&dir).expect("temporary directory is writable");
        let (at, file) = (dir.display(), file_in(home).display().to_string());
        let (flags, mount, skip) = match file_system {
            FileSystem::Tmpfs => ("-rm", format!("mount -t tmpfs -o size={mib}m tmpfs '{at}'"), "endurance::full_disk"),
            FileSystem::Ext4 => (
                "-m",
                format!(
                    "{{ [ -e '{file}' ] || {{ truncate -s {mib}M '{file}' && mkfs.ext4 -q -b 4096 '{file}'; }}; }} && mount -o loop '{file}' '{at}'"
                ),
                "on_ext4",
            ),
        };
        let script = format!("{mount} && echo mounted && exec cat");
        let mut command = Command::new("unshare");
        let mut holder = Process::start("small disk", command.args([flags, "sh", "-c", &script]));
        let mounted = holder.next_line().is_some();
        assert!(
            mounted,
            "no file system can be mounted in a namespace here (unshare {flags}, {mount}); `--skip {skip}` leaves out what needs one"
        );
        SmallDisk { holder, dir, file_system }
    }

    /// What runs a program where it is mounted.
    pub fn wrapper(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        let user: &[&str] = match self.file_system {
            FileSystem::Tmpfs => &["-U", "--preserve-credentials"],
            FileSystem::Ext4 => &[],
        };
        [&["nsenter", "-t", &pid], user, &["-m", "--"]].concat().into_iter().map(str::to_owned).collect()
    }

    /// A file there as it is seen from here.
    pub fn path(&self, name: &str) -> PathBuf {
        let dir = self.dir.strip_prefix("/").expect("it is absolute");
        Path::new("/proc").join(self.holder.pid().to_string()).join("root").join(dir).join(name)
    }

    /// Takes all that is left of it, to the last byte.
    pub fn fill(&self) {
        let mut filler = File::create(self.path("filler")).expect("a name takes no room");
        for len in [1 << 20, 1 << 16, 4096, 1] {
            while filler.write_all(&vec![1; len]).is_ok() {}
        }
        // What was set aside for the writing of all that, and not needed.
        let _ = filler.sync_all();
        while filler.write_all(&[1]).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.path("filler")).expect("it was made");
    }

    /// Of an ext4: keeps what is on it, and has every later read and write of the device fail with EIO.
    pub fn fail(&self, home: &Path) {
        let (dir, file, kept) = (self.dir.display(), file_in(home), kept_in(home));
        let (file, kept) = (file.display(), kept.display());
        // Frozen, so that what is kept is whole, and never left so: the broker could not even be killed. A device that has become shorter
        // has nothing behind its end.
        let script = format!(
            "set -e; trap \"fsfreeze -u '{dir}'\" EXIT INT TERM; fsfreeze -f '{dir}'; cp '{file}' '{kept}'; \
             fsfreeze -u '{dir}'; trap - EXIT INT TERM; truncate -s 4K '{file}'; \
             losetup -c \"$(findmnt -n -o SOURCE '{dir}')\""
        );
        let [first, others @ ..] = &self.wrapper()[..] else { unreachable!("it is a command") };
        let done = run(Command::new(first).args(others).args(["sh", "-c", &script]));
        assert!(done.status.success(), "{script}: {}{}", done.stdout, done.stderr);
    }
}

/// Puts what [`SmallDisk::fail`] has kept in the place of the disk, which is no longer in use.
pub fn repair(home: &Path) {
    fs::rename(kept_in(home), file_in(home)).expect("it was kept");
}

fn file_in(home: &Path) -> PathBuf {
    home.join("small.ext4")
}

fn kept_in(home: &Path) -> PathBuf {
    home.join("kept.ext4")
}
