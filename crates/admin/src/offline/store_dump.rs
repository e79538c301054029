//! `storeDump`: a record, entries of a queue, the chains of a key in the index, or the checkpoint of a store, for people to read.

use std::path::Path;

use ferromq_config::command_line::{GivenOptions, OptionSpec, value};
use ferromq_protocol::message::{Record, properties};
use ferromq_store::check::Dump;
use ferromq_store::{LogBegin, Places};

use super::{Failure, OfflineCommand, Out, store_at};
use crate::text::time_with_millis;

const AT: OptionSpec = value("", "at", "the record at this place of the commit log");
const QUEUE: OptionSpec = value("", "queue", "the entries of a queue, as TOPIC:ID");
const FROM: OptionSpec = value("", "from", "the first of these entries");
const COUNT: OptionSpec = value("", "count", "how many of them, 32 if nothing is said");
const KEY: OptionSpec = value("", "key", "the chains of a key in the index, as TOPIC#KEY");

pub const COMMAND: OfflineCommand = OfflineCommand {
    name: "storeDump",
    description: "Show pieces of a stopped broker's store; without an option, its checkpoint.",
    options: &[AT, QUEUE, FROM, COUNT, KEY],
    run,
};

/// There is no such thing in the store.
const NOT_THERE: u8 = 1;
/// Bytes of a body that are shown.
const BODY_SHOWN: usize = 1024;

fn run(given: &GivenOptions, root: &Path, out: &mut Out<'_>) -> Result<u8, Failure> {
    let number = |option: &OptionSpec| match given.value(option) {
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Failure::Wrong(format!("--{} is `{text}`, which is no number", option.long))),
        },
        None => Ok(None),
    };
    let (at, from, count) = (number(&AT)?, number(&FROM)?, number(&COUNT)?.unwrap_or(32));
    let queue = match given.value(&QUEUE) {
        Some(text) => match text.rsplit_once(':').and_then(|(topic, id)| Some((topic, id.parse().ok()?))) {
            Some(queue) => Some(queue),
            None => return Err(Failure::Wrong(format!("--queue is `{text}`, and should be TOPIC:ID"))),
        },
        None => None,
    };
    let key = match given.value(&KEY) {
        Some(text) => match text.split_once('#') {
            Some(key) => Some(key),
            None => return Err(Failure::Wrong(format!("--key is `{text}`, and should be TOPIC#KEY"))),
        },
        None => None,
    };
    let mut dump = Dump::open(store_at(given, root)?)?;
    let mut found = true;
    if let Some(at) = at {
        found &= show_record(&mut dump, at, out)?;
    }
    if let Some((topic, id)) = queue {
        found &= show_queue(&mut dump, topic, id, from, count, out)?;
    }
    if let Some((topic, key)) = key {
        found &= show_chains(&mut dump, topic, key, out)?;
    }
    if at.is_none() && queue.is_none() && key.is_none() {
        found &= show_checkpoint(&dump, out)?;
    }
    Ok(if found { 0 } else { NOT_THERE })
}

fn show_record(dump: &mut Dump, at: u64, out: &mut Out<'_>) -> Result<bool, Failure> {
    let bytes = dump.record(at)?;
    let Some(record) = bytes.as_deref().and_then(|bytes| Record::parse(bytes).ok()) else {
        out.line(format!("no record stands at {at}"));
        return Ok(false);
    };
    if let Some((path, place)) = dump.place(at) {
        out.line(format!("record at {at} ({}:{place})", path.display()));
    }
    let crc = match record.check_crc() {
        Ok(()) => format!("{:#010x}", record.stored_crc()),
        Err(error) => error.to_string(),
    };
    for (name, text) in [
        ("length", record.record_len().to_string()),
        ("magic", format!("{:#010x}", record.magic())),
        ("topic", record.topic().to_owned()),
        ("queue", format!("{} offset {}", record.queue_id(), record.queue_offset())),
        ("flag", record.flag().to_string()),
        ("system flag", format!("{:#x}", record.sys_flag().0)),
        ("born", format!("{} at {}", time_with_millis(record.born_timestamp()), record.born_host())),
        ("stored", format!("{} at {}", time_with_millis(record.store_timestamp()), record.store_host())),
        ("reconsume times", record.reconsume_times().to_string()),
        ("prepared transaction", record.prepared_transaction_offset().to_string()),
        ("body", format!("{} bytes, CRC {crc}", record.body().len())),
    ] {
        out.line(format!("  {name:<21} {text}"));
    }
    let shown = &record.body()[..record.body().len().min(BODY_SHOWN)];
    let cut = if shown.len() < record.body().len() { "..." } else { "" };
    out.line(format!("  {:<21} {}{cut}", "", shown.escape_ascii()));
    for (name, value) in properties::pairs(&record.properties()) {
        out.line(format!("  property {name:<12} {}", value.escape_debug()));
    }
    Ok(true)
}

