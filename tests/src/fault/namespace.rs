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
    unshare.args(["--net", "sh", "-c", &format!("{commands} && exec \"$0\" --exact {test} --ignored --nocapture")]);
    unshare.arg(std::env::current_exe().expect("this test"));
    let output = unshare.output().expect("unshare runs");
    assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
}
