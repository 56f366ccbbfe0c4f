//! The events of one home on disk: a ring of files in which the oldest makes room. Written in batches and
//! never synced: a crash of the machine may cost the last seconds of it, never mail. Each run of the program
//! numbers anew (a `journal`), so that numbers lost to such a crash are never given twice. Blocking.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gatepost_protocol::tunnel::verb::events::{BATCH_MAX, BATCH_OCTETS_MAX, EVENT_OCTETS_MAX, WireEvent};
use gatepost_runtime::durable;
use tracing::warn;

use super::segment::{self, HEADER_OCTETS, Header};

/// Octets after which a file is full.
const SEGMENT_OCTETS_MAX: u64 = 512 * 1024;
/// Files of one home: some 40,000 events in 8 MiB.
const SEGMENTS_MAX: usize = 16;
/// What their names end in.
const SUFFIX: &str = ".events";

/// The ring.
#[derive(Debug)]
pub struct Ring {
    folder: PathBuf,
    journal: [u8; 16],
    // The number the next event gets, from 1.
    next: u64,
    // The number in the name of the next file.
    file_next: u64,
    segments: VecDeque<Segment>,
    cursor: Option<Cursor>,
    dropped: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    header: Header,
    count: u64,
    octets: u64,
}

/// Where reading goes on: the event of this number lies at this place.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    journal: [u8; 16],
    number: u64,
    at: u64,
}

impl Segment {
    /// Number after its last event.
    fn end(&self) -> u64 {
        self.header.first + self.count
    }
}

impl Ring {
    /// Opens the folder, or makes it. What a crash tore is cut off; a file that is none of ours is left out.
    pub fn open(folder: PathBuf, journal: [u8; 16]) -> Result<Self, durable::DurableError> {
        durable::create_directory(&folder)?;
        let failed = |source| durable::DurableError { action: "list", path: folder.clone(), source };
        let mut numbered = Vec::new();
        for found in fs::read_dir(&folder).map_err(failed)? {
            let name = found.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if let Some(number) = name.strip_suffix(SUFFIX).and_then(|number| number.parse::<u64>().ok()) {
                numbered.push((number, folder.join(name)));
            }
        }
        numbered.sort();
        let file_next = numbered.last().map_or(1, |(number, _)| number + 1);
        let mut segments = VecDeque::new();
        for (_, path) in numbered {
            match load(&path) {
                Ok(Some(segment)) => segments.push_back(segment),
                // Nothing in it can be told.
                Ok(None) => drop(fs::remove_file(&path)),
                Err(error) => warn!(file = %path.display(), %error, "events kept for a home can't be read"),
            }
        }
        Ok(Self { folder, journal, next: 1, file_next, segments, cursor: None, dropped: 0 })
    }

    /// Appends events, numbering them; gives how many were kept, the first ones. The oldest make room.
    pub fn append(&mut self, events: impl IntoIterator<Item = WireEvent>) -> io::Result<u64> {
        let mut kept = 0;
        let (mut bytes, mut count) = (Vec::new(), 0u64);
        for mut event in events {
            event.number = self.next + count;
            if !segment::put(&mut bytes, &event) {
                continue;
            }
            count += 1;
            if self.filled() + bytes.len() as u64 >= SEGMENT_OCTETS_MAX {
                self.write(&bytes, count)?;
                kept += count;
                (bytes, count) = (Vec::new(), 0);
            }
        }
        if count > 0 {
            self.write(&bytes, count)?;
        }
        Ok(kept + count)
    }

    /// The first journal that is not told to its end, and its oldest event; ours, if nothing waits.
    pub fn front(&self) -> ([u8; 16], u64) {
        self.segments.front().map_or((self.journal, self.next), |oldest| (oldest.header.journal, oldest.header.first))
    }

