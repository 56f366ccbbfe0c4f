//! What a report is packed into: gzip (RFC 1952), or a zip archive as far as reports need one. Strangers send it, so
//! nothing it says of its own size is believed: what comes out is counted and bounded, and an archive within an
//! archive is not opened.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, GzDecoder};
use memchr::memmem;

use super::Unreadable;

/// What may come out, in octets.
pub(super) const UNPACKED_OCTETS_MAX: usize = 8 * 1024 * 1024;
/// What may come out of each octet that is packed; a report's text seldom reaches a tenth of it.
const RATIO_MAX: usize = 300;
/// What may come out of the smallest one, in octets.
const UNPACKED_OCTETS_MIN: usize = 64 * 1024;
/// Files in one archive; a report is one.
const ENTRIES_MAX: usize = 16;
/// Longest comment behind an archive, in octets, by the format.
const COMMENT_OCTETS_MAX: usize = 0xFFFF;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZIP_ENTRY: &[u8] = b"PK\x03\x04";
const ZIP_DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const ZIP_END: &[u8] = b"PK\x05\x06";
const ZIP_END_OCTETS: usize = 22;
const ZIP_DIRECTORY_ENTRY_OCTETS: usize = 46;
const ZIP_ENTRY_OCTETS: usize = 30;

/// What is in a packed file; a file that is not packed, as it is.
pub(super) fn unpack(file: &[u8]) -> Result<Cow<'_, [u8]>, Unreadable> {
    if file.starts_with(GZIP) {
        let unpacked = bounded(GzDecoder::new(file), file.len())?;
        return Ok(Cow::Owned(unpacked));
    }
    if file.starts_with(ZIP_ENTRY) {
        let entry = Entry::find(file)?;
        return entry.unpack();
    }
    if file.len() > UNPACKED_OCTETS_MAX {
        return Err(Unreadable::TooBig);
    }
    Ok(Cow::Borrowed(file))
}

/// Reads all of it, up to what so many octets may hold.
fn bounded(packed: impl Read, octets: usize) -> Result<Vec<u8>, Unreadable> {
    let most = octets.saturating_mul(RATIO_MAX).clamp(UNPACKED_OCTETS_MIN, UNPACKED_OCTETS_MAX);
    let mut unpacked = Vec::new();
    let one_more = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    packed.take(one_more).read_to_end(&mut unpacked).map_err(|_| Unreadable::Damaged)?;
    if unpacked.len() > most { Err(Unreadable::TooBig) } else { Ok(unpacked) }
}

/// The report in a zip archive (APPNOTE 4.3).
struct Entry<'a> {
    packed: &'a [u8],
    method: u16,
}

impl<'a> Entry<'a> {
    /// The first file with a name that ends in `.xml`; else the only one.
    fn find(archive: &'a [u8]) -> Result<Self, Unreadable> {
        let tail_at = archive.len().saturating_sub(ZIP_END_OCTETS + COMMENT_OCTETS_MAX);
        let end_at = tail_at + memmem::rfind(&archive[tail_at..], ZIP_END).ok_or(Unreadable::Damaged)?;
        let end = archive.get(end_at..end_at + ZIP_END_OCTETS).ok_or(Unreadable::Damaged)?;
        let entries = usize::from(u16_at(end, 10)?);
        if entries > ENTRIES_MAX {
            return Err(Unreadable::ManyFiles);
        }
        let mut at = usize_at(end, 16)?;
        let mut chosen = None;
        for _ in 0..entries {
            let head = archive.get(at..).ok_or(Unreadable::Damaged)?;
            if !head.starts_with(ZIP_DIRECTORY_ENTRY) {
                return Err(Unreadable::Damaged);
            }
            let name_end = ZIP_DIRECTORY_ENTRY_OCTETS + usize::from(u16_at(head, 28)?);
            let name = head.get(ZIP_DIRECTORY_ENTRY_OCTETS..name_end).ok_or(Unreadable::Damaged)?;
            let is_report = name.len() > 4 && name[name.len() - 4..].eq_ignore_ascii_case(b".xml");
            if is_report || entries == 1 {
                chosen = Some(head);
                break;
            }
            at += name_end + usize::from(u16_at(head, 30)?) + usize::from(u16_at(head, 32)?);
        }
        let head = chosen.ok_or(Unreadable::NoReport)?;
        let is_encrypted = u16_at(head, 8)? & 1 != 0;
        if is_encrypted {
            return Err(Unreadable::Encrypted);
        }
        let local = archive.get(usize_at(head, 42)?..).filter(|local| local.starts_with(ZIP_ENTRY));
        let local = local.ok_or(Unreadable::Damaged)?;
        let start = ZIP_ENTRY_OCTETS + usize::from(u16_at(local, 26)?) + usize::from(u16_at(local, 28)?);
        let packed = start.checked_add(usize_at(head, 20)?).and_then(|end| local.get(start..end));
        Ok(Self { packed: packed.ok_or(Unreadable::Damaged)?, method: u16_at(head, 10)? })
    }

