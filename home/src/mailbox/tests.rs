use std::fs;
use std::path::Path;
use std::time::Duration;

use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable;

use super::bells::Bells;
use super::name::{Flags, FolderName};
use super::*;

/// Later than any file that a test makes, so that no directory counts as just changed.
fn clock() -> Clock {
    Clock::still(Duration::from_secs(4_000_000_000))
}

fn mailboxes() -> Mailboxes {
    Mailboxes::new(Bells::default(), "home.example.org", clock())
}

fn open(path: &Path) -> Arc<Mailbox> {
    mailboxes().open(path).expect("opened")
}

fn inbox() -> FolderName {
    FolderName::inbox()
}

fn folder(name: &str) -> FolderName {
    FolderName::parse(name).expect("a name")
}

/// As a deliverer or another mail program does it.
fn drop_in(path: &Path, file: &str, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path.join(file), text).expect("written");
}

fn shown(mailbox: &Mailbox, name: &FolderName) -> Vec<(u32, String)> {
    let show = |folder: &Folder| folder.messages.iter().map(|one| (one.uid, one.file.to_string())).collect();
    mailbox.see(name, show).expect("seen")
}

fn append(mailbox: &Mailbox, name: &FolderName, text: &str) -> u32 {
    let fill = |draft: &mut durable::Draft| draft.write(text.as_bytes());
    mailbox.append(name, Flags::SEEN, &[], Some(1_700_000_000), text.len() as u64, fill).expect("appended").uid
}

#[test]
fn what_others_add_change_and_remove_is_found() {
    let state = tempfile::tempdir().expect("a folder");
    let mailbox = open(state.path());
    drop_in(&state.path().join("new"), "2.b,S=3", "B: 1");
    drop_in(&state.path().join("new"), "1.a", "A: 1\nx\n");
    assert_eq!(shown(&mailbox, &inbox()), [(1, "1.a".into()), (2, "2.b,S=3".into())], "in the order they came");
    let octets = mailbox.see(&inbox(), |folder| folder.messages[0].octets).expect("seen");
    assert_eq!(octets, 9, "line ends count as two");
    let before = mailbox.see(&inbox(), |folder| folder.numbers.modseq).expect("seen");
    durable::rename(&state.path().join("new/1.a"), &state.path().join("cur/1.a:2,FS")).expect("flagged");
    fs::remove_file(state.path().join("new/2.b,S=3")).expect("removed");
    drop_in(&state.path().join("cur"), "3.c:2,", "C: 1");
    assert_eq!(shown(&mailbox, &inbox()), [(1, "1.a:2,FS".into()), (3, "3.c:2,".into())]);
    let (modseq, flags) =
        mailbox.see(&inbox(), |folder| (folder.numbers.modseq, folder.messages[0].info.flags)).expect("seen");
    assert!(modseq > before && flags == Flags::FLAGGED.with(Flags::SEEN));
    assert_eq!(mailbox.read(&inbox(), 1).expect("read").as_deref(), Some(&b"A: 1\r\nx\r\n"[..]));
    assert_eq!(mailbox.read(&inbox(), 2).expect("read"), None);
}

#[test]
fn numbers_outlive_the_program_and_are_never_given_twice() {
    let state = tempfile::tempdir().expect("a folder");
    let (first, validity) = {
        let mailbox = open(state.path());
        let uid = append(&mailbox, &inbox(), "A: 1\r\n");
        mailbox.store(&inbox(), &[uid], Change::Add, Flags::DELETED, &[], None).expect("stored");
        let last = append(&mailbox, &inbox(), "B: 1\r\n");
        mailbox.store(&inbox(), &[last], Change::Add, Flags::DELETED, &[], None).expect("stored");
        assert_eq!(mailbox.expunge(&inbox(), Some(&[last])).expect("expunged"), [last]);
        (uid, mailbox.view(&inbox()).expect("seen").numbers.uidvalidity)
    };
    let mailbox = open(state.path());
    let view = mailbox.view(&inbox()).expect("seen");
    assert_eq!((view.uids.as_slice(), view.numbers.uidvalidity), (&[first][..], validity));
    assert_eq!(append(&mailbox, &inbox(), "C: 1\r\n"), first + 2, "the UID of what is gone stays its own");
}

#[test]
fn an_index_of_zeros_is_made_anew_with_another_validity() {
    let state = tempfile::tempdir().expect("a folder");
    let before = {
        let mailbox = open(state.path());
        append(&mailbox, &inbox(), "A: 1\r\n");
        mailbox.view(&inbox()).expect("seen").numbers
    };
    for beside in ["index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(state.path().join(beside));
    }
    fs::write(state.path().join("index.db"), [0xff; 8192]).expect("written");
    let later = Clock::still(Duration::from_secs(4_000_000_100));
    let mailbox = Mailboxes::new(Bells::default(), "h", later).open(state.path()).expect("opened");
    let after = mailbox.view(&inbox()).expect("seen");
    assert_eq!(after.uids, [1]);
    assert!(after.numbers.uidvalidity > before.uidvalidity);
    assert!(state.path().join("index.db.damaged").exists());
}

