//! A test inside a network namespace of its own, where every address can be ours and every port is free. The outer
//! test runs the inner one (ignored otherwise) in a process of its own.

use std::process::Command;

use crate::pair::program::said;
use crate::peers;

/// Every address of the world is this machine's: a client may come from any.
pub const EVERY_ADDRESS: &str = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && \
     ip -6 route add local ::/0 dev lo && sysctl -qw net.ipv4.ip_nonlocal_bind=1 && sysctl -qw net.ipv6.ip_nonlocal_bind=1";

/// Runs the test of this name after these commands.
///
/// # Panics
/// If it does not pass.
pub fn run_inside(test: &str, commands: &str) {
    let mut unshare = Command::new(peers::program("unshare"));
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    run(unshare.arg("--net"), test, commands);
}

/// The same for a test that needs the system's own root, as servers with users of their own do. What it mounts, nobody
/// else sees.
///
/// # Panics
/// If it does not pass.
pub fn run_inside_as_root(test: &str, commands: &str) {
    let mut unshare = peers::privileged("unshare");
    // sudo keeps neither.
    let kept = ["PATH", "HOME"].map(|name| format!("{name}={}", std::env::var(name).unwrap_or_default()));
    run(unshare.args(["--net", "--mount", "env"]).args(kept), test, commands);
}

fn run(unshare: &mut Command, test: &str, commands: &str) {
    unshare.args(["sh", "-c", &format!("{commands} && exec \"$0\" --exact {test} --ignored --nocapture")]);
    unshare.arg(std::env::current_exe().expect("this test"));
    let output = unshare.output().expect("unshare runs");
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}
