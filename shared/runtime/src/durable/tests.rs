use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_written_file_is_whole_private_and_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("directory.bin");
    write_file(&path, b"old").unwrap();
    write_file(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(directory.path()), ["directory.bin"]);
}

#[test]
fn a_write_that_fails_leaves_the_old_contents_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    // A directory that is not empty can't be replaced by a file: the rename, the last step, fails.
    let path = directory.path().join("place");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("old"), b"old").unwrap();
    let error = write_file(&path, b"new").unwrap_err();
    assert_eq!(error.action, "rename");
    assert_eq!(names(directory.path()), ["place"]);
    assert_eq!(fs::read(path.join("old")).unwrap(), b"old");
}

#[test]
fn errors_name_the_action_and_the_path() {
    let error = write_file(Path::new("/nowhere/at/all"), b"").unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("can't create /nowhere/at/all."), "{text}");
    assert!(text.contains("No such file or directory"), "{text}");
    assert!(!error.is_full());
    let text = sync_directory(Path::new("/nowhere")).unwrap_err().to_string();
    assert!(text.starts_with("can't sync /nowhere: "), "{text}");
}

/// A file system with room for `octets`, or none where we may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(octets: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={octets}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(directory.path())
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_apart_and_the_old_contents_stay() {
    if let Some(disk) = SmallDisk::mount(64 * 1024) {
        let path = disk.0.path().join("place");
        write_file(&path, b"old").unwrap();
        assert!(free_octets(disk.0.path()).unwrap() <= 64 * 1024);
        let error = write_file(&path, &vec![b'x'; 128 * 1024]).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(names(disk.0.path()), ["place"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
    // Where nobody may mount, and everywhere else, the device that is always full.
    let directory = tempfile::tempdir().unwrap();
    let mut draft = Draft::create(&directory.path().join("a.tmp")).unwrap();
    draft.replace_file(File::options().read(true).write(true).open("/dev/full").unwrap());
    let error = draft.write(b"x").unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(error.action, "write");
    drop(draft);
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn a_draft_has_no_name_until_it_is_renamed() {
    let directory = tempfile::tempdir().unwrap();
    let (temporary, real) = (directory.path().join("a.tmp"), directory.path().join("a"));
    let mut draft = Draft::create(&temporary).unwrap();
    draft.write(b"one ").unwrap();
    draft.write(b"two").unwrap();
    draft.sync().unwrap();
    assert!(!real.exists());
    draft.rename(&real).unwrap();
    sync_directory(directory.path()).unwrap();
    assert_eq!(fs::read(&real).unwrap(), b"one two");
    assert_eq!(names(directory.path()), ["a"]);
}

#[test]
fn a_draft_never_takes_an_existing_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tmp");
    fs::write(&path, b"someone's").unwrap();
    let error = Draft::create(&path).unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"someone's");
}

#[test]
fn a_dropped_or_discarded_draft_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    drop(Draft::create(&directory.path().join("a.tmp")).unwrap());
    Draft::create(&directory.path().join("b.tmp")).unwrap().discard();
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn a_file_is_appended_from_its_start_wherever_it_was_read_to() {
    let directory = tempfile::tempdir().unwrap();
    let contents: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut from = tempfile::tempfile().unwrap();
    from.write_all(&contents).unwrap();
    from.write_all(b"and what is not to be copied").unwrap();
    let mut draft = Draft::create(&directory.path().join("a.tmp")).unwrap();
    draft.write(b"front").unwrap();
    assert_eq!(draft.append_file(&from, 0, 300_000).unwrap(), 300_000);
    draft.write(b"end").unwrap();
    let path = directory.path().join("a");
    draft.rename(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), [b"front", &contents[..], b"end"].concat());
}

#[test]
fn a_file_of_another_kind_is_appended_too() {
    // copy_file_range refuses the process file system or finds it empty.
    let directory = tempfile::tempdir().unwrap();
    let mut draft = Draft::create(&directory.path().join("a.tmp")).unwrap();
    let octets = draft.append_file(&File::open("/proc/self/status").unwrap(), 0, u64::MAX).unwrap();
    assert!(octets > 100);
    assert_eq!(draft.file().metadata().unwrap().len(), octets);
}

#[test]
fn directories_are_made_with_their_parents_and_private() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("mail/alice/new");
    create_directory(&path).unwrap();
    create_directory(&path).unwrap();
    for directory in [path.as_path(), path.parent().unwrap()] {
        assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let file = root.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(create_directory(&file.join("below")).unwrap_err().path, file);
}

#[test]
fn removing_what_is_not_there_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    fs::write(&path, b"").unwrap();
    remove(&path).unwrap();
    remove(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_sweep_takes_torn_drafts_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.tmp", "b.1-2.tmp", "c", "tmp"] {
        fs::write(directory.path().join(name), b"torn").unwrap();
    }
    fs::create_dir(directory.path().join("d.tmp")).unwrap();
    assert_eq!(sweep(directory.path()).unwrap(), 2);
    assert_eq!(names(directory.path()), ["c", "d.tmp", "tmp"]);
    assert_eq!(sweep(&directory.path().join("missing")).unwrap(), 0);
}

#[test]
fn a_relative_name_stands_in_the_working_directory() {
    assert_eq!(parent(Path::new("a")), Path::new("."));
    assert_eq!(parent(Path::new("/")), Path::new("/"));
    assert_eq!(parent(Path::new("/a/b")), Path::new("/a"));
}

#[test]
fn two_programs_never_share_a_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let held = StateLock::take(directory.path()).unwrap();
    let text = StateLock::take(directory.path()).unwrap_err().to_string();
    assert!(text.contains(&format!("process {} already runs", std::process::id())), "{text}");
    drop(held);
    StateLock::take(directory.path()).unwrap();
}
