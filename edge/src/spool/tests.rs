use std::time::Duration;

use super::*;

fn spool(state: &Path, octets: u64, clock: &Clock) -> Spool {
    let limits = SpoolLimits { home_octets_max: octets, disk_reserve_octets: 0 };
    Spool::open(state, ["cottage"], limits, clock.clone()).expect("opened")
}

fn put(spool: &Spool, id: u8, bytes: &[u8]) -> Result<TransferId, SpoolError> {
    let transfer = TransferId([id; 16]);
    let mut draft = spool.draft("cottage", transfer)?;
    draft.write(bytes)?;
    draft.commit()?;
    Ok(transfer)
}

fn files(state: &Path, folder: &str) -> Vec<String> {
    let read = std::fs::read_dir(state.join("spool/cottage").join(folder)).expect("readable");
    let mut names: Vec<_> = read
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn holds_over_a_restart_until_it_is_acknowledged() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::still(Duration::from_secs(1_000_000));
    let before = spool(state.path(), 10_000, &clock);
    let ids = [1, 2, 3].map(|id| {
        clock.turn(Duration::from_millis(1));
        put(&before, id, &[id; 100]).expect("room")
    });
    for spool in [&before, &spool(state.path(), 10_000, &clock)] {
        let listing = spool.list("cottage");
        assert_eq!(listing.entries.iter().map(|item| item.transfer).collect::<Vec<_>>(), ids);
        assert_eq!((listing.total, listing.total_octets), (3, 300));
    }
    before.acknowledge("cottage", ids[0]).expect("deleted");
    before.acknowledge("cottage", ids[0]).expect("a repeat is harmless");
    assert_eq!(before.list("cottage").total, 2);
    assert_eq!(spool(state.path(), 10_000, &clock).list("cottage").entries[0].transfer, ids[1]);
    assert!(before.fetch("cottage", ids[0]).is_none());
    let mut buffer = [0; 200];
    let count = before.fetch("cottage", ids[1]).expect("held").expect("whole").read(&mut buffer).expect("read");
    assert_eq!(buffer[..count], [2; 100]);
}

#[test]
fn what_is_damaged_is_set_aside_and_the_rest_goes_on() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::still(Duration::from_secs(1_000_000));
    {
        let spool = spool(state.path(), 10_000, &clock);
        put(&spool, 1, b"first").expect("room");
        put(&spool, 2, b"second").expect("room");
    }
    let folder = state.path().join("spool/cottage");
    let torn = folder.join(&files(state.path(), "")[0]);
    let whole = std::fs::read(&torn).expect("read");
    std::fs::write(&torn, &whole[..whole.len() - 1]).expect("torn");
    std::fs::write(folder.join("stray.sealed"), b"?").expect("written");
    std::fs::write(folder.join("left.tmp"), b"?").expect("written");
    let spool = spool(state.path(), 10_000, &clock);
    assert_eq!(spool.list("cottage").entries.len(), 1);
    assert_eq!(spool.held("cottage").damaged, 2);
    assert_eq!(files(state.path(), "damaged").len(), 2);
    assert_eq!(files(state.path(), "").len(), 1);
}

#[test]
fn mail_of_a_home_that_left_the_config_is_noticed_and_kept() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::still(Duration::from_secs(1_000_000));
    put(&spool(state.path(), 10_000, &clock), 1, b"sealed").expect("room");
    let folder = state.path().join("spool");
    let limits = SpoolLimits { home_octets_max: 10_000, disk_reserve_octets: 0 };
    let other = Spool::open(state.path(), ["cabin"], limits, clock.clone()).expect("opened");
    assert_eq!(other.strangers().expect("readable"), [folder.join("cottage")]);
    assert!(other.holds_mail("cottage") && !other.holds_mail("cabin") && !other.holds_mail("nobody"));
    other.add("cottage").expect("opened");
    other.add("cottage").expect("a repeat is harmless");
    assert_eq!(other.list("cottage").total, 1);
    assert!(other.strangers().expect("readable").is_empty());
}

#[test]
fn pages_follow_each_other_whatever_goes_between_them() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::still(Duration::from_secs(1_000_000));
    let spool = spool(state.path(), u64::MAX, &clock);
    let count = LISTING_MAX + 3;
    let ids: Vec<TransferId> = (0..count)
        .map(|n| {
            clock.turn(Duration::from_millis(1));
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let mut draft = spool.draft("cottage", TransferId(id)).expect("room");
            draft.write(b"x").expect("room");
            draft.commit().expect("kept");
            TransferId(id)
        })
        .collect();
    let first = spool.page("cottage", "");
    assert_eq!((first.entries.len(), first.total), (LISTING_MAX, count as u64));
    let next = first.next.expect("there is more");
    // The place itself may be gone: the one after it is still next.
    spool.acknowledge("cottage", ids[LISTING_MAX - 1]).expect("deleted");
    let second = spool.page("cottage", &next);
    let listed: Vec<TransferId> = second.entries.iter().map(|item| item.transfer).collect();
    assert_eq!((listed, second.next), (ids[LISTING_MAX..].to_vec(), None));
}

