//! Lanes and their turns.

use gatepost_protocol::mail::reply::Reply;

use super::*;

const BOUNDS: Bounds =
    Bounds { attempts_max: 20, destination: Limits { concurrency_max: 4, per_minute_max: 60_000 }, edge_up: true };

fn id(n: u32) -> QueueId {
    QueueId([n.to_be_bytes(); 4].concat().try_into().expect("16 octets"))
}

fn hop(to: &str) -> Arc<Lane> {
    Arc::new(Lane::Hop { via: Via::Edge, to: to.into() })
}

fn end(ready: &mut Ready, lane: &Arc<Lane>, id: QueueId, ending: Ending, now_ms: u64) {
    ready.ended(lane, id, (ending, None), BOUNDS.destination, now_ms);
}

fn take_all(ready: &mut Ready, bounds: Bounds, now_ms: u64) -> Vec<(Arc<Lane>, QueueId)> {
    std::iter::from_fn(|| ready.take(bounds, now_ms)).collect()
}

#[test]
fn a_slow_destination_holds_nobody_else_up() {
    let mut ready = Ready::default();
    for n in 0..10 {
        ready.push(&hop("slow.example"), id(n), Past::Untried);
    }
    ready.push(&hop("swift.example"), id(100), Past::Untried);
    let taken = take_all(&mut ready, BOUNDS, 0);
    assert_eq!(taken.len(), 5);
    assert_eq!(taken.iter().filter(|(lane, _)| *lane == hop("swift.example")).count(), 1);
}

#[test]
fn lanes_take_turns_within_the_bound_of_all() {
    let mut ready = Ready::default();
    for n in 0..5 {
        ready.push(&hop("a.example"), id(n), Past::Untried);
        ready.push(&hop("b.example"), id(n), Past::Untried);
    }
    let four = Bounds { attempts_max: 5, ..BOUNDS };
    let order: Vec<_> = take_all(&mut ready, four, 0).into_iter().map(|(lane, _)| lane).collect();
    assert_eq!(
        order,
        [hop("b.example"), hop("a.example"), hop("b.example"), hop("a.example")],
        "the rest is for others"
    );
    assert_eq!(ready.take(four, 0), None);
    end(&mut ready, &hop("a.example"), id(0), Ending::Good, 0);
    assert!(ready.take(four, 0).is_some());
}

#[test]
fn nothing_is_taken_twice_at_once() {
    let mut ready = Ready::default();
    ready.push(&hop("a.example"), id(1), Past::Untried);
    ready.push(&hop("a.example"), id(1), Past::Untried);
    assert_eq!(ready.take(BOUNDS, 0), Some((hop("a.example"), id(1))));
    ready.push(&hop("a.example"), id(1), Past::Untried);
    assert_eq!(ready.take(BOUNDS, 0), None);
    end(&mut ready, &hop("a.example"), id(1), Ending::Good, 0);
    ready.push(&hop("a.example"), id(1), Past::Untried);
    assert!(ready.take(BOUNDS, 0).is_some());
}

#[test]
fn what_needs_an_edge_waits_for_one_and_can_be_drained() {
    let mut ready = Ready::default();
    ready.push(&hop("a.example"), id(1), Past::Untried);
    ready.push(&Arc::new(Lane::Bounce), id(2), Past::Untried);
    let away = Bounds { edge_up: false, ..BOUNDS };
    assert_eq!(take_all(&mut ready, away, 0), [(Arc::new(Lane::Bounce), id(2))]);
    assert_eq!(ready.drain(), [id(1)]);
    assert_eq!(take_all(&mut ready, BOUNDS, 0), []);
    ready.push(&hop("a.example"), id(1), Past::Untried);
    assert_eq!(take_all(&mut ready, BOUNDS, 0), [(hop("a.example"), id(1))]);
}

