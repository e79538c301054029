//! `storeCheck`: whether log, queues, index, timers, checkpoint and tables of a store fit each other; and what can be made again, is, with
//! `--repair`.

use std::path::Path;

use ferromq_config::command_line::{GivenOptions, OptionSpec, switch};
use ferromq_protocol::json;
use ferromq_store::check::{
    CheckConfig, CheckResult, Damage, Finding, Part, QueueTotals, Repaired, Summary, check, remedies, repair,
};
use serde::Serialize;

use super::config_files::ConfigFiles;
use super::{Failure, OfflineCommand, Out, made_with, store_at};

const JSON: OptionSpec = switch("", "json", "print one JSON object");
const REPAIR: OptionSpec = switch(
    "",
    "repair",
    "make queues, index, timers' files and checkpoint again where they have faults, and check once more; needs -c",
);

pub const COMMAND: OfflineCommand = OfflineCommand {
    name: "storeCheck",
    description: "Check the files of a stopped broker's store; changes nothing without --repair.",
    options: &[JSON, REPAIR],
    run,
};

/// Something is wrong with the store.
const FOUND_FAULTS: u8 = 1;

fn run(given: &GivenOptions, root: &Path, out: &mut Out<'_>) -> Result<u8, Failure> {
    let config = store_at(given, root)?;
    if !given.has(&JSON) {
        return look_and_repair(given, config, &mut Printer { out, as_json: false });
    }
    out.text("{");
    let done = look_and_repair(given, config, &mut Printer { out, as_json: true });
    if let Err(error) = &done {
        out.text(&format!(",\"error\":{}", as_json(&error.to_string())));
    }
    out.line("}");
    done
}

fn look_and_repair(
    given: &GivenOptions,
    mut config: CheckConfig,
    printer: &mut Printer<'_, '_>,
) -> Result<u8, Failure> {
    let made_with = if given.has(&REPAIR) { Some(made_with(given)?) } else { None };
    let found = look(&mut config, printer, "findings", "summary")?;
    let Some(made_with) = made_with.filter(|_| found.summary.faults > 0) else { return Ok(found.exit_code()) };
    let mut repaired = Repaired::default();
    let done = if found.damage.is_none() {
        Ok(())
    } else {
        repair(&config, &made_with, &found.damage, &found.checked, &mut repaired)
    };
    if done.is_ok() || repaired != Repaired::default() {
        printer.repaired(&repaired);
    }
    done?;
    printer.once_more();
    let left = look(&mut config, printer, "left", "leftSummary")?;
    printer.remedies(&left.parts);
    Ok(left.exit_code())
}

/// What one look at a store came to.
struct Looked {
    summary: Summary,
    checked: CheckResult,
    damage: Damage,
    /// Those with faults.
    parts: Vec<Part>,
}

impl Looked {
    fn exit_code(&self) -> u8 {
        if self.summary.faults > 0 { FOUND_FAULTS } else { 0 }
    }
}

/// Checks the store, and prints what is found as it is found; `findings` and `summary` are what programs know it by.
fn look(
    config: &mut CheckConfig,
    printer: &mut Printer<'_, '_>,
    findings: &str,
    summary: &str,
) -> Result<Looked, Failure> {
    let (mut faults, mut notes) = (0, 0);
    let (mut damage, mut parts) = (Damage::of(config), Vec::new());
    printer.begin_findings(findings);
    let mut tell = |finding: &Finding| {
        printer.finding(finding, faults + notes == 0);
        *(if finding.is_fault { &mut faults } else { &mut notes }) += 1;
        damage.add(finding);
        if finding.is_fault && !parts.contains(&finding.part) {
            parts.push(finding.part);
        }
    };
    let files = ConfigFiles::read(&config.root, &mut tell);
    config.topics = files.topics.clone();
    let checked = check(config, &mut tell);
    if let Ok(checked) = &checked {
        files.hold_against(checked, &mut tell);
    }
    printer.end_findings();
    let checked = checked?;
    // Those of the tables are among them now.
    let totals = Summary { faults, notes, ..checked.summary };
    printer.summary(&totals, summary);
    Ok(Looked { summary: totals, checked, damage, parts })
}

/// Prints for people, or as the members of one JSON object.
struct Printer<'o, 'w> {
    out: &'o mut Out<'w>,
    as_json: bool,
}

impl Printer<'_, '_> {
    fn begin_findings(&mut self, name: &str) {
        if self.as_json {
            let comma = if name == "findings" { "" } else { "," };
            self.out.text(&format!("{comma}\"{name}\":["));
        }
    }

    fn finding(&mut self, finding: &Finding, is_first: bool) {
        if self.as_json {
            self.out.text(if is_first { "\n" } else { ",\n" });
            self.out.text(&as_json(&JsonFinding::from(finding)));
        } else {
            self.out.line(finding.to_string());
        }
    }

    fn end_findings(&mut self) {
        if self.as_json {
            self.out.text("]");
        }
    }

    fn summary(&mut self, summary: &Summary, name: &str) {
        if self.as_json {
            self.out.text(&format!(",\n\"{name}\":{}", as_json(&JsonSummary::from(summary))));
        } else {
            print(summary, self.out);
        }
    }

    fn repaired(&mut self, repaired: &Repaired) {
        if self.as_json {
            self.out.text(&format!(",\n\"repair\":{}", as_json(&JsonRepair::from(repaired))));
            return;
        }
        self.out.line("");
        for (file, to) in &repaired.moved {
            self.out.line(format!("moved away: {} is {}", file.display(), to.display()));
        }
        for path in &repaired.moved_by_start {
            self.out.line(format!("moved away by the start: {}", path.display()));
        }
        for what in &repaired.made_again {
            self.out.line(format!("made again: {what}"));
        }
        if *repaired == Repaired::default() {
            self.out.line("nothing of this can be made again");
        }
    }

    fn once_more(&mut self) {
        if !self.as_json {
            self.out.line("\nnow:");
        }
    }

    /// For the parts that still have faults.
    fn remedies(&mut self, parts: &[Part]) {
        let remedies = remedies(parts.iter().copied());
        if self.as_json {
            self.out.text(&format!(",\n\"remedies\":{}", as_json(&remedies)));
        } else {
            remedies.iter().for_each(|(part, remedy)| self.out.line(format!("{part}: {remedy}")));
        }
    }
}

fn as_json<T: Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8_lossy(&json::to_vec(value)).into_owned()
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
struct JsonRepair<'a> {
    moved: Vec<JsonMove>,
    moved_by_start: Vec<String>,
    made_again: &'a [&'static str],
}

#[derive(Serialize)]
struct JsonMove {
    file: String,
    to: String,
}

impl<'a> From<&'a Repaired> for JsonRepair<'a> {
    fn from(repaired: &'a Repaired) -> JsonRepair<'a> {
        let moves = repaired.moved.iter();
        let moved = moves.map(|(file, to)| JsonMove { file: file.display().to_string(), to: to.display().to_string() });
        let moved_by_start = repaired.moved_by_start.iter().map(|path| path.display().to_string()).collect();
        JsonRepair { moved: moved.collect(), moved_by_start, made_again: &repaired.made_again }
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