fn show_queue(
    dump: &mut Dump,
    topic: &str,
    id: u32,
    from: Option<u64>,
    count: u64,
    out: &mut Out,
) -> Result<bool, Failure> {
    let Some((first, end)) = dump.queue_range(topic, id) else {
        out.line(format!("{topic} has no queue {id}"));
        return Ok(false);
    };
    out.line(format!("queue {id} of {topic}: files for entries {first} to {end}"));
    let from = from.unwrap_or(first).max(first);
    for offset in from..from.saturating_add(count).min(end) {
        let Some(entry) = dump.entry(topic, id, offset)?.entry else {
            out.line(format!("  {offset}: nothing"));
            break;
        };
        let what = if entry.is_filler() { "no message".to_owned() } else { format!("{} bytes", entry.len) };
        out.line(format!("  {offset}: at {}, {what}, tags code {}", entry.physical, entry.tags_code));
    }
    Ok(true)
}

fn show_chains(dump: &mut Dump, topic: &str, key: &str, out: &mut Out<'_>) -> Result<bool, Failure> {
    let mut found = false;
    for chain in dump.chains(topic, key)? {
        out.line(format!("{}: hash {}, slot {}", chain.path.display(), chain.hash, chain.slot));
        for link in chain.links {
            let is_it = link.hash == chain.hash;
            found |= is_it;
            let other = if is_it { String::new() } else { format!(", of another hash {}", link.hash) };
            let (number, physical, previous) = (link.number, link.physical, link.previous);
            let stored = time_with_millis(link.stored_ms);
            out.line(format!("  entry {number}: at {physical}, stored about {stored}, after entry {previous}{other}"));
        }
    }
    if !found {
        out.line(format!("the index has nothing for {topic}#{key}"));
    }
    Ok(found)
}

fn show_checkpoint(dump: &Dump, out: &mut Out<'_>) -> Result<bool, Failure> {
    let Some(checkpoint) = dump.checkpoint()? else {
        out.line("there is no checkpoint, or it is too short");
        return Ok(false);
    };
    for (name, time) in
        [("log", checkpoint.log_time), ("queues", checkpoint.queues_time), ("index", checkpoint.index_time)]
    {
        out.line(format!("{name:<8} on the disk up to {time} ({})", time_with_millis(time)));
    }
    match checkpoint.places {
        Places::Hold { up_to, begin } => {
            out.line(format!("places: log {}, queues {}, index {}", up_to.log, up_to.queues, up_to.index));
            out.line(match begin {
                LogBegin::At(begin) => format!("the log begins at {begin}"),
                LogBegin::Unsaid => "it does not say where the log begins".to_owned(),
                LogBegin::Damaged => "where the log begins is damaged".to_owned(),
            });
        }
        Places::None => out.line("places: none, a Java broker wrote it"),
        Places::Outdated => out.line("places: none that hold, a Java broker has changed the times since"),
        Places::Damaged => out.line("places: damaged"),
    }
    out.line(format!("master flushed up to {}, confirmed {}", checkpoint.master_flushed, checkpoint.confirmed));
    Ok(true)
}
