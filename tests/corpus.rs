//! Replays the kept corpus of the fuzz targets on the ordinary compiler. A crash that fuzzing found
//! stays found: its input is a file in `fuzz/corpus/<target>/`.

#[path = "fuzz/programs.rs"]
mod programs;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

/// Every target by name.
fn all() -> Vec<targets::Target> {
    let mut all = targets::TARGETS.to_vec();
    all.extend::<[targets::Target; 9]>([
        ("attempts_journal", programs::attempts_journal),
        ("clients", programs::clients),
        ("drop_letter", programs::drop_letter),
        ("event_segment", programs::event_segment),
        ("imap_session", programs::imap_session),
        ("message_structure", programs::message_structure),
        ("metrics_page", programs::metrics_page),
        ("queue_entry", programs::queue_entry),
        ("queue_trailer", programs::queue_trailer),
    ]);
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files
}

#[test]
fn the_kept_corpus_breaks_no_promise() {
    let mut replayed = 0;
    for (name, target) in all() {
        let files = corpus(name);
        assert!(files.len() >= 3, "{name}: {} files are no corpus", files.len());
        for file in files {
            println!("{}", file.display());
            target(&fs::read(&file).expect("a readable file"));
            replayed += 1;
        }
    }
    println!("{replayed} inputs replayed");
}

/// A target that can't fail proves nothing: the planted input must ring.
#[test]
fn the_alarm_rings() {
    let planted =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/alarm/planted")).expect("the planted input");
    let rings = |data: Vec<u8>| std::panic::catch_unwind(move || targets::alarm(&data)).is_err();
    assert!(rings(planted));
    assert!(!rings(b"quiet".to_vec()));
}

/// Each target has its line in the fuzz crate, and nothing there is not replayed here.
#[test]
fn every_target_is_replayed() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).expect("manifest");
    let mut listed: Vec<_> = manifest
        .lines()
        .skip_while(|line| *line != "[[bin]]")
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .filter(|name| *name != "alarm")
        .collect();
    listed.sort_unstable();
    let replayed: Vec<_> = all().iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, replayed);
}
