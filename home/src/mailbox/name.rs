//! Names in a Maildir++: of folders, which are directories with a dot in front, and of messages, whose flags stand behind
//! `:2,`. What stands there is what other programs read and write as well. Pure.

use std::fmt;

/// Octets of a folder's name: with its dot it is a name of a file system.
pub const FOLDER_OCTETS_MAX: usize = 200;
/// Between the levels of folders, on disk and in IMAP alike.
pub const SEPARATOR: char = '.';

/// The name of a folder as `IMAP4rev1` and the disk write it (modified UTF-7; levels parted by a dot). `INBOX` is the
/// mailbox itself. It never leads anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FolderName(Box<str>);

impl FolderName {
    /// The inbox.
    pub fn inbox() -> Self {
        Self("INBOX".into())
    }

    /// Reads a name; `None` for what can't be a folder here.
    pub fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("INBOX") {
            return Some(Self::inbox());
        }
        let plain = |octet: u8| (0x20..0x7f).contains(&octet) && !matches!(octet, b'/' | b'%' | b'*' | b'\\' | b'"');
        let whole = name.len() <= FOLDER_OCTETS_MAX
            && name.bytes().all(plain)
            && name.split(SEPARATOR).all(|level| !level.is_empty())
            && is_modified_utf7(name);
        whole.then(|| Self(name.into()))
    }

    /// The folder that a directory of a mailbox is; `None` if it is none.
    pub fn of_directory(directory: &str) -> Option<Self> {
        let name = directory.strip_prefix('.')?;
        Self::parse(name).filter(|name| !name.is_inbox())
    }

    /// The directory, below the mailbox's; the mailbox's own is empty.
    pub fn directory(&self) -> String {
        if self.is_inbox() { String::new() } else { format!(".{}", self.0) }
    }

    /// Whether it is the inbox.
    pub fn is_inbox(&self) -> bool {
        &*self.0 == "INBOX"
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this one lies below another.
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.starts_with(SEPARATOR))
    }

    /// The same place below another folder, for one that lies below `old`, or is it.
    pub fn moved(&self, old: &Self, new: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&*old.0)?;
        (rest.is_empty() || rest.starts_with(SEPARATOR)).then(|| Self::parse(&format!("{}{rest}", new.0)))?
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 3501 §5.1.3: every `&` begins a run of base64 that ends in `-`.
fn is_modified_utf7(name: &str) -> bool {
    let mut parts = name.split('&');
    parts.next();
    parts.all(|part| {
        let Some((run, _)) = part.split_once('-') else { return false };
        run.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b','))
    })
}

/// Flags of the system (RFC 9051 §2.3.2), as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// `\Answered`.
    pub const ANSWERED: Self = Self(1);
    /// `\Flagged`.
    pub const FLAGGED: Self = Self(2);
    /// `\Deleted`.
    pub const DELETED: Self = Self(4);
    /// `\Seen`.
    pub const SEEN: Self = Self(8);
    /// `\Draft`.
    pub const DRAFT: Self = Self(16);

    /// Each with its name in IMAP and its letter in a Maildir, by the alphabet, as the rules of Maildir want the letters.
    pub const ALL: [(Self, &'static str, char); 5] = [
        (Self::DRAFT, "\\Draft", 'D'),
        (Self::FLAGGED, "\\Flagged", 'F'),
        (Self::ANSWERED, "\\Answered", 'R'),
        (Self::SEEN, "\\Seen", 'S'),
        (Self::DELETED, "\\Deleted", 'T'),
    ];

    /// Whether all of those are set.
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These and those.
    pub fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// These without those.
    pub fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

/// Keywords of one message: a bit for each letter, `a` the lowest; what a letter means stands in the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keywords(pub u32);

/// Letters for keywords.
pub const KEYWORDS_MAX: usize = 26;

/// What stands behind the unique part of a message's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Keywords,
}

