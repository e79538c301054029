//! `storeCheck`: whether log, queues, index, timers, checkpoint and tables of a store fit each other.

use std::path::Path;

use ferromq_config::command_line::{GivenOptions, OptionSpec, switch};
use ferromq_protocol::json;
use ferromq_store::check::{Finding, QueueTotals, Summary, check};
use serde::Serialize;

use super::config_files::ConfigFiles;
use super::{Failure, OfflineCommand, Out, store_at};

const JSON: OptionSpec = switch("", "json", "print one JSON object");

pub const COMMAND: OfflineCommand = OfflineCommand {
    name: "storeCheck",
    description: "Check the files of a stopped broker's store; changes nothing.",
    options: &[JSON],
    run,
};

/// Something is wrong with the store.
const FOUND_FAULTS: u8 = 1;

fn run(given: &GivenOptions, root: &Path, out: &mut Out<'_>) -> Result<u8, Failure> {
    let mut config = store_at(given, root)?;
    let as_json = given.has(&JSON);
    let (mut faults, mut notes) = (0, 0);
    if as_json {
        out.text("{\"findings\":[");
    }
    let mut tell = |finding: &Finding| {
        if as_json {
            out.text(if faults + notes > 0 { ",\n" } else { "\n" });
            out.text(&String::from_utf8_lossy(&json::to_vec(&JsonFinding::from(finding))));
        } else {
            out.line(finding.to_string());
        }
        *(if finding.is_fault { &mut faults } else { &mut notes }) += 1;
    };
    let files = ConfigFiles::read(root, &mut tell);
    config.topics = files.topics.clone();
    let checked = match check(&config, &mut tell) {
        Ok(checked) => checked,
        Err(error) => {
            if as_json {
                out.line(format!("],\"error\":{}}}", String::from_utf8_lossy(&json::to_vec(&error.to_string()))));
            }
            return Err(error.into());
        }
    };
    files.hold_against(&checked, &mut tell);
    // Those of the tables are among them now.
    let summary = Summary { faults, notes, ..checked.summary };
    if as_json {
        out.line(format!("],\n\"summary\":{}}}", String::from_utf8_lossy(&json::to_vec(&JsonSummary::from(&summary)))));
    } else {
        print(&summary, out);
    }
    Ok(if faults > 0 { FOUND_FAULTS } else { 0 })
}

fn print(summary: &Summary, out: &mut Out<'_>) {
    let Summary { log_files, log_begin, log_end, messages, index_files, index_entries, timers, faults, notes, .. } =
        *summary;
    let QueueTotals { queues, entries, lost, missing, to_come, deleted } = summary.of_queues;
    out.line(format!("log: {messages} messages from {log_begin} to {log_end} in {log_files} files"));
    out.line(format!("queues: {entries} entries in {queues} queues, {lost} of lost messages"));
    out.line(format!("messages that are not in their queue: {missing}; of topics that were deleted: {deleted}; that the next start puts there: {to_come}"));
    out.line(format!("index: {index_entries} entries in {index_files} files"));
    out.line(format!("timers: {timers} wait"));
    out.line(if summary.clean { "the broker was stopped in order" } else { "the broker was not stopped in order" });
    out.line(match (faults, notes) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, notes) => format!("nothing is wrong, {notes} notes"),
        (faults, notes) => format!("{faults} faults, {notes} notes"),
    });
}

/// For programs. The names do not change.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonFinding<'a> {
    fault: bool,
    part: &'static str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    what: &'a str,
}

impl<'a> From<&'a Finding> for JsonFinding<'a> {
    fn from(finding: &'a Finding) -> JsonFinding<'a> {
        JsonFinding {
            fault: finding.is_fault,
            part: finding.part.name(),
            file: finding.path.display().to_string(),
            offset: finding.at,
            what: &finding.what,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSummary {
    clean: bool,
    log_files: u64,
    log_begin: u64,
    log_end: u64,
    messages: u64,
    queues: u64,
    entries: u64,
    lost: u64,
    missing: u64,
    to_come: u64,
    deleted: u64,
    index_files: u64,
    index_entries: u64,
    timers: u64,
    faults: u64,
    notes: u64,
}

impl From<&Summary> for JsonSummary {
    fn from(summary: &Summary) -> JsonSummary {
        let Summary { clean, log_files, log_begin, log_end, messages, of_queues, .. } = *summary;
        let Summary { index_files, index_entries, timers, faults, notes, .. } = *summary;
        let QueueTotals { queues, entries, lost, missing, to_come, deleted } = of_queues;
        JsonSummary {
            clean,
            log_files,
            log_begin,
            log_end,
            messages,
            queues,
            entries,
            lost,
            missing,
            to_come,
            deleted,
            index_files,
            index_entries,
            timers,
            faults,
            notes,
        }
    }
}