    fn unpack(self) -> Result<Cow<'a, [u8]>, Unreadable> {
        match self.method {
            0 if self.packed.len() > UNPACKED_OCTETS_MAX => Err(Unreadable::TooBig),
            0 => Ok(Cow::Borrowed(self.packed)),
            8 => bounded(DeflateDecoder::new(self.packed), self.packed.len()).map(Cow::Owned),
            _ => Err(Unreadable::Damaged),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Unreadable> {
    let octets = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Unreadable::Damaged)?;
    Ok(u16::from_le_bytes(*octets))
}

fn usize_at(bytes: &[u8], at: usize) -> Result<usize, Unreadable> {
    let octets = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Unreadable::Damaged)?;
    usize::try_from(u32::from_le_bytes(*octets)).map_err(|_| Unreadable::Damaged)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};
    use proptest::prelude::*;

    use super::*;

    /// Packed by gzip.
    pub(in crate::mail::report) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("in memory")
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("in memory")
    }

    /// An archive of these files, by a method, with these flags.
    pub(in crate::mail::report) fn zip(files: &[(&str, &[u8])], method: u16, flags: u16) -> Vec<u8> {
        let (mut archive, mut directory) = (Vec::new(), Vec::new());
        let octets = |n: usize| u32::try_from(n).expect("small").to_le_bytes();
        let short = |n: usize| u16::try_from(n).expect("small").to_le_bytes();
        for (name, bytes) in files {
            let packed = if method == 8 { deflate(bytes) } else { bytes.to_vec() };
            let at = octets(archive.len());
            // Flags, method, time, date, checksum, sizes: what it says of its size is a lie.
            let mut facts = [&flags.to_le_bytes()[..], &method.to_le_bytes(), &[0; 8]].concat();
            facts.extend([octets(packed.len()), octets(7)].concat());
            facts.extend([short(name.len()), short(0)].concat());
            archive.extend([ZIP_ENTRY, &[20, 0], &facts, name.as_bytes(), &packed].concat());
            let behind = [&[0; 2 + 2 + 2 + 4][..], &at].concat();
            directory.extend([ZIP_DIRECTORY_ENTRY, &[20, 0, 20, 0], &facts, &behind, name.as_bytes()].concat());
        }
        let (at, count) = (octets(archive.len()), short(files.len()));
        archive.extend_from_slice(&directory);
        archive.extend([ZIP_END, &[0; 4], &count, &count, &octets(directory.len()), &at, &short(3), b"end"].concat());
        archive
    }

    #[test]
    fn what_was_packed_comes_out() {
        let report = b"<feedback/>".repeat(100);
        assert_eq!(unpack(&report).as_deref(), Ok(&report[..]));
        assert_eq!(unpack(&gzip(&report)).as_deref(), Ok(&report[..]));
        for method in [0, 8] {
            let one = zip(&[("google.com!example.org", &report)], method, 0);
            assert_eq!(unpack(&one).as_deref(), Ok(&report[..]), "{method}");
            let among = zip(&[("read.me", b"x"), ("A.XML", &report), ("b.xml", b"y")], method, 0);
            assert_eq!(unpack(&among).as_deref(), Ok(&report[..]), "{method}");
        }
    }

    #[test]
    fn no_archive_costs_more_than_its_bound() {
        let bomb = vec![b' '; UNPACKED_OCTETS_MAX + 1];
        let file = [("a.xml", &bomb[..])];
        for packed in [gzip(&bomb), zip(&file, 8, 0), zip(&file, 0, 0), bomb.clone()] {
            assert_eq!(unpack(&packed), Err(Unreadable::TooBig));
        }
        // A small one may hold little only; what is denser than any text is refused as well.
        let packed = gzip(&bomb[..1024 * 1024]);
        assert!(packed.len() * RATIO_MAX < 1024 * 1024);
        assert_eq!(unpack(&packed), Err(Unreadable::TooBig));
        assert_eq!(unpack(&gzip(&bomb[..UNPACKED_OCTETS_MIN])).expect("small").len(), UNPACKED_OCTETS_MIN);
    }

    #[test]
    fn odd_archives_are_refused() {
        let names: Vec<String> = (0..=ENTRIES_MAX).map(|n| format!("{n}.xml")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
        assert_eq!(unpack(&zip(&files, 0, 0)), Err(Unreadable::ManyFiles));
        assert!(unpack(&zip(&files[1..], 0, 0)).is_ok());
        assert_eq!(unpack(&zip(&[("a.exe", b"x"), ("b.txt", b"y")], 0, 0)), Err(Unreadable::NoReport));
        assert_eq!(unpack(&zip(&[("a.xml", b"x")], 0, 1)), Err(Unreadable::Encrypted));
        assert_eq!(unpack(&zip(&[("a.xml", b"x")], 12, 0)), Err(Unreadable::Damaged));
        assert_eq!(unpack(&zip(&[], 0, 0)).map(Cow::into_owned).unwrap_or_default(), zip(&[], 0, 0));
        let whole = zip(&[("a.xml", b"x")], 8, 0);
        for cut in 4..whole.len() - 3 {
            assert!(unpack(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let packed = gzip(b"<feedback/>");
        assert_eq!(unpack(&packed[..packed.len() - 9]), Err(Unreadable::Damaged));
        // An archive in an archive comes out as one, and is opened by nobody.
        let inner = zip(&[("a.xml", b"x")], 8, 0);
        assert_eq!(unpack(&zip(&[("a.zip", &inner)], 0, 0)).as_deref(), Ok(&inner[..]));
    }

    proptest! {
        #[test]
        fn any_file_is_unpacked_or_not(mut file: Vec<u8>, kind in 0..4usize, at: prop::sample::Index, octet: u8) {
            let begin = [&b""[..], GZIP, ZIP_ENTRY, ZIP_END][kind];
            let _ = unpack(&[begin, &file].concat());
            let mut archive = zip(&[("a.xml", &file), ("b.xml", b"y")], 8, 0);
            let at = at.index(archive.len());
            archive[at] = octet;
            let _ = unpack(&archive);
            file.truncate(8);
            let _ = unpack(&[ZIP_ENTRY, &file, ZIP_END, &[octet; 20]].concat());
        }
    }
}
