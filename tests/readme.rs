//! The README is true: its commands are run, its configs are checked, its tables name what is there.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gatepost_runtime::durable::StateLock;
use gatepost_tests::observe;
use gatepost_tests::pair::build;
use gatepost_tests::pair::facts::Facts;
use gatepost_tests::pair::program::said;
use gatepost_tests::world::ports;
use rustix::process::{Pid, Signal, kill_process};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn readme() -> String {
    fs::read_to_string(Path::new(TOP).join("README.md")).expect("README.md")
}

/// Blocks of one language, in their order.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let mut parts = text.split("```");
    let mut found = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        if let Some(body) = block.strip_prefix(&format!("{language}\n")) {
            found.push(body.to_owned());
        }
    }
    found
}

#[test]
fn the_first_screen_names_both_commands() {
    let text = readme();
    let screen: String = text.lines().take(45).collect::<Vec<_>>().join("\n");
    assert!(screen.contains("\ncargo pair\n") && screen.contains("\ntests/run\n"), "{screen}");
    // What runs this very test is the second one.
    let run = Path::new(TOP).join("tests/run");
    assert!(fs::metadata(&run).expect("tests/run").permissions().mode() & 0o111 != 0, "tests/run can be run");
    let ci = fs::read_to_string(Path::new(TOP).join(".ci/run")).expect(".ci/run");
    assert!(ci.contains("tests/run"), "{ci}");
}

#[test]
fn cargo_pair_runs_shows_mail_and_ends() {
    let scratch = tempfile::tempdir().expect("a directory");
    let ready = scratch.path().join("ready");
    let state = scratch.path().join("state");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Ended(
        Command::new(cargo)
            .args(["pair", "--state"])
            .arg(&state)
            .arg("--ready-file")
            .arg(&ready)
            .args(["--account", "carol@example.net:her own password", "--edges", "2"])
            .current_dir(TOP)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(scratch.path().join("stderr")).expect("a file"))
            .spawn()
            .expect("cargo runs"),
    );
    let stderr = || fs::read_to_string(scratch.path().join("stderr")).unwrap_or_default();
    observe::until_within(
        std::time::Duration::from_mins(10),
        "cargo pair to be ready",
        || (child.0.try_wait().expect("waited"), stderr(), ready.exists()),
        |(ended, said, ready)| {
            assert!(ended.is_none(), "it ended: {said}");
            *ready
        },
    );
    let facts = Facts::read(&state.join("pair.json")).expect("pair.json");
    let text = fs::read_to_string(state.join("pair.json")).expect("pair.json");
    for null in ["\"http\": null", "\"relay\": null", "\"web\": null"] {
        assert!(text.contains(null), "{null} is missing in {text}");
    }
    assert_eq!(facts.edges.len(), 1);
    assert_eq!(facts.accounts[0].address, "carol@example.net");
    // Who kills one can start it again by the command in the file.
    let home = facts.home.pid.expect("a pid");
    kill_process(Pid::from_raw(i32::try_from(home).expect("small")).expect("not 0"), Signal::KILL).expect("killed");
    observe::until_ok("the killed home to let go", || Ok(StateLock::take(&state.join("home")).map(drop)?));
    let again = Command::new(&facts.home.command[0])
        .args(&facts.home.command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _again = Ended(again.expect("started by its command"));
    let edge = |arguments: &[&str]| {
        let command = &facts.edge.command;
        let output = Command::new(&command[0]).args(&command[1..command.len() - 1]).args(arguments).output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
    };
    observe::until(
        "the home to be back",
        || edge(&["status", "--json"]),
        |status| status.contains("\"connected\": true"),
    );

    let pid = i32::try_from(child.0.id()).expect("small");
    // cargo has become the pair (exec), so this is its Ctrl-C.
    kill_process(Pid::from_raw(pid).expect("not 0"), Signal::INT).expect("interrupted");
    let stdout = child.0.stdout.take().expect("piped");
    let lines: Vec<String> = BufReader::new(stdout).lines().map_while(Result::ok).collect();
    let shown = lines.join("\n");
    for expected in [
        "in: stranger@world.example wrote to carol@example.net",
        "out: carol@example.net wrote to",
        "Received:",
        "SSL/TLS",
        "reading, as from outside: 127.0.0.1 port ",
        "mutt -f",
    ] {
        assert!(shown.contains(expected), "{expected:?} is missing in\n{shown}");
    }
    observe::until("it to end", || child.0.try_wait().expect("waited"), Option::is_some);
}

