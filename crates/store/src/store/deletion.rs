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
        self.delete_unless(topic, None)
    }

    /// Removes the queues of all topics for which `keep` is false; returns their names. It is asked again at the last moment, with
    /// the dispatch held. Java: cleanUnusedTopic.
    pub fn clean_queues_except(&self, keep: impl Fn(&str) -> bool) -> io::Result<Vec<Arc<str>>> {
        let mut gone = Vec::new();
        for topic in self.queues.topics().into_iter().filter(|topic| !keep(topic)) {
            if self.delete_unless(&topic, Some(&keep))? {
                gone.push(topic);
            }
        }
        Ok(gone)
    }

    /// Takes the queues away of all topics for which `keep` is false, and says nothing of that in the log: for topics that a read of the
    /// whole log has brought back. Before anybody appends; durable with the close that follows.
    pub(crate) fn forget_topics_except(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        self.dispatcher.held(|| {
            let mut others = self.queues.topics().into_iter().filter(|topic| !keep(topic));
            others.try_for_each(|topic| self.maintenance.projection.forget_topic(&topic))
        })
    }

    fn delete_unless(&self, topic: &str, keep: Option<&dyn Fn(&str) -> bool>) -> io::Result<bool> {
        if self.queues.of_topic(topic).is_empty() {
            return Ok(false);
        }
        let buried = self.bury(topic, keep);
        // Threads that found the dispatch held left their messages to this one.
        self.dispatch_signal.wake();
        self.tell_growth();
        let Some(gone) = buried? else { return Ok(false) };
        self.maintenance.hurry();
        gone.iter().try_for_each(|dir| files::remove_dir(&*self.config.disk, dir))?;
        Ok(true)
    }

    /// Has the log say that the topic is no more, takes its queues off the table and puts their files away, durably. Gives what is
    /// to be removed; `None` when there is nothing, or it is to be kept.
    fn bury(&self, topic: &str, keep: Option<&dyn Fn(&str) -> bool>) -> io::Result<Option<Vec<PathBuf>>> {
        let mut record = table_change::topic_deleted(topic, self.config.clock.now_ms()).map_err(io::Error::other)?;
        // As long as this is held, the checkpoint stays before the record of the deletion.
        let _writing_out = self.maintenance.writing_out.lock();
        // One that could not be finished may be in the way.
        self.maintenance.finish_deletions()?;
        self.maintenance.graves.prepare(&*self.config.disk)?;
        let (removed, end) = loop {
            // Without the dispatch held, which all topics would wait for.
            self.log.wait_for_room(record.len()).map_err(io::Error::other)?;
            let mut work = self.dispatcher.hold();
            let queues = self.queues.of_topic(topic);
            let next = offsets(&queues);
            if queues.is_empty() || keep.is_some_and(|keep| keep(topic)) {
                return Ok(None);
            }
            let Some(mut tail) = self.log.hold_with_room(record.len()).map_err(io::Error::other)? else { continue };
            if keep.is_some() && offsets(&self.queues.of_topic(topic)) != next {
                // Whoever has appended meanwhile may have begun the topic anew before.
                return Ok(None);
            }
            // Together: who appends to the topic after this begins it anew, and behind the record.
            let placed = self.log.append_alone(&mut tail, &mut record).map_err(io::Error::other)?;
            let removed = self.queues.take_topic(topic);
            removed.iter().for_each(|queue| queue.retire());
            self.dispatcher.topic_deleted(&mut work, topic, placed.physical);
            drop(tail);
            // After the record: with it (in the write pool) a crash takes this back as well. And before the dispatch goes on: whoever
            // begins the topic anew finds no directory there.
            removed.iter().for_each(|queue| queue.set_going());
            if let Err(error) = self.maintenance.graves.bury(&*self.config.disk, topic) {
                // New queues would meet the files of the old ones. The next open removes these, as the log says.
                self.health.poison(format!("the queues of the deleted topic {topic} cannot be put away: {error}"));
                return Err(error);
            }
            break (removed, placed.end);
        };
        removed.iter().for_each(|queue| queue.let_go());
        self.log_grew(end);
        self.flusher.flush()?;
        self.maintenance.graves.forget(&*self.config.disk).map(Some)
    }
}

/// The offsets that the next messages get.
fn offsets(queues: &[Arc<ConsumeQueue>]) -> Vec<(u32, u64)> {
    queues.iter().map(|queue| (queue.id().0, queue.next())).filter(|(_, next)| *next > 0).collect()
}