/// The unique part of a message's name, and what stands behind it. Letters we know nothing of are lost when the flags are
/// changed, no earlier.
pub fn parse(file: &str) -> (&str, Info) {
    let Some((unique, letters)) = file.split_once(":2,") else {
        return (file.split(':').next().unwrap_or(file), Info::default());
    };
    let mut info = Info::default();
    for letter in letters.chars() {
        if let Some((flag, ..)) = Flags::ALL.iter().find(|(_, _, known)| *known == letter) {
            info.flags = info.flags.with(*flag);
        } else if letter.is_ascii_lowercase() {
            info.keywords.0 |= 1 << (letter as u32 - 'a' as u32);
        }
    }
    (unique, info)
}

/// A message's name in `cur/`.
pub fn write(unique: &str, info: Info) -> String {
    let mut name = format!("{unique}:2,");
    name.extend(Flags::ALL.iter().filter(|(flag, ..)| info.flags.has(*flag)).map(|(_, _, letter)| *letter));
    name.extend(('a'..='z').enumerate().filter(|(bit, _)| info.keywords.0 & (1 << bit) != 0).map(|(_, letter)| letter));
    name
}

/// A number in a message's name: `S=` its octets on disk, `W=` with CR LF line ends.
pub fn number(unique: &str, key: char) -> Option<u64> {
    unique.split(',').skip(1).find_map(|part| part.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folders_stay_in_their_mailbox() {
        for name in
            ["", ".", "..", "a..b", ".a", "a.", "../x", "a/b", "a\0b", "ä", "a*", "a%", "&", "a&b", &"x".repeat(201)]
        {
            assert_eq!(FolderName::parse(name), None, "{name}");
        }
        for name in ["Sent", "a.b.c", "&ZeVnLIqe-", "R&-D", "Gr&APw-n", &"x".repeat(200)] {
            let folder = FolderName::parse(name).expect(name);
            assert_eq!(folder.directory(), format!(".{name}"));
            assert_eq!(FolderName::of_directory(&folder.directory()), Some(folder));
        }
        assert_eq!(FolderName::parse("inbox"), Some(FolderName::inbox()));
        assert_eq!(FolderName::of_directory(".INBOX"), None, "the inbox is the mailbox itself");
        let name = |name| FolderName::parse(name).expect("good");
        assert!(
            name("a.b").is_below(&name("a")) && !name("ab").is_below(&name("a")) && !name("a").is_below(&name("a"))
        );
        assert_eq!(name("a.b").moved(&name("a"), &name("c.d")), Some(name("c.d.b")));
        assert_eq!(name("ab").moved(&name("a"), &name("c")), None);
    }

    #[test]
    fn flags_stand_behind_the_unique_part() {
        let (unique, info) = parse("1.a.b,S=5,W=6:2,FSac");
        assert_eq!(
            (unique, info.flags, info.keywords),
            ("1.a.b,S=5,W=6", Flags::FLAGGED.with(Flags::SEEN), Keywords(5))
        );
        assert_eq!(write(unique, info), "1.a.b,S=5,W=6:2,FSac");
        assert_eq!((number(unique, 'S'), number(unique, 'W'), number("x", 'S')), (Some(5), Some(6), None));
        for (file, unique) in [("x", "x"), ("x:1,foo", "x"), ("x:2,", "x"), ("x:", "x")] {
            assert_eq!(parse(file), (unique, Info::default()), "{file}");
        }
        assert_eq!(parse("x:2,P?S9").1.flags, Flags::SEEN, "what is not known is passed over");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bits in 0u8..32, keywords in 0u32..(1 << 26)) {
            let info = Info { flags: Flags(bits), keywords: Keywords(keywords) };
            let name = write("u", info);
            prop_assert_eq!(parse(&name), ("u", info));
        }

        #[test]
        fn any_name_may_be_found_on_disk(name in ".{0,40}") {
            let _ = (parse(&name), FolderName::of_directory(&name), number(&name, 'S'));
        }
    }
}