#[test]
fn setting_it_up_by_hand_works_as_written() {
    let scratch = tempfile::tempdir().expect("a directory");
    let at = Machine::new(scratch.path());
    let steps: Vec<String> = blocks("sh")
        .into_iter()
        .find(|block| block.contains("account add"))
        .expect("the steps")
        .lines()
        .map(str::to_owned)
        .collect();
    let [edge_run, edge_pair, home_pair, home_run, rest @ ..] = steps.as_slice() else { panic!("{steps:?}") };
    let configs = blocks("toml");
    let [edge_config, home_config, ..] = configs.as_slice() else { panic!("{} configs", configs.len()) };
    let (smtp, submissions, tunnel) = (ports::free(), ports::free(), ports::free());
    let (http, https) = (ports::free(), ports::free());
    let listen = format!(
        "smtp = \"{smtp}\"\nsubmissions = \"{submissions}\"\nimaps = \"{}\"\ntunnel = \"{tunnel}\"\nhttp = \"{http}\"\nhttps = \"{https}\"",
        ports::free()
    );
    at.write("edge.toml", &adapted(edge_config, "", &listen));
    at.write(
        "home.toml",
        &adapted(home_config, "", &format!("submissions = \"{}\"\nimaps = \"{}\"", ports::free(), ports::free())),
    );
    let _edge = Ended(at.run(edge_run));
    observe::until_ok("the edge to run", || at.try_shell("gatepost-edge status", ""));
    // On this machine no name leads to the edge.
    let edge_pair = edge_pair.split('#').next().expect("a command").trim();
    let code = at.shell(&format!("{edge_pair} --address {tunnel}"), "");
    assert!(home_pair.contains(" CODE "), "{home_pair}");
    at.shell(&home_pair.replace(" CODE ", &format!(" {} ", code.trim())), "");
    let _home = Ended(at.run(home_run));
    observe::until_ok("the home to run", || at.try_shell("gatepost-home status", ""));
    for step in rest {
        at.shell(step, "a good password\na good password\n");
    }
    observe::until(
        "the tunnel to be up",
        || at.shell("gatepost-edge status --json", ""),
        |status| status.contains("\"connected\": true"),
    );
}

#[test]
fn the_tables_to_write_by_hand_are_good() {
    let scratch = tempfile::tempdir().expect("a directory");
    let at = Machine::new(scratch.path());
    let configs = blocks("toml");
    let [edge, home, in_edge, in_home, more_in_home @ ..] = configs.as_slice() else {
        panic!("{} configs", configs.len())
    };
    let (edge_key, home_key) = (at.shell("gatepost-edge key", ""), at.shell("gatepost-home key", ""));
    at.write("edge.toml", &adapted(&format!("{edge}\n{in_edge}"), home_key.trim(), ""));
    at.write("home.toml", &adapted(&format!("{home}\n{in_home}\n{}", more_in_home.join("\n")), edge_key.trim(), ""));
    assert!(at.shell("gatepost-edge check", "").contains("home cottage"));
    assert!(at.shell("gatepost-home check", "").contains("1 edge(s)"));
}

#[test]
fn every_command_in_the_table_is_there() {
    let scratch = tempfile::tempdir().expect("a directory");
    let at = Machine::new(scratch.path());
    let mut checked = 0;
    for line in readme().lines().filter(|line| line.starts_with("| `gatepost-")) {
        let commands = line.split('`').nth(1).expect("a command");
        let words: Vec<&str> = commands.split(' ').collect();
        let groups =
            ["account", "app-password", "alias", "access", "bans", "certificate", "dkim", "queue", "report", "spool"];
        let (prefix, verbs) =
            if groups.contains(&words[1]) { (&words[..2], &words[2..]) } else { (&words[..1], &words[1..]) };
        for verb in verbs {
            at.shell(&format!("{} {verb} --help", prefix.join(" ")), "");
            checked += 1;
        }
    }
    assert!(checked >= 25, "{checked} commands");
}

