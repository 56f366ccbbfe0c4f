//! Pairing by code, as far as it takes a clock that is turned, or two homes at the same moment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::pairing::code::PairingCode;
use gatepost_protocol::pairing::exchange::{Paired, PairingRefusal};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::control;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::tunnel::{self, Applicant, PairingError};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::edge::{World, until};

async fn ask(state: &Path, request: Value) -> Value {
    let state = state.to_owned();
    tokio::task::spawn_blocking(move || control::ask(&state, &request)).await.expect("asked").expect("answered")
}

async fn code(world: &World) -> (u64, PairingCode) {
    let address = world.tunnel().to_string();
    let opened = ask(&world.state(), json!({ "command": "pair", "address": address })).await;
    let code = opened["code"].as_str().expect("a code").parse().expect("a good one");
    (opened["id"].as_u64().expect("a number"), code)
}

fn come(code: &PairingCode, domain: &str) -> JoinHandle<Result<Paired, PairingError>> {
    let (code, domains) = (code.clone(), vec![domain.to_owned()]);
    let directory = tempfile::tempdir().expect("a directory");
    let identity = Identity::load_or_create(&directory.path().join("key.pem")).expect("made");
    tokio::spawn(async move {
        let applicant = Applicant { node: "hut.example".into(), more_keys: Vec::new(), domains };
        tunnel::pair(&Arc::new(identity), &code, applicant, &Clock::real()).await
    })
}

/// What comes of it, however long the edge takes by its own clock.
async fn end(visit: JoinHandle<Result<Paired, PairingError>>, clock: &Clock) -> Result<Paired, PairingError> {
    until(|| {
        clock.turn(Duration::from_millis(100));
        visit.is_finished()
    })
    .await;
    visit.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_hour_a_code_lets_nobody_in() {
    let mut world = World::start("60 s");
    world.stop_edge().await;
    let clock = Clock::still(Duration::from_secs(1_790_000_000));
    world.start_edge_by(&clock);
    // The socket of the edge before may still lie there, and nobody answers.
    until(|| control::ask(&world.state(), &json!({ "command": "status" })).is_ok()).await;
    let (id, first) = code(&world).await;
    clock.turn(Duration::from_mins(59));
    let paired = end(come(&first, "hut.example"), &clock).await.expect("paired within the hour");
    assert_eq!(paired.home, "hut");
    let seen = ask(&world.state(), json!({ "command": "pair-state", "id": id })).await;
    assert_eq!((&seen["state"], &seen["home"]["name"]), (&json!("paired"), &json!("hut")), "{seen:#}");

    let (id, second) = code(&world).await;
    clock.turn(Duration::from_hours(1));
    let late = end(come(&second, "late.example"), &clock).await;
    assert_eq!(late, Err(PairingError::Refused(PairingRefusal::Expired)));
    let seen = ask(&world.state(), json!({ "command": "pair-state", "id": id })).await;
    assert_eq!(seen["state"], "expired");
    let paired = std::fs::read_to_string(world.state().join("paired.toml")).expect("written");
    assert!(paired.contains("hut.example") && !paired.contains("late.example"), "{paired}");
    world.stop_edge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_homes_that_come_with_one_code_one_is_let_in() {
    let mut world = World::start("60 s");
    until(|| control::ask(&world.state(), &json!({ "command": "status" })).is_ok()).await;
    let (_, code) = code(&world).await;
    let visits = [come(&code, "one.example"), come(&code, "two.example")];
    let mut let_in = 0;
    for visit in visits {
        match visit.await.expect("no panic") {
            Ok(_) => let_in += 1,
            Err(error) => assert_eq!(error, PairingError::Refused(PairingRefusal::Used)),
        }
    }
    assert_eq!(let_in, 1);
    world.stop_edge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_can_not_be_written_lets_nobody_in_and_keeps_the_code_good() {
    let mut world = World::start("60 s");
    until(|| control::ask(&world.state(), &json!({ "command": "status" })).is_ok()).await;
    let (_, code) = code(&world).await;
    let file = world.state().join("paired.toml");
    std::fs::create_dir(&file).expect("in its place");
    let refused = come(&code, "hut.example").await.expect("no panic").expect_err("not written");
    assert!(matches!(&refused, PairingError::Refused(PairingRefusal::Failed(_))), "{refused}");
    assert_eq!(world.edge().status().json()["homes"].as_array().map(Vec::len), Some(1));
    std::fs::remove_dir(&file).expect("out of the way");
    come(&code, "hut.example").await.expect("no panic").expect("paired");
    assert_eq!(world.edge().status().json()["homes"][1]["name"], "hut");
    world.stop_edge().await;
}
