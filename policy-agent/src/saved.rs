//! The last good answer of the policy server on disk, for a cell that starts while the server is away.
//!
//! A whole answer, a line for each policy, and behind it the changes that came since, so that keeping a
//! change costs what it changes. When there are as many changes as policies, the whole is written anew.
//!
//! ```text
//! {"apps":["web"],"version":"life.7","removed":0,"added":2}
//! {"source":{"id":"web","tag":"0001"},"destination":{…}}
//! {"source":{"id":"far","tag":"0003"},"destination":{…}}
//! {"apps":["web"],"version":"life.8","removed":1,"added":0}
//! {"source":{"id":"far","tag":"0003"},"destination":{…}}
//! ```
//!
//! The whole is put in place in one step; of changes, those count that are there to the last line. What
//! a kill or a power cut left behind of another is written over by the next.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use files::Manner;
use imbl::ordset::DiffItem;
use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};
use policy::{
    TagLength, TaggedPolicy,
    wire::{line::Form, plain::Reader, v1::PolicyList},
};
use policy_client::internal::follow::{self, Given, Policies};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::answer::{Answer, Refused};

/// How a policy is written.
const FORM: Form = Form::V1Tagged(TagLength::DEFAULT);

/// So many changes are kept behind the whole, however few policies there are.
const FEW: usize = 1000;

/// The file the last good answer is kept in, if there is to be one.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    path: Option<PathBuf>,
    kept: Option<Kept>,
    /// Why the last answer could not be kept, if it could not.
    failure: Option<String>,
}

/// What is on disk.
#[derive(Debug, Clone)]
struct Kept {
    answer: Answer,
    /// How far it can be read.
    length: u64,
    /// Policies that are written behind the whole.
    changes: usize,
}

/// What stands in front of policies.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    apps: Vec<String>,
    version: Option<String>,
    removed: usize,
    added: usize,
}

/// The shape agents had on disk that wrote the whole each time.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Former {
    apps: Vec<String>,
    version: Option<String>,
    answer: PolicyList,
}