#[test]
fn what_is_damaged_is_named_and_can_be_dropped_like_the_rest() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let spool = spool(state.path(), 10_000, &Clock::real());
    let ids = [1, 2].map(|id| put(&spool, id, b"sealed").expect("room"));
    spool.set_aside("cottage", ids[0], &RecordError::Changed);
    let page = spool.page("cottage", "");
    assert_eq!(page.damaged.iter().map(|file| file.transfer).collect::<Vec<_>>(), [Some(ids[0])]);
    assert_eq!((page.damaged_total, page.entries.len()), (1, 1));
    assert!(spool.drop_for_good("cottage", ids[0]).expect("removed"));
    assert!(spool.drop_for_good("cottage", ids[1]).expect("removed"));
    assert!(!spool.drop_for_good("cottage", ids[1]).expect("a repeat is harmless"));
    let page = spool.page("cottage", "");
    assert_eq!((page.damaged_total, page.damaged.len(), page.total), (0, 0, 0));
    assert!(files(state.path(), "").is_empty() && files(state.path(), "damaged").is_empty());
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let spool = spool(state.path(), 150, &Clock::still(Duration::from_secs(1)));
    let mut draft = spool.draft("cottage", TransferId([1; 16])).expect("room");
    draft.write(&[0; 100]).expect("room");
    assert!(matches!(put(&spool, 2, &[0; 100]), Err(SpoolError::Quota)), "drafts count towards the quota");
    drop(draft);
    assert!(files(state.path(), "").is_empty());
    put(&spool, 2, &[0; 150]).expect("room to the last octet");
    assert!(matches!(put(&spool, 3, &[0; 1]), Err(SpoolError::Quota)));
    assert_eq!(spool.list("cottage").total, 1);
}

#[test]
fn the_disk_keeps_its_reserve() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let limits = SpoolLimits { home_octets_max: u64::MAX, disk_reserve_octets: u64::MAX };
    let spool = Spool::open(state.path(), ["cottage"], limits, Clock::real()).expect("opened");
    assert!(matches!(put(&spool, 1, b"x"), Err(SpoolError::Reserve)));
}

#[test]
fn nothing_that_is_held_is_let_go_for_its_age() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::still(Duration::from_secs(1_000_000));
    let before = spool(state.path(), 10_000, &clock);
    put(&before, 1, b"x").expect("room");
    clock.turn(Duration::from_hours(24 * 3650));
    put(&before, 2, b"x").expect("room");
    clock.jump(Duration::from_secs(10));
    put(&before, 3, b"x").expect("a clock that was turned back is no obstacle");
    for spool in [&before, &spool(state.path(), 10_000, &clock)] {
        assert_eq!(spool.list("cottage").total, 3);
        assert_eq!(spool.held("cottage").damaged, 0);
    }
}

#[test]
fn many_who_write_at_once_never_hold_more_than_the_quota() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let spool = spool(state.path(), 100_000, &Clock::real());
    let refused = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for writer in 0..16u8 {
            let (spool, refused) = (&spool, &refused);
            scope.spawn(move || {
                for message in 0..20u8 {
                    let mut id = [writer; 16];
                    id[0] = message;
                    let Ok(mut draft) = spool.draft("cottage", TransferId(id)) else { continue };
                    // In pieces, as a large message comes.
                    let written = (0..10).try_for_each(|_| draft.write(&[writer; 100]));
                    if written.and_then(|()| draft.commit()).is_err() {
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                    assert!(spool.held("cottage").octets <= 100_000);
                }
            });
        }
    });
    let held = spool.held("cottage");
    assert!(held.octets <= 100_000 && held.messages * 1000 == held.octets, "{held:?}");
    assert!(held.messages >= 80, "drafts that fail give their room back: {held:?}");
    let of_home = spool.of("cottage");
    assert_eq!(of_home.drafts_octets.load(Ordering::SeqCst), 0);
    assert_eq!(spool.0.writing.load(Ordering::SeqCst), 0);
}

#[test]
fn other_bounds_count_at_once() {
    let state = tempfile::tempdir().expect("a temporary directory");
    let spool = spool(state.path(), 10, &Clock::real());
    put(&spool, 1, b"123456").expect("room");
    spool.reload(SpoolLimits { home_octets_max: 5, disk_reserve_octets: 0 });
    assert!(matches!(put(&spool, 2, b"x"), Err(SpoolError::Quota)));
    spool.reload(SpoolLimits { home_octets_max: 7, disk_reserve_octets: 0 });
    put(&spool, 2, b"x").expect("room to the last octet");
    assert_eq!(spool.list("cottage").total, 2, "what is held is never let go for a bound");
}
