//! Saves of a table on a disk that fails at any call, loses its power at any call, and keeps of what was not synced whatever it likes.
//!
//! Each call changes real files and is written down: which names and which content a power cut may take back. At every call all that may
//! be left of them is tried: any of the names, in any combination, and the content as it was, empty, half, zeros or whole. So that this
//! finds what it is there to find, the files can also do what a save could do wrong: see [`Bug`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::catch_unwind;

use super::*;
use crate::saved::read_by;

/// Versions that are saved one after the other.
const VERSIONS: u32 = 3;

/// What is left, by path: `None` for a directory.
type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;
/// What was looked at already, with the versions that it may have.
type Seen = BTreeSet<(Tree, Option<u32>, u32)>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Dir,
    /// Its content is at this place of the list.
    File(usize),
}

/// What one call does to a directory, as a whole or not at all.
#[derive(Clone, Debug)]
struct Change {
    dir: PathBuf,
    names: Vec<(PathBuf, Option<Node>)>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// What there is, and what of it is certain.
#[derive(Clone, Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    changes: Vec<Change>,
    contents: Vec<Content>,
}

impl State {
    fn change(&mut self, dir: &Path, names: Vec<(PathBuf, Option<Node>)>) {
        apply(&mut self.names, &names);
        self.changes.push(Change { dir: dir.to_owned(), names });
    }

    fn content(&mut self, path: &Path) -> &mut Content {
        let Some(Node::File(number)) = self.names.get(path) else { panic!("{} is no file", path.display()) };
        &mut self.contents[*number]
    }

    fn sync_dir(&mut self, dir: &Path) {
        for change in self.changes.extract_if(.., |change| change.dir == dir) {
            apply(&mut self.synced, &change.names);
        }
    }

    /// All that a power cut may leave.
    fn outcomes(&self) -> BTreeSet<Tree> {
        let mut outcomes = BTreeSet::new();
        for kept in 0..1_u32 << self.changes.len() {
            let mut names = self.synced.clone();
            for (_, change) in self.changes.iter().enumerate().filter(|(at, _)| kept >> at & 1 == 1) {
                apply(&mut names, &change.names);
            }
            for variant in 0..5 {
                let mut tree = Tree::new();
                for (path, node) in &names {
                    let is_below = |dir: &Path| dir.as_os_str().is_empty() || tree.contains_key(dir);
                    if path.parent().is_none_or(is_below) {
                        let content = match node {
                            Node::Dir => None,
                            Node::File(number) => Some(self.contents[*number].after_power_cut(variant)),
                        };
                        tree.insert(path.clone(), content);
                    }
                }
                outcomes.insert(tree);
            }
        }
        outcomes
    }
}

impl Content {
    fn after_power_cut(&self, variant: usize) -> Vec<u8> {
        if self.now == self.synced {
            return self.now.clone();
        }
        match variant {
            0 => self.synced.clone(),
            1 => Vec::new(),
            2 => self.now[..self.now.len() / 2].to_vec(),
            3 => vec![0; self.now.len()],
            _ => self.now.clone(),
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, changes: &[(PathBuf, Option<Node>)]) {
    for (path, node) in changes {
        match node {
            Some(node) => {
                names.insert(path.clone(), *node);
            }
            None => {
                names.remove(path);
            }
        }
    }
}

/// A moment between two calls: what a power cut may leave of it must have one of these versions.
struct Moment {
    state: State,
    saved: Option<u32>,
    begun: u32,
    call: String,
}

/// What a save could do wrong, and what no start after it can make good.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    /// A file has its name before its bytes are on the disk.
    NotSynced,
    /// Names are never synced.
    NamesNotSynced,
    /// What is written in place has its backup removed first.
    BackupRemovedFirst,
    /// A part of what is to be written is not, and nobody asks.
    WritesShort,
}

const BUGS: [Bug; 4] = [Bug::NotSynced, Bug::NamesNotSynced, Bug::BackupRemovedFirst, Bug::WritesShort];

/// Files below a directory of their own.
struct ScriptedFiles {
    dir: tempfile::TempDir,
    state: RefCell<State>,
    moments: RefCell<Vec<Moment>>,
    saved: Cell<Option<u32>>,
    begun: Cell<u32>,
    calls: Cell<usize>,
    /// This call fails, with this error.
    fails: Cell<Option<(usize, i32)>>,
    /// The table is a mount point: nothing can take its place.
    is_mounted: Cell<bool>,
    bug: Option<Bug>,
}

/// As Linux numbers them.
const EIO: i32 = 5;
const EBUSY: i32 = 16;
const EXDEV: i32 = 18;
const ENOSPC: i32 = 28;

impl ScriptedFiles {
    fn new(bug: Option<Bug>) -> ScriptedFiles {
        let dir = tempfile::tempdir().unwrap();
        // The store's directory, which the store makes durable.
        fs::create_dir(dir.path().join("store")).unwrap();
        let names = BTreeMap::from([(PathBuf::from("store"), Node::Dir)]);
        ScriptedFiles {
            dir,
            state: RefCell::new(State { synced: names.clone(), names, ..State::default() }),
            moments: RefCell::default(),
            saved: Cell::default(),
            begun: Cell::default(),
            calls: Cell::default(),
            fails: Cell::default(),
            is_mounted: Cell::default(),
            bug,
        }
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("store/config/table.json")
    }