#[test]
fn a_hundred_thousand_dead_domains_hold_no_live_one_up() {
    let mut ready = Ready::default();
    for n in 0..100_000 {
        ready.push(&hop(&format!("d{n}.example")), id(n), Past::Tried);
    }
    ready.push(&hop("live.example"), id(100_000), Past::Untried);
    let taken = take_all(&mut ready, BOUNDS, 0);
    assert_eq!(taken.len(), 11, "half for those in trouble, and the live one");
    assert!(taken.iter().any(|(lane, _)| *lane == hop("live.example")));
    // It answers: everything more for it goes ahead, while the dead ones hang.
    end(&mut ready, &hop("live.example"), id(100_000), Ending::Good, 10);
    for n in 1..=100 {
        ready.push(&hop("live.example"), id(100_000 + n), Past::Tried);
    }
    let mut sent = 0;
    for now in 10..60 {
        for (lane, id) in take_all(&mut ready, BOUNDS, now) {
            assert_eq!(lane, hop("live.example"));
            end(&mut ready, &lane, id, Ending::Good, now);
            sent += 1;
        }
    }
    assert_eq!(sent, 100);
}

#[test]
fn one_just_written_to_does_not_wait_for_all_that_were_never_tried() {
    let mut ready = Ready::default();
    for n in 0..100_000 {
        ready.push(&hop(&format!("d{n}.example")), id(n), Past::Untried);
    }
    let mut hanging = take_all(&mut ready, BOUNDS, 0);
    assert_eq!(hanging.len(), 15);
    ready.push(&hop("live.example"), id(100_000), Past::Untried);
    for now in 1..=3 {
        let (lane, id) = hanging.remove(0);
        end(&mut ready, &lane, id, Ending::Unreachable, now);
        hanging.extend(take_all(&mut ready, BOUNDS, now));
    }
    assert!(hanging.iter().any(|(lane, _)| *lane == hop("live.example")));
}

#[test]
fn one_written_to_now_finds_room_at_once_beside_all_that_piled_up_before() {
    let mut ready = Ready::default();
    for n in 0..1000 {
        ready.push(&hop(&format!("d{n}.example")), id(n), if n % 2 == 0 { Past::Tried } else { Past::Untried });
    }
    assert_eq!(take_all(&mut ready, BOUNDS, 0).len(), 18, "an eighth is for others");
    ready.push(&hop("live.example"), id(1000), Past::New);
    assert_eq!(take_all(&mut ready, BOUNDS, 0), [(hop("live.example"), id(1000))]);
}

#[test]
fn the_newest_of_those_written_to_now_does_not_wait_for_all_the_others() {
    let mut ready = Ready::default();
    for n in 0..1000 {
        ready.push(&hop(&format!("d{n}.example")), id(n), Past::New);
    }
    let mut hanging = take_all(&mut ready, BOUNDS, 0);
    ready.push(&hop("live.example"), id(1000), Past::New);
    for now in 1..=2 {
        let (lane, id) = hanging.remove(0);
        end(&mut ready, &lane, id, Ending::Unreachable, now);
        hanging.extend(take_all(&mut ready, BOUNDS, now));
    }
    assert!(hanging.iter().any(|(lane, _)| *lane == hop("live.example")));
}

#[test]
fn a_dead_domain_is_left_alone_with_its_last_words() {
    let mut ready = Ready::default();
    let dead = hop("dead.example");
    for n in 0..1000 {
        ready.push(&dead, id(n), Past::Untried);
    }
    let (mut attempts, mut now) = (0, 0);
    let said = Final { reply: Reply::unreachable("no answer"), remote: None, at_unix_ms: 7 };
    while now < 60 * 60_000 {
        let taken = take_all(&mut ready, BOUNDS, now);
        attempts += taken.len();
        now += 30_000;
        for (lane, id) in taken {
            ready.ended(&lane, id, (Ending::Unreachable, Some(said.clone())), BOUNDS.destination, now);
        }
        now = now.max(ready.next_ms().unwrap_or(now));
    }
    assert!(attempts <= 10, "{attempts} attempts in an hour");
    let shown = ready.shown(&dead, now - 1).expect("known");
    assert_eq!((shown.waiting, shown.last), (1000 - attempts, Some(said)));
    assert!(shown.paused_ms.is_some());
    ready.lift(&dead);
    assert_eq!(take_all(&mut ready, BOUNDS, now - 1).len(), 1, "by hand it is tried at once");
}

