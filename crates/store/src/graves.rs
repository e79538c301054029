//! Where directories of deleted topics are until they are gone: `consumequeue/.deleted`.
//!
//! A directory is moved away by its topic's name right behind the append that says that the topic is deleted. Once that is on the disk
//! it loses the name, and is removed at leisure. A power loss in between may keep the move and lose the append: so an open after a
//! crash puts back what has a name still, and reading the log decides what becomes of it. As long as there is one, the checkpoint
//! stays before the append.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::files;

/// No topic can have this name.
pub const GRAVES: &str = ".deleted";
/// In there: the directories that have a name.
const BY_TOPIC: &str = "topics";

#[derive(Debug)]
pub struct Graves {
    queues_dir: PathBuf,
    list: Mutex<GraveList>,
}

#[derive(Debug, Default)]
struct GraveList {
    topics: Vec<String>,
    /// How many lost their names so far.
    nameless: u64,
}

impl Graves {
    /// Sees to what an earlier process left. After a clean stop nothing has a name.
    pub fn open(disk: &dyn Disk, queues_dir: PathBuf, clean: bool) -> Result<Graves, OpenError> {
        let graves = queues_dir.join(GRAVES);
        let by_topic = graves.join(BY_TOPIC);
        if !clean && by_topic.is_dir() {
            for grave in files::list_dirs(&by_topic)? {
                let Some(topic) = grave.file_name() else { continue };
                put_back(disk, &grave, &queues_dir.join(topic)).map_err(OpenError::io("put back", &grave))?;
            }
        }
        files::remove_dir(disk, &graves).map_err(OpenError::io("remove", &graves))?;
        Ok(Graves { queues_dir, list: Mutex::default() })
    }

    fn by_topic(&self) -> PathBuf {
        by_topic(&self.queues_dir)
    }

    /// Makes sure that [`Graves::bury`] needs nothing but the move.
    pub fn prepare(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.make_dir(&self.by_topic())
    }

    /// Moves the directory of a topic away, in one step, so that what is made in its place from then on is another one. With the
    /// dispatch held, which makes files there.
    pub fn bury(&self, disk: &dyn Disk, topic: &str) -> io::Result<()> {
        let topic_dir = self.queues_dir.join(topic);
        if !topic_dir.exists() {
            return Ok(());
        }
        disk.rename(&topic_dir, &self.by_topic().join(topic))?;
        self.list.lock().topics.push(topic.to_owned());
        Ok(())
    }

    pub fn are_empty(&self) -> bool {
        self.list.lock().topics.is_empty()
    }

    /// Of all that was buried, the log says on the disk that it is deleted: nothing brings it back any more once this has returned.
    /// Gives what is to be removed. What fails is done the next time.
    pub fn forget(&self, disk: &dyn Disk) -> io::Result<Vec<PathBuf>> {
        let mut list = self.list.lock();
        let (graves, by_topic) = (self.queues_dir.join(GRAVES), self.by_topic());
        let mut gone = Vec::new();
        for topic in &list.topics {
            // No number: Java would take it for a queue.
            let nameless = graves.join(format!("t{}", list.nameless + gone.len() as u64));
            let grave = by_topic.join(topic);
            if grave.exists() {
                disk.rename(&grave, &nameless)?;
            }
            gone.push(nameless);
        }
        for dir in [&by_topic, &graves, &self.queues_dir] {
            disk.sync_dir(dir)?;
        }
        list.nameless += gone.len() as u64;
        list.topics.clear();
        Ok(gone)
    }
}

/// Where the directories that have a name are, of the queues in a directory.
pub fn by_topic(queues_dir: &Path) -> PathBuf {
    queues_dir.join(GRAVES).join(BY_TOPIC)
}

/// Undoes a move, durably.
fn put_back(disk: &dyn Disk, grave: &Path, topic_dir: &Path) -> io::Result<()> {
    // What was made there since is behind the deletion in the log, and is put again from there.
    files::remove_dir(disk, topic_dir)?;
    disk.rename(grave, topic_dir)?;
    for dir in [topic_dir, grave].into_iter().filter_map(Path::parent) {
        disk.sync_dir(dir)?;
    }
    Ok(())
}