#[test]
fn flags_and_keywords_stand_in_names_that_others_read() {
    let state = tempfile::tempdir().expect("a folder");
    let mailbox = open(state.path());
    let uid = append(&mailbox, &inbox(), "A: 1\r\n");
    let words = ["$Forwarded".to_owned(), "work".to_owned()];
    mailbox.store(&inbox(), &[uid], Change::Add, Flags::FLAGGED, &words, None).expect("stored");
    let (_, file) = shown(&mailbox, &inbox()).remove(0);
    assert!(file.ends_with(":2,FSab"), "{file}");
    assert_eq!(fs::read_to_string(state.path().join("dovecot-keywords")).expect("read"), "0 $Forwarded\n1 work\n");
    mailbox.store(&inbox(), &[uid], Change::Remove, Flags::SEEN, &["WORK".to_owned()], None).expect("stored");
    assert!(shown(&mailbox, &inbox())[0].1.ends_with(":2,Fa"));
    mailbox.store(&inbox(), &[uid], Change::Replace, Flags::DRAFT, &[], None).expect("stored");
    assert!(shown(&mailbox, &inbox())[0].1.ends_with(":2,D"));
    let modseq = mailbox.see(&inbox(), |folder| folder.messages[0].modseq).expect("seen");
    let (done, modified) =
        mailbox.store(&inbox(), &[uid], Change::Add, Flags::SEEN, &[], Some(modseq - 1)).expect("stored");
    assert!(done.is_empty() && modified == [uid]);
}

#[test]
fn copies_and_moves_keep_dates_flags_and_words() {
    let state = tempfile::tempdir().expect("a folder");
    let mailbox = open(state.path());
    let (sent, trash) = (folder("Sent"), folder("Trash"));
    let uid = append(&mailbox, &inbox(), "A: 1\r\n");
    mailbox.store(&trash, &[], Change::Add, Flags::default(), &["other".to_owned()], None).expect("a letter");
    mailbox.store(&inbox(), &[uid], Change::Add, Flags::FLAGGED, &["work".to_owned()], None).expect("stored");
    assert_eq!(mailbox.copy(&inbox(), &[uid], &sent).expect("copied").uids, [(uid, 1)]);
    assert_eq!(mailbox.move_to(&inbox(), &[uid], &trash).expect("moved").uids, [(uid, 1)]);
    assert!(shown(&mailbox, &inbox()).is_empty());
    for name in [&sent, &trash] {
        let words = mailbox.words(name).expect("read");
        let (date, flags, word) = mailbox
            .see(name, |folder| {
                let message = &folder.messages[0];
                let word = words.of(message.info.keywords).map(str::to_owned).collect::<Vec<_>>();
                (message.date_s, message.info.flags, word)
            })
            .expect("seen");
        assert_eq!((date, flags, word), (1_700_000_000, Flags::FLAGGED.with(Flags::SEEN), vec!["work".to_owned()]));
    }
    assert!(matches!(mailbox.copy(&sent, &[1], &folder("Nowhere")), Err(MailboxError::NoSuchFolder)));
}

#[test]
fn folders_are_made_renamed_with_their_numbers_and_removed() {
    let state = tempfile::tempdir().expect("a folder");
    let mailbox = open(state.path());
    let names: Vec<_> = mailbox.folders().expect("read").iter().map(ToString::to_string).collect();
    assert_eq!(names, ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"]);
    mailbox.create(&folder("a.b")).expect("made");
    assert!(matches!(mailbox.create(&folder("a.b")), Err(MailboxError::Exists)));
    append(&mailbox, &folder("a.b"), "A: 1\r\n");
    let before = mailbox.view(&folder("a.b")).expect("seen").numbers;
    mailbox.rename(&folder("a.b"), &folder("c")).expect("renamed");
    let after = mailbox.view(&folder("c")).expect("seen");
    assert_eq!((after.uids.as_slice(), after.numbers.uidvalidity), (&[1][..], before.uidvalidity));
    mailbox.delete(&folder("c")).expect("removed");
    assert!(matches!(mailbox.view(&folder("c")), Err(MailboxError::NoSuchFolder)));
    mailbox.create(&folder("c")).expect("made");
    let again = mailbox.view(&folder("c")).expect("seen");
    assert!(again.uids.is_empty() && again.numbers.uidvalidity > before.uidvalidity);
    assert!(matches!(mailbox.delete(&inbox()), Err(MailboxError::Cannot(_))));
    mailbox.subscribe(&folder("c"), true).expect("subscribed");
    assert!(fs::read_to_string(state.path().join("subscriptions")).expect("read").contains("c\n"));
}

#[test]
fn who_listens_hears_of_what_others_do() {
    let state = tempfile::tempdir().expect("a folder");
    let mailbox = open(state.path());
    let mut ear = mailbox.listen(&inbox());
    append(&mailbox, &inbox(), "A: 1\r\n");
    assert!(ear.has_changed().expect("open"));
    ear.mark_unchanged();
    mailbox.store(&inbox(), &[1], Change::Add, Flags::FLAGGED, &[], None).expect("stored");
    assert!(ear.has_changed().expect("open"));
}