    /// Events of a journal after this number, as many as fit a batch; empty if there are none (any more).
    pub fn read(&mut self, journal: [u8; 16], after: u64) -> io::Result<Vec<WireEvent>> {
        let mut number = after.saturating_add(1);
        let Some(of) = self.segments.iter().find(|s| s.header.journal == journal && s.end() > number) else {
            return Ok(Vec::new());
        };
        let mut at = HEADER_OCTETS as u64;
        let mut skip = number.saturating_sub(of.header.first);
        if number < of.header.first {
            number = of.header.first;
        }
        if let Some(cursor) = self.cursor.filter(|c| c.journal == journal && c.number == number && skip > 0) {
            (at, skip) = (cursor.at, 0);
        }
        let file = File::open(&of.path)?;
        let mut events = Vec::new();
        let mut octets = 0;
        let mut bytes = Vec::new();
        let mut used = 0;
        while events.len() < BATCH_MAX && octets < BATCH_OCTETS_MAX - EVENT_OCTETS_MAX && at < of.octets {
            let Some((event, taken)) = segment::take(&bytes[used..]) else {
                // No whole event is left of what was read: read on from there.
                if bytes.len() - used >= EVENT_OCTETS_MAX + 8 || at + (bytes.len() - used) as u64 >= of.octets {
                    break;
                }
                let room = usize::try_from(of.octets - at).unwrap_or(usize::MAX).min(BATCH_OCTETS_MAX);
                bytes.resize(room, 0);
                file.read_exact_at(&mut bytes, at)?;
                used = 0;
                continue;
            };
            used += taken;
            at += taken as u64;
            if skip > 0 {
                skip -= 1;
                continue;
            }
            octets += taken;
            number = event.number + 1;
            events.push(event);
        }
        self.cursor = Some(Cursor { journal, number, at });
        Ok(events)
    }