    fn below<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(self.dir.path()).unwrap()
    }

    fn act(&self, name: &str, path: &Path) -> io::Result<()> {
        let call = self.calls.replace(self.calls.get() + 1);
        let moment = Moment {
            state: self.state.borrow().clone(),
            saved: self.saved.get(),
            begun: self.begun.get(),
            call: format!("call {call}, {name} {}", self.below(path).display()),
        };
        self.moments.borrow_mut().push(moment);
        match self.fails.get() {
            Some((at, errno)) if at == call => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    /// Whether nothing can be put in the place of the table.
    fn is_held(&self, path: &Path) -> bool {
        self.is_mounted.get() && path == self.table()
    }

    /// The next version; true if it is acknowledged.
    fn save(&self) -> bool {
        let version = self.begun.get() + 1;
        self.begun.set(version);
        let is_saved = replace_by(self, &self.table(), &text(version)).is_ok();
        if is_saved {
            self.saved.set(Some(version));
        }
        is_saved
    }

    /// What was saved is there after a power cut at each of the moments.
    fn check(&self, seen: &mut Seen) {
        self.act("none", &self.table()).unwrap();
        for Moment { state, saved, begun, call } in self.moments.take() {
            for tree in state.outcomes() {
                if !seen.insert((tree.clone(), saved, begun)) {
                    continue;
                }
                let left = tempfile::tempdir().unwrap();
                for (path, content) in &tree {
                    match content {
                        None => fs::create_dir_all(left.path().join(path)).unwrap(),
                        Some(bytes) => fs::write(left.path().join(path), bytes).unwrap(),
                    }
                }
                let found = read_by(&LocalFiles, &left.path().join("store/config/table.json"), version_of);
                let found = found.unwrap_or_else(|error| panic!("{error}, of {tree:?} at {call}"));
                let is_right = match found {
                    Some(version) => saved.is_none_or(|saved| saved <= version) && version <= begun,
                    None => saved.is_none(),
                };
                assert!(is_right, "{found:?} of {saved:?} to {begun}: {tree:?} at {call}");
            }
        }
    }
}

impl Files for ScriptedFiles {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.act("make_dir", dir)?;
        LocalFiles.make_dir(dir)?;
        let dir = self.below(dir);
        self.state.borrow_mut().change(dir.parent().unwrap(), vec![(dir.to_owned(), Some(Node::Dir))]);
        Ok(())
    }

    fn create(&self, path: &Path, like: Option<&Metadata>) -> io::Result<File> {
        self.act("create", path)?;
        if self.bug == Some(Bug::BackupRemovedFirst) && self.is_held(path) {
            self.remove_file(&beside(path, ".bak"))?;
        }
        let was_there = path.exists();
        let file = LocalFiles.create(path, like)?;
        let (path, mut state) = (self.below(path), self.state.borrow_mut());
        if was_there {
            state.content(path).now.clear();
        } else {
            let node = Node::File(state.contents.len());
            state.contents.push(Content::default());
            state.change(path.parent().unwrap(), vec![(path.to_owned(), Some(node))]);
        }
        Ok(file)
    }

    fn write(&self, path: &Path, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let done = self.act("write", path);
        let is_whole = done.is_ok() && self.bug != Some(Bug::WritesShort);
        let part = if is_whole { bytes } else { &bytes[..bytes.len() / 2] };
        LocalFiles.write(path, file, part)?;
        self.state.borrow_mut().content(self.below(path)).now.extend(part);
        done
    }

    fn sync_file(&self, path: &Path, _: &File) -> io::Result<()> {
        self.act("sync_file", path)?;
        if self.bug == Some(Bug::NotSynced) {
            return Ok(());
        }
        let mut state = self.state.borrow_mut();
        let content = state.content(self.below(path));
        content.synced.clone_from(&content.now);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.act("sync_dir", dir)?;
        if self.bug == Some(Bug::NamesNotSynced) {
            return Ok(());
        }
        self.state.borrow_mut().sync_dir(self.below(dir));
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act("link", to)?;
        if self.is_held(from) {
            return Err(io::Error::from_raw_os_error(EXDEV));
        }
        LocalFiles.link(from, to)?;
        let (from, to, mut state) = (self.below(from), self.below(to), self.state.borrow_mut());
        let node = state.names[from];
        state.change(to.parent().unwrap(), vec![(to.to_owned(), Some(node))]);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act("rename", to)?;
        if self.is_held(from) || self.is_held(to) {
            return Err(io::Error::from_raw_os_error(EBUSY));
        }
        LocalFiles.rename(from, to)?;
        let (from, to, mut state) = (self.below(from), self.below(to), self.state.borrow_mut());
        let node = state.names[from];
        state.change(to.parent().unwrap(), vec![(from.to_owned(), None), (to.to_owned(), Some(node))]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        // What is not there is not asked of the device.
        path.symlink_metadata()?;
        self.act("remove_file", path)?;
        if self.is_held(path) {
            return Err(io::Error::from_raw_os_error(EBUSY));
        }
        LocalFiles.remove_file(path)?;
        let (path, mut state) = (self.below(path), self.state.borrow_mut());
        state.change(path.parent().unwrap(), vec![(path.to_owned(), None)]);
        Ok(())
    }
}

fn text(version: u32) -> Vec<u8> {
    format!("{{version {version}}}").into_bytes()
}

fn version_of(bytes: &[u8]) -> Result<u32, String> {
    let text = String::from_utf8_lossy(bytes);
    let version = text.strip_prefix("{version ").and_then(|text| text.strip_suffix('}'));
    version.and_then(|version| version.parse().ok()).ok_or_else(|| format!("no table: {text:?}"))
}

/// Calls of saves without any fault.
fn calls(is_mounted: bool) -> usize {
    let files = saves(is_mounted, None, None);
    assert!(files.calls.get() > 15);
    files.calls.get()
}

/// Saves each version, and the last one again until it is saved.
fn saves(is_mounted: bool, fails: Option<(usize, i32)>, bug: Option<Bug>) -> ScriptedFiles {
    let files = ScriptedFiles::new(bug);
    if is_mounted {
        // Somebody has made it, and mounted it there.
        assert!(files.save());
        files.is_mounted.set(true);
        files.calls.set(0);
        files.moments.take();
    }
    files.fails.set(fails);
    while files.saved.get() != Some(files.begun.get()) || files.begun.get() < VERSIONS {
        files.save();
    }
    files
}

#[test]
fn a_table_that_was_saved_is_there_after_a_power_cut_at_any_call() {
    let mut seen = Seen::new();
    for is_mounted in [false, true] {
        saves(is_mounted, None, None).check(&mut seen);
        for at in 0..calls(is_mounted) {
            for errno in [EIO, ENOSPC] {
                saves(is_mounted, Some((at, errno)), None).check(&mut seen);
            }
        }
    }
    assert!(seen.len() > 100, "{} outcomes", seen.len());
}

/// Finds a table at a call of the saves at which the process ends; what it found is there after a power cut, and so is what is saved then.
fn find_after_a_kill(is_mounted: bool, at: usize, bug: Option<Bug>) {
    // The process ends at that call, and the next one finds what there is.
    let moment = saves(is_mounted, None, None).moments.take().swap_remove(at);
    let again = ScriptedFiles::new(bug);
    again.is_mounted.set(is_mounted);
    for (path, node) in &moment.state.names {
        let path = again.dir.path().join(path);
        match node {
            Node::Dir => fs::create_dir_all(path).unwrap(),
            Node::File(number) => fs::write(path, &moment.state.contents[*number].now).unwrap(),
        }
    }
    *again.state.borrow_mut() = moment.state;
    again.begun.set(moment.begun);
    let found = read_by(&again, &again.table(), version_of);
    let found = found.unwrap_or_else(|error| panic!("{error} at {}", moment.call));
    assert!(found >= moment.saved, "{found:?} at {}", moment.call);
    // From here on others count on it.
    again.moments.take();
    again.saved.set(found);
    again.check(&mut Seen::new());
    assert!(again.save());
    again.check(&mut Seen::new());
}

#[test]
fn a_table_that_was_found_after_a_kill_is_there_after_a_power_cut() {
    for is_mounted in [false, true] {
        for at in 0..calls(is_mounted) {
            find_after_a_kill(is_mounted, at, None);
        }
    }
}

#[test]
fn bugs_that_a_save_could_have_are_found() {
    for bug in BUGS {
        let finds =
            |is_mounted: &bool| catch_unwind(|| saves(*is_mounted, None, Some(bug)).check(&mut Seen::new())).is_err();
        let found: Vec<_> = [false, true].into_iter().filter(finds).collect();
        println!("{bug:?} is found with the table as a mount point: {found:?}");
        // A backup is of use where a file is written in place.
        let expected = if bug == Bug::BackupRemovedFirst { vec![true] } else { vec![false, true] };
        assert_eq!(found, expected, "{bug:?}");
    }
}

#[test]
fn bugs_that_a_start_could_have_are_found() {
    for bug in [Bug::NotSynced, Bug::NamesNotSynced] {
        let finds = |at: &usize| catch_unwind(|| find_after_a_kill(false, *at, Some(bug))).is_err();
        assert!((0..calls(false)).any(|at| finds(&at)), "{bug:?} is not found after a kill at any call");
    }
}