#[derive(Debug, Error)]
enum Unusable {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is not the JSON we wrote")]
    Json(#[source] gocompat::json::JsonError),
    #[error("it ends in the middle")]
    Torn,
    #[error("an app of it has no name")]
    App(#[source] policy::EmptyAppGuid),
    #[error("its version is unreadable")]
    Version(#[source] policy::ParseVersionError),
    #[error(transparent)]
    Policy(#[from] policy::wire::UnreadablePolicy),
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Saved {
    pub fn at(path: Option<PathBuf>) -> Self {
        Self { path, kept: None, failure: None }
    }

    /// Why what was told last is not on disk, or what is told next will hardly be.
    pub fn failure(&self) -> Option<String> {
        self.failure.clone().or_else(|| obstacle(self.path.as_deref()?))
    }

    /// What a former life of this agent was told last, unless it cannot be used.
    pub fn load(&mut self) -> Option<Answer> {
        let path = self.path.as_deref().filter(|path| path.exists())?;
        match File::open(path).map_err(Unusable::Read).and_then(|file| read(BufReader::new(file))) {
            Ok(kept) => {
                let answer = kept.answer.clone();
                // What was written in another shape is not written behind.
                self.kept = (kept.length > 0).then_some(kept);
                Some(answer)
            }
            Err(error) => {
                let error = service::log::chain(&error);
                let file = path.display().to_string();
                tracing::warn!(file, error, "The last good answer on disk cannot be used.");
                None
            }
        }
    }

    /// Keeps an answer; blocking, as it waits for the disk. Failing to is no reason not to enforce it, but
    /// then the one before must not come back: a cell that starts while the server is away would let in
    /// again what has been taken away, and confirmed to be. With none, it lets nobody in.
    pub fn store(&mut self, answer: &Answer) {
        let Some(path) = self.path.clone() else { return };
        let behind = self.kept.take().and_then(|kept| kept.then(answer, &path).ok().flatten());
        self.failure = None;
        if behind.is_some() {
            self.kept = behind;
            return;
        }
        match whole(answer, &path) {
            Ok(kept) => self.kept = Some(kept),
            Err(error) => {
                self.failure = Some(format!("{} cannot be written: {error}", path.display()));
                let file = path.display().to_string();
                let is_gone = std::fs::remove_file(&path).is_ok() || !path.exists();
                tracing::warn!(
                    file,
                    %error,
                    earlier_is_gone = is_gone,
                    "The answer of the policy server could not be kept on disk, so no earlier one is to be."
                );
            }
        }
        // The last that held on to the answer before has let go of it.
        hostnet::heap::trim();
    }
}

/// What keeps the file at `path` from being written, as far as can be told without trying.
pub(crate) fn obstacle(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    // Folders that are missing are made.
    let folder = path.ancestors().skip(1).find(|folder| folder.exists())?;
    let cannot = |why: &str| Some(format!("{} cannot be written: {why}", path.display()));
    if !folder.is_dir() {
        return cannot(&format!("{} is no folder", folder.display()));
    }
    if path.is_dir() {
        return cannot("it is a folder");
    }
    if let Err(errno) = access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
        return cannot(&format!("{}: {}", folder.display(), errno.desc()));
    }
    match statvfs(folder) {
        // What is no disk has no blocks; those kept for root are the agent's to take.
        Ok(disk) if disk.blocks() > 0 && disk.blocks_free() == 0 => cannot("the disk is full"),
        _ => None,
    }
}

impl Kept {
    /// Writes what has changed behind what is there; `None` if the whole is to be written.
    fn then(mut self, answer: &Answer, path: &Path) -> io::Result<Option<Self>> {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        let most = FEW.max(answer.policies().len()).saturating_sub(self.changes);
        for difference in self.answer.policies().diff(answer.policies()).take(most) {
            match difference {
                DiffItem::Remove(policy) => removed.push(policy),
                DiffItem::Add(policy) => added.push(policy),
            }
        }
        if removed.len() + added.len() >= most {
            return Ok(None);
        }
        let mut text = Vec::new();
        write(&mut text, answer, [&removed, &added])?;
        let mut file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() < self.length {
            return Ok(None);
        }
        file.set_len(self.length)?;
        file.seek(SeekFrom::End(0))?;
        file.write_all(&text)?;
        file.sync_data()?;
        self.length += text.len() as u64;
        self.changes += removed.len() + added.len();
        self.answer = answer.clone();
        Ok(Some(self))
    }
}

/// Writes all there is.
fn whole(answer: &Answer, path: &Path) -> io::Result<Kept> {
    let mut length = 0;
    files::replace_with(path, Manner::PRIVATE, |file| {
        let mut to = BufWriter::new(file);
        let added: Vec<_> = answer.policies().iter().collect();
        write(&mut to, answer, [&[], &added])?;
        length = to.stream_position()?;
        to.flush()
    })?;
    Ok(Kept { answer: answer.clone(), length, changes: 0 })
}

fn write(
    to: &mut impl Write,
    answer: &Answer,
    [removed, added]: [&[&TaggedPolicy]; 2],
) -> io::Result<()> {
    let header = Header {
        apps: answer.apps.iter().map(ToString::to_string).collect(),
        version: answer.version.as_ref().map(ToString::to_string),
        removed: removed.len(),
        added: added.len(),
    };
    writeln!(to, "{}", gocompat::json::to_string(&header))?;
    removed.iter().chain(added).try_for_each(|policy| writeln!(to, "{}", FORM.write(policy)))
}

/// Reads the whole, and the changes behind it as far as they are complete.
fn read(mut from: impl BufRead) -> Result<Kept, Unusable> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).map_err(Unusable::Read)?;
    let Ok(header) = gocompat::json::from_slice::<Header>(&line) else {
        from.read_to_end(&mut line).map_err(Unusable::Read)?;
        return former(&line);
    };
    let mut reading = Reading { from, length: line.len() as u64, reader: Reader::default() };
    let mut policies = Policies::default();
    reading.changes(&header, &mut policies)?.ok_or(Unusable::Torn)?;
    let mut policies = follow::policies(policies.into_iter().collect());
    let (mut last, mut length, mut changes) = (header, reading.length, 0);
    while let Some(header) = reading.line()?.and_then(|line| gocompat::json::from_slice(&line).ok())
    {
        let mut next = policies.clone();
        if reading.changes(&header, &mut next)?.is_none() {
            break;
        }
        changes += header.removed + header.added;
        (last, length, policies) = (header, reading.length, next);
    }
    Ok(Kept { answer: answer(&last.apps, last.version.as_deref(), policies)?, length, changes })
}

/// A file and how far it has been read.
struct Reading<R> {
    from: R,
    length: u64,
    reader: Reader,
}

impl<R: BufRead> Reading<R> {
    /// `None` at the end, or if the line has none.
    fn line(&mut self) -> Result<Option<Vec<u8>>, Unusable> {
        let mut line = Vec::new();
        self.from.read_until(b'\n', &mut line).map_err(Unusable::Read)?;
        self.length += line.len() as u64;
        Ok(line.ends_with(b"\n").then_some(line))
    }

    /// Does to `policies` what is said behind `header`; `None` if it is not all there.
    fn changes(
        &mut self,
        header: &Header,
        policies: &mut Policies,
    ) -> Result<Option<()>, Unusable> {
        for number in 0..header.removed.saturating_add(header.added) {
            let Some(line) = self.line()? else { return Ok(None) };
            let Some(policy) = self.policy(&line) else { return Ok(None) };
            if number < header.removed {
                policies.remove(&policy);
            } else {
                policies.insert(policy);
            }
        }
        Ok(Some(()))
    }

    fn policy(&mut self, line: &[u8]) -> Option<TaggedPolicy> {
        let lenient = || {
            let policies = vec![gocompat::json::from_slice(line).ok()?];
            PolicyList { total_policies: 1, policies }.into_tagged().ok()?.pop()
        };
        self.reader.policy(line).or_else(lenient)
    }
}

fn former(bytes: &[u8]) -> Result<Kept, Unusable> {
    let Former { apps, version, answer: list } =
        gocompat::json::from_slice(bytes).map_err(Unusable::Json)?;
    let policies = follow::policies(list.into_tagged()?);
    Ok(Kept { answer: answer(&apps, version.as_deref(), policies)?, length: 0, changes: 0 })
}

fn answer(apps: &[String], version: Option<&str>, policies: Policies) -> Result<Answer, Unusable> {
    let apps = apps.iter().map(|app| app.parse()).collect::<Result<_, _>>();
    let version = version.map(str::parse).transpose().map_err(Unusable::Version)?;
    Ok(Answer::check(&Given { apps: apps.map_err(Unusable::App)?, policies, version })?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use policy::{Policy, Protocol, Tag};
    use proptest::prelude::*;

    use super::*;

    fn tagged(source: u32, port: u16) -> TaggedPolicy {
        TaggedPolicy {
            policy: Policy {
                source: format!("app<{source}>").parse().unwrap(),
                destination: "db".parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: policy::PortRange::new(port, port).unwrap(),
            },
            source_tag: Tag::new(source).unwrap(),
            destination_tag: Tag::new(1000).unwrap(),
        }
    }

    fn answer(policies: impl IntoIterator<Item = TaggedPolicy>, revision: usize) -> Answer {
        let apps = ["db".parse().unwrap()].into();
        let version = format!("life.{revision}").parse().ok();
        Answer::check(&Given { apps, policies: policies.into_iter().collect(), version }).unwrap()
    }

    fn lists() -> impl Strategy<Value = Vec<Vec<(u32, u16)>>> {
        prop::collection::vec(prop::collection::vec((1u32..9, 1u16..4), 0..9), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Wherever the file is cut off behind the whole, it holds one of the answers it was given, and
        /// another can be kept on top.
        #[test]
        fn what_is_left_of_the_file_is_an_answer(lists in lists(), cut in 0.0f64..1.0) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state/answer.json");
            let mut saved = Saved::at(Some(path.clone()));
            let mut lengths = Vec::new();
            let answers: Vec<_> = lists.iter().enumerate().map(|(revision, list)| {
                answer(list.iter().map(|(source, port)| tagged(*source, *port)), revision)
            }).collect();
            for answer in &answers {
                saved.store(answer);
                prop_assert_eq!(Saved::at(Some(path.clone())).load(), Some(answer.clone()));
                lengths.push(fs::metadata(&path).unwrap().len());
            }
            let end = lengths[0] + ((lengths[lengths.len() - 1] - lengths[0]) as f64 * cut) as u64;
            OpenOptions::new().write(true).open(&path).unwrap().set_len(end).unwrap();
            let whole = lengths.iter().filter(|length| **length <= end).count();
            let mut again = Saved::at(Some(path.clone()));
            prop_assert_eq!(again.load(), Some(answers[whole - 1].clone()));
            let next = answer([tagged(9, 9)], 99);
            again.store(&next);
            prop_assert_eq!(Saved::at(Some(path)).load(), Some(next));
        }

        #[test]
        fn any_file_is_an_answer_or_none(bytes: Vec<u8>, lines in "(\\{\"apps\":\\[\\],\"removed\":[0-9],\"added\":[0-9]\\}\n|.*\n)*") {
            let _ = read(&bytes[..]);
            let _ = read(lines.as_bytes());
        }
    }

    #[test]
    fn a_torn_whole_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.json");
        let mut saved = Saved::at(Some(path.clone()));
        assert_eq!(saved.load(), None);
        saved.store(&answer([tagged(1, 80), tagged(2, 80)], 7));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(Saved::at(Some(path)).load(), None);
    }

    #[test]
    fn an_answer_that_cannot_be_kept_leaves_no_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.json");
        Saved::at(Some(path.clone())).store(&answer([tagged(1, 80)], 7));
        assert!(path.exists());
        // Where the draft of the next is to be written, there is something that is no file.
        fs::create_dir(folder.path().join("answer.json.draft")).unwrap();
        Saved::at(Some(path.clone())).store(&answer([], 8));
        assert!(!path.exists());
        assert_eq!(Saved::at(Some(path)).load(), None);
    }

    #[test]
    fn what_keeps_an_answer_from_the_disk_is_told_before_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Saved::at(Some(folder.path().join(name)));
        assert_eq!(at("new/answer.json").failure(), None);
        assert_eq!(Saved::at(None).failure(), None);
        fs::write(folder.path().join("file"), "").unwrap();
        let told = at("file/answer.json").failure().unwrap();
        assert!(
            told.contains("file/answer.json cannot be written: ") && told.contains("no folder")
        );
        let mut saved = at("answer.json");
        fs::create_dir(folder.path().join("answer.json.draft")).unwrap();
        assert_eq!(saved.failure(), None, "which only trying tells");
        saved.store(&answer([], 8));
        assert!(saved.failure().unwrap().contains("answer.json cannot be written: "));
        fs::remove_dir(folder.path().join("answer.json.draft")).unwrap();
        saved.store(&answer([], 9));
        assert_eq!(saved.failure(), None);
    }

