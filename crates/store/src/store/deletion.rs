//! Taking the queues of topics away.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use crate::consume_queue::ConsumeQueue;
use crate::files;
use crate::table_change;

impl Store {
    /// Removes the queues of a topic; a new topic of that name begins at offset 0. Its messages stay in the log until
    /// their segments go, and the log says, behind them, that they have no queue any more: whatever happens, they do not come back
    /// once this has returned. False when there was no such topic. Waits for the disk. Java: deleteTopics.
    pub fn delete_topic(&self, topic: &str) -> io::Result<bool> {
        if self.queues.of_topic(topic).is_empty() {
            return Ok(false);
        }
        let buried = self.bury(topic);
        // Whoever found the dispatch held left his messages to this.
        self.dispatch_signal.wake();
        let (removed, grave) = buried?;
        removed.iter().for_each(|queue| queue.let_go());
        if let Some(grave) = grave {
            files::remove_dir(&grave)?;
        }
        Ok(true)
    }

    /// Takes the queues off the table and puts their files away, and has the log say so, durably. Gives the queues, and where their
    /// files are now.
    fn bury(&self, topic: &str) -> io::Result<(Vec<Arc<ConsumeQueue>>, Option<PathBuf>)> {
        let mut record = table_change::topic_deleted(topic, self.config.clock.now_ms()).map_err(io::Error::other)?;
        // Nobody writes out queues meanwhile, and finds nothing to be done for those that may be taken back.
        let _writing_out = self.maintenance.writing_out.lock();
        // As long as this is held, the checkpoint stays before the record of the deletion.
        let mut work = self.dispatcher.hold();
        // Nobody makes files while the dispatch is held, so whoever begins the topic anew finds no directory there.
        let grave = self.queues.bury(topic)?;
        let mut removed = Vec::new();
        let appended = self.log.append_alone(&mut record, |placed| {
            // Together: who appends to the topic after this begins it anew, and behind the record.
            removed = self.queues.take_topic(topic);
            removed.iter().for_each(|queue| queue.retire());
            self.dispatcher.topic_deleted(&mut work, topic, placed.physical);
        });
        let placed = match appended {
            Ok(placed) => placed,
            Err(error) => {
                if let Some(grave) = grave {
                    self.queues.unbury(topic, &grave)?;
                }
                return Err(io::Error::other(error));
            }
        };
        self.log_grew(placed.end);
        // Before the files go for good: else a power loss could leave a part of them and the whole log.
        self.flusher.flush()?;
        self.config.disk.sync_dir(self.queues.dir())?;
        Ok((removed, grave))
    }

    /// Removes the queues of all topics for which `keep` is false; returns their names. Java: cleanUnusedTopic.
    pub fn clean_queues_except(&self, keep: impl Fn(&str) -> bool) -> io::Result<Vec<Arc<str>>> {
        let unwanted: Vec<_> = self.queues.topics().into_iter().filter(|topic| !keep(topic)).collect();
        for topic in &unwanted {
            self.delete_topic(topic)?;
        }
        Ok(unwanted)
    }
}