#[test]
fn domains_of_one_receiver_share_its_pace() {
    let mut ready = Ready::default();
    let lanes = ["a.example", "b.example", "c.example"].map(hop);
    for (n, lane) in (0..).zip(&lanes) {
        ready.push(lane, id(n), Past::Untried);
    }
    let taken = take_all(&mut ready, BOUNDS, 0);
    assert_eq!(taken.len(), 3);
    for (lane, id) in &taken {
        ready.is_received_by(lane, "mx.big.example");
        end(&mut ready, lane, *id, Ending::Good, 0);
    }
    for n in 0..30 {
        ready.push(&lanes[n as usize % 3], id(100 + n), Past::Untried);
    }
    let taken = take_all(&mut ready, BOUNDS, 1);
    assert_eq!(taken.len(), 4, "four in all, not four each");
    // Throttled by one of them, all are.
    end(&mut ready, &taken[0].0, taken[0].1, Ending::Throttled, 1);
    for lane in &lanes {
        assert!(ready.shown(lane, 1).expect("known").throttled.is_some());
    }
    for (lane, id) in &taken[1..] {
        end(&mut ready, lane, *id, Ending::Good, 2);
    }
    assert!(take_all(&mut ready, BOUNDS, 3).len() <= 2);
}

#[test]
fn what_is_idle_is_forgotten_unless_it_is_worth_knowing() {
    let mut ready = Ready::default();
    for (n, ending) in [(1, Ending::Good), (2, Ending::Unknown), (3, Ending::Unreachable)] {
        let lane = hop(&format!("{n}.example"));
        ready.push(&lane, id(n), Past::Untried);
        let taken = take_all(&mut ready, BOUNDS, 0);
        assert_eq!(taken.len(), 1);
        end(&mut ready, &lane, id(n), ending, 0);
    }
    ready.sweep();
    let known: Vec<bool> = (1..=3).map(|n| ready.shown(&hop(&format!("{n}.example")), 0).is_some()).collect();
    assert_eq!(known, [true, false, true]);
    assert_eq!(ready.running(), 0);
}

proptest::proptest! {
    #[test]
    fn whatever_happens_each_entry_comes_once_and_none_is_forgotten(
        pushes in proptest::collection::vec((0u8..6, 0u32..40), 1..120),
        endings in proptest::collection::vec((0u8..4, 0u8..4), 1..60),
    ) {
        let mut ready = Ready::default();
        let mut waiting = HashSet::new();
        for (lane, n) in pushes {
            let lane = hop(&format!("{lane}.example"));
            ready.push(&lane, id(n), if n % 2 == 0 { Past::Tried } else { Past::Untried });
            waiting.insert((lane, id(n)));
        }
        let (mut now, mut rounds) = (0, 0);
        let mut next = endings.iter().cycle();
        while !waiting.is_empty() {
            rounds += 1;
            proptest::prop_assert!(rounds < 20_000, "{} wait for ever", waiting.len());
            let taken = take_all(&mut ready, BOUNDS, now);
            for (lane, id) in taken {
                proptest::prop_assert!(waiting.remove(&(Arc::clone(&lane), id)), "twice");
                let (ending, receiver) = next.next().copied().unwrap_or_default();
                if receiver < 2 {
                    ready.is_received_by(&lane, &format!("mx{receiver}.example"));
                }
                let ending = [Ending::Good, Ending::Throttled, Ending::Unreachable, Ending::Unknown][ending as usize];
                end(&mut ready, &lane, id, ending, now + 10);
            }
            now = ready.next_ms().unwrap_or(now).max(now + 10);
        }
        proptest::prop_assert_eq!(ready.running(), 0);
    }
}