    #[test]
    fn a_change_is_written_behind_and_many_are_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.json");
        let mut saved = Saved::at(Some(path.clone()));
        let all =
            |count: u32| (0..count).map(|n| tagged(n % 50 + 1, u16::try_from(n / 50 + 1).unwrap()));
        let lines = || fs::read_to_string(&path).unwrap().lines().count();
        saved.store(&answer(all(400), 1));
        assert_eq!(lines(), 401);
        saved.store(&answer(all(399), 2));
        assert_eq!(lines(), 403);
        // Back and forth, until there are more changes than are worth keeping.
        (3..9).for_each(|revision| {
            saved.store(&answer(all(400 * (revision % 2)), revision as usize));
        });
        assert!(lines() < 1500, "{}", lines());
        // What has gone is not written behind.
        fs::remove_file(&path).unwrap();
        saved.store(&answer(all(3), 9));
        assert_eq!(lines(), 4);
    }

    #[test]
    fn what_former_agents_wrote_is_read_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.json");
        let policy = FORM.write(&tagged(1, 80));
        let former = format!(
            r#"{{"apps":["db"],"version":"life.7","answer":{{"total_policies":1,"policies":[{policy}]}}}}"#
        );
        fs::write(&path, former).unwrap();
        let mut saved = Saved::at(Some(path.clone()));
        assert_eq!(saved.load(), Some(answer([tagged(1, 80)], 7)));
        saved.store(&answer([tagged(1, 80)], 8));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