    /// The home has everything of this journal up to this number: files of which nothing else is left go.
    pub fn forget(&mut self, journal: [u8; 16], last: u64) -> io::Result<()> {
        while let Some(oldest) = self.segments.front() {
            if oldest.header.journal != journal || oldest.end() > last.saturating_add(1) {
                break;
            }
            fs::remove_file(&oldest.path)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Events that wait to be told, at most: some may be told already.
    pub fn waiting(&self) -> u64 {
        self.segments.iter().map(|segment| segment.count).sum()
    }

    /// Events that made room untold, in this run.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn filled(&self) -> u64 {
        self.segments.back().filter(|last| last.header.journal == self.journal).map_or(0, |last| last.octets)
    }

    fn write(&mut self, bytes: &[u8], count: u64) -> io::Result<()> {
        let filled = self.filled();
        if filled == 0 || filled >= SEGMENT_OCTETS_MAX {
            self.begin_file()?;
        }
        let Some(last) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        let written =
            OpenOptions::new().write(true).open(&last.path).and_then(|file| file.write_all_at(bytes, last.octets));
        // What a failed write left behind the end is overwritten by the next one, or cut off at the next start.
        written?;
        last.octets += bytes.len() as u64;
        last.count += count;
        self.next += count;
        Ok(())
    }

    fn begin_file(&mut self) -> io::Result<()> {
        while self.segments.len() >= SEGMENTS_MAX {
            let Some(oldest) = self.segments.front() else { break };
            fs::remove_file(&oldest.path)?;
            self.dropped += oldest.count;
            self.segments.pop_front();
        }
        let path = self.folder.join(format!("{:012}{SUFFIX}", self.file_next));
        let header = Header { journal: self.journal, first: self.next };
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(&header.encode())?;
        self.file_next += 1;
        self.segments.push_back(Segment { path, header, count: 0, octets: HEADER_OCTETS as u64 });
        Ok(())
    }
}

/// A file of an earlier run; `None` if it holds nothing.
fn load(path: &Path) -> io::Result<Option<Segment>> {
    let bytes = fs::read(path)?;
    let Some(header) = Header::decode(&bytes) else { return Ok(None) };
    let (count, octets) = segment::whole(&bytes[HEADER_OCTETS..]);
    if count == 0 {
        return Ok(None);
    }
    Ok(Some(Segment { path: path.to_owned(), header, count, octets: (HEADER_OCTETS + octets) as u64 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: usize) -> Vec<WireEvent> {
        let facts = vec![("recipient".to_owned(), "alice@example.org".to_owned())];
        let event =
            WireEvent { number: 0, at_unix_ms: 1, trace: Some([9; 10]), what: "accepted".into(), facts, refused: None };
        vec![event; count]
    }

    fn ring(folder: &Path, run: u8) -> Ring {
        Ring::open(folder.to_owned(), [run; 16]).unwrap()
    }

    fn numbers(ring: &mut Ring, journal: [u8; 16], after: u64) -> Vec<u64> {
        ring.read(journal, after).unwrap().iter().map(|event| event.number).collect()
    }

    fn files(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn events_are_read_in_batches_and_forgotten_once_the_home_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = ring(folder.path(), 1);
        assert_eq!(ring.append(events(BATCH_MAX + 10)).unwrap(), BATCH_MAX as u64 + 10);
        assert_eq!(ring.front(), ([1; 16], 1));
        let first = numbers(&mut ring, [1; 16], 0);
        assert_eq!(first, (1..=BATCH_MAX as u64).collect::<Vec<_>>());
        // Asked again it says the same: nothing was acknowledged.
        assert_eq!(numbers(&mut ring, [1; 16], 0), first);
        ring.forget([1; 16], BATCH_MAX as u64).unwrap();
        let rest = numbers(&mut ring, [1; 16], BATCH_MAX as u64);
        assert_eq!(rest, (257..=266).collect::<Vec<_>>());
        assert_eq!(files(folder.path()), 1);
        ring.forget([1; 16], 266).unwrap();
        assert_eq!(files(folder.path()), 0, "what the home has is not kept");
        ring.append(events(1)).unwrap();
        assert_eq!(numbers(&mut ring, [1; 16], 266), [267], "numbers go on");
    }

    #[test]
    fn a_restart_keeps_what_was_not_told_and_numbers_anew() {
        let folder = tempfile::tempdir().unwrap();
        ring(folder.path(), 1).append(events(3)).unwrap();
        let mut ring = ring(folder.path(), 2);
        ring.append(events(2)).unwrap();
        assert_eq!(ring.front(), ([1; 16], 1));
        assert_eq!(numbers(&mut ring, [1; 16], 0), [1, 2, 3]);
        assert_eq!(numbers(&mut ring, [1; 16], 3), Vec::<u64>::new());
        ring.forget([1; 16], 3).unwrap();
        assert_eq!(ring.front(), ([2; 16], 1));
        assert_eq!(numbers(&mut ring, [2; 16], 0), [1, 2]);
    }

    #[test]
    fn a_torn_tail_costs_only_the_torn_event() {
        let folder = tempfile::tempdir().unwrap();
        ring(folder.path(), 1).append(events(3)).unwrap();
        let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let octets = fs::metadata(&file).unwrap().len();
        OpenOptions::new().write(true).open(&file).unwrap().set_len(octets - 1).unwrap();
        let mut again = ring(folder.path(), 2);
        assert_eq!(numbers(&mut again, [1; 16], 0), [1, 2]);
        fs::write(&file, b"garbage").unwrap();
        assert_eq!(ring(folder.path(), 3).waiting(), 0);
    }

    #[test]
    fn a_home_that_is_away_for_long_costs_the_oldest_and_they_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = ring(folder.path(), 1);
        let mut appended = 0;
        while ring.dropped() == 0 {
            appended += ring.append(events(2000)).unwrap();
        }
        let (_, oldest) = ring.front();
        assert_eq!(oldest, ring.dropped() + 1, "the gap in the numbers is what was dropped");
        assert_eq!(ring.waiting(), appended - ring.dropped());
        assert!(files(folder.path()) <= SEGMENTS_MAX);
        let octets: u64 =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(octets <= SEGMENTS_MAX as u64 * (SEGMENT_OCTETS_MAX + EVENT_OCTETS_MAX as u64), "{octets}");
        // Everything that is left is read, across files, without a gap.
        let mut last = 0;
        let mut read = 0;
        loop {
            let found = numbers(&mut ring, [1; 16], last);
            let Some(&newest) = found.last() else { break };
            assert_eq!(found[0], if last == 0 { oldest } else { last + 1 });
            read += found.len() as u64;
            last = newest;
        }
        assert_eq!(read, ring.waiting());
    }

    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        ring(folder.path(), 1).append(events(1)).unwrap();
        let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