#[test]
fn every_setting_in_the_table_is_known() {
    let scratch = tempfile::tempdir().expect("a directory");
    let at = Machine::new(scratch.path());
    let keys = [at.shell("gatepost-home key", ""), at.shell("gatepost-edge key", "")];
    let configs = blocks("toml");
    let mut checked = 0;
    for line in readme().lines().filter(|line| line.starts_with("| edge | `") || line.starts_with("| home | `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let (program, names, defaults) = (cells[0], cells[1], cells[2]);
        let (config, key) = if program == "edge" { (&configs[0], &keys[0]) } else { (&configs[1], &keys[1]) };
        let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
        let defaults: Vec<&str> = defaults.split('`').skip(1).step_by(2).collect();
        let table = names[0].rsplit_once('.').map(|(table, _)| table);
        for (index, name) in names.iter().enumerate() {
            let Some(default) = defaults.get(index) else { continue };
            let name =
                name.strip_prefix('.').map_or((*name).to_owned(), |name| format!("{}.{name}", table.expect("a table")));
            // A bare word or address is a string; the rest is TOML as it stands.
            let quoted = if default.starts_with(['/', '[']) && !default.starts_with("[\"") {
                format!("\"{default}\"")
            } else {
                (*default).to_owned()
            };
            let mut table: toml::Table = toml::from_str(&adapted(config, key.trim(), "")).expect("TOML");
            gatepost_tests::pair::options::merge(&mut table, &format!("{name}={quoted}")).expect("a setting");
            at.write(&format!("{program}.toml"), &toml::to_string(&table).expect("TOML"));
            at.shell(&format!("gatepost-{program} check"), "");
            checked += 1;
        }
    }
    assert!(checked >= 18, "{checked} settings");
}

/// A README config for this machine: its key, a CA that is not there, these listeners.
fn adapted(config: &str, key: &str, listen: &str) -> String {
    let mut table: toml::Table = toml::from_str(&config.replace("gp1…", key)).expect("the README's TOML");
    let acme = table.get_mut("acme").and_then(toml::Value::as_table_mut).expect("the README names a CA's customer");
    acme.insert("directory".to_owned(), "https://127.0.0.1:1/dir".into());
    if !listen.is_empty() {
        table.insert("listen".to_owned(), toml::from_str::<toml::Table>(listen).expect("listeners").into());
    }
    toml::to_string(&table).expect("TOML")
}

/// A directory with the two programs in its PATH, told where config and state are.
struct Machine {
    directory: PathBuf,
}

impl Machine {
    fn new(directory: &Path) -> Self {
        let binaries = build::binaries().expect("built");
        for (name, binary) in [("edge", &binaries.edge), ("home", &binaries.home)] {
            let script = directory.join(format!("gatepost-{name}"));
            let d = directory.display();
            let text =
                format!("#!/bin/sh\nexec {} --config {d}/{name}.toml --state {d}/{name} \"$@\"\n", binary.display());
            fs::write(&script, text).expect("written");
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        Self { directory: directory.to_owned() }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).expect("written");
    }

    fn command(&self, line: &str) -> Command {
        let path = format!("{}:{}", self.directory.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", path).current_dir(&self.directory);
        command
    }

    fn try_shell(&self, line: &str, input: &str) -> anyhow::Result<String> {
        use std::io::Write as _;
        let mut command = self.command(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Who asks for nothing reads nothing.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output()?;
        anyhow::ensure!(output.status.success(), "{line}: {}", said(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn shell(&self, line: &str, input: &str) -> String {
        self.try_shell(line, input).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs a line that serves; `exec` so that the process that is killed at the end is the program.
    fn run(&self, line: &str) -> Child {
        let line = line.split('#').next().unwrap_or_default().replace("&& ", "&& exec ");
        let log = fs::File::create(self.directory.join("run.log")).expect("a file");
        self.command(&line)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("sh runs")
    }
}

/// A process that is ended when its test ends: politely, so that it can end what it started.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let (Ok(None), Some(pid)) = (self.0.try_wait(), pid) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
