//! The arguments of `sendmail`: those that mean something to us, those of other systems that are read and
//! let be, and what is wrong. As `getopt` takes them: grouped (`-ti`), a value attached (`-froot`) or next.

use crate::mail::envelope::{Notify, Ret};

/// Most recipients named by arguments.
pub const RECIPIENTS_MAX: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub mode: Mode,
    /// `-t`: recipients are in To, Cc and Bcc.
    pub from_header: bool,
    /// `-i`, `-oi`: a dot alone on a line is text.
    pub dot_is_text: bool,
    /// `-f`, `-r`: the sender as written; empty or `<>` is nobody.
    pub sender: Option<String>,
    /// `-F`: the sender's full name.
    pub full_name: Option<String>,
    /// `-R`: how much a bounce returns.
    pub ret: Option<Ret>,
    /// `-N`: what the sender wants to hear of.
    pub notify: Notify,
    /// `-V`: the envelope's id.
    pub envid: Option<String>,
    /// `-v`: say what became of it.
    pub verbose: bool,
    /// `--config`, `--state`, `--home`: ours, not sendmail's.
    pub config: Option<String>,
    /// See [`Invocation::config`].
    pub state: Option<String>,
    /// See [`Invocation::config`].
    pub home: Option<String>,
    /// Recipients as written.
    pub recipients: Vec<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Send what stdin holds.
    #[default]
    Send,
    /// `-bs`: SMTP on stdin and stdout.
    Dialog,
    /// `-bp`, `mailq`: list the queue.
    Queue,
    /// `-bi`, `newaliases`, `-q`: there is nothing to do, and that is well.
    Nothing,
    /// `--help`.
    Help,
}

/// Flags of others that stand alone.
const LET_BE: &str = "cGgImnsUx";
/// Flags of others that take a value. `-B8BITMIME` among them: whether a message is of 8 bits is seen.
const LET_BE_WITH_VALUE: &str = "ABCDhLMOpXd";

/// Reads the arguments after the program's name. `called` is that name: `mailq` and `newaliases` are commands of
/// their own. An error is a text for people.
pub fn parse<'a>(called: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<Invocation, String> {
    let mut invocation = Invocation::default();
    match called {
        "mailq" => invocation.mode = Mode::Queue,
        "newaliases" => invocation.mode = Mode::Nothing,
        _ => {}
    }
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument {
            "--" => break,
            long if long.starts_with("--") => invocation.long(long, &mut arguments)?,
            flags if flags.len() > 1 && flags.starts_with('-') => invocation.flags(&flags[1..], &mut arguments)?,
            recipient => invocation.recipient(recipient)?,
        }
    }
    for recipient in arguments {
        invocation.recipient(recipient)?;
    }
    Ok(invocation)
}

impl Invocation {
    fn recipient(&mut self, text: &str) -> Result<(), String> {
        if self.recipients.len() == RECIPIENTS_MAX {
            return Err(format!("more than {RECIPIENTS_MAX} recipients"));
        }
        self.recipients.push(text.to_owned());
        Ok(())
    }

    fn long<'a>(&mut self, written: &str, more: &mut impl Iterator<Item = &'a str>) -> Result<(), String> {
        let (name, value) = written.split_once('=').map_or((written, None), |(name, value)| (name, Some(value)));
        let slot = match name {
            "--config" => &mut self.config,
            "--state" => &mut self.state,
            "--home" => &mut self.home,
            "--help" => {
                self.mode = Mode::Help;
                return Ok(());
            }
            _ => return Err(format!("unknown option {name}")),
        };
        *slot = Some(value.or_else(|| more.next()).ok_or_else(|| format!("{name} needs a value"))?.to_owned());
        Ok(())
    }

    /// One group of flags, without its hyphen.
    fn flags<'a>(&mut self, group: &str, more: &mut impl Iterator<Item = &'a str>) -> Result<(), String> {
        let mut rest = group.chars();
        while let Some(flag) = rest.next() {
            let attached = rest.as_str();
            match flag {
                't' => self.from_header = true,
                'i' => self.dot_is_text = true,
                'v' => self.verbose = true,
                // Their value is attached or not there.
                'q' => {
                    self.mode = Mode::Nothing;
                    return Ok(());
                }
                'e' => return Ok(()),
                flag if LET_BE.contains(flag) => {}
                flag if "bfFNorRV".contains(flag) || LET_BE_WITH_VALUE.contains(flag) => {
                    let value = if attached.is_empty() { more.next() } else { Some(attached) };
                    return self.valued(flag, value.ok_or_else(|| format!("-{flag} needs a value"))?);
                }
                _ => return Err(format!("unknown flag -{flag}")),
            }
        }
        Ok(())
    }

    fn valued(&mut self, flag: char, value: &str) -> Result<(), String> {
        match flag {
            'b' => self.mode = mode(value)?,
            'f' | 'r' => self.sender = Some(without_brackets(value).to_owned()),
            'F' => self.full_name = Some(value.to_owned()),
            'N' => self.notify = notify(value)?,
            // `-oi`, among `-oem`, `-odb`, `-o7`, which are let be.
            'o' => self.dot_is_text |= value == "i",
            'R' => {
                self.ret = Some(match value.to_ascii_lowercase().as_str() {
                    "full" => Ret::Full,
                    "hdrs" => Ret::Headers,
                    _ => return Err("-R is full or hdrs".to_owned()),
                });
            }
            'V' => self.envid = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

fn mode(value: &str) -> Result<Mode, String> {
    match value {
        "m" | "a" => Ok(Mode::Send),
        "s" => Ok(Mode::Dialog),
        "p" => Ok(Mode::Queue),
        "i" => Ok(Mode::Nothing),
        _ => Err(format!("-b{value} is not offered; the daemon is started by: run")),
    }
}

fn notify(value: &str) -> Result<Notify, String> {
    let wrong = || "-N is never, or any of success,failure,delay".to_owned();
    if value.eq_ignore_ascii_case("never") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.trim().to_ascii_lowercase().as_str() {
            "success" => success = true,
            "failure" => failure = true,
            "delay" => delay = true,
            _ => return Err(wrong()),
        }
    }
    Ok(Notify::On { success, failure, delay })
}

fn without_brackets(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(line: &str) -> Result<Invocation, String> {
        parse("sendmail", line.split(' ').filter(|word| !word.is_empty()))
    }

    #[test]
    fn what_programs_say_is_understood() {
        let to = |recipients: &[&str]| recipients.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let empty = Invocation::default;
        let root = || Some("root".to_owned());
        for (line, expected) in [
            // cron (vixie), cronie, PHP, bsd-mailx, git send-email, mutt, logwatch.
            (
                "-i -FCronDaemon -B8BITMIME -oem root",
                Invocation {
                    dot_is_text: true,
                    full_name: Some("CronDaemon".into()),
                    recipients: to(&["root"]),
                    ..empty()
                },
            ),
            ("-t -i", Invocation { from_header: true, dot_is_text: true, ..empty() }),
            ("-ti -f root", Invocation { from_header: true, dot_is_text: true, sender: root(), ..empty() }),
            (
                "-froot -oi -oem -odi a b",
                Invocation { dot_is_text: true, sender: root(), recipients: to(&["a", "b"]), ..empty() },
            ),
            ("-f <> -- -x", Invocation { sender: Some(String::new()), recipients: to(&["-x"]), ..empty() }),
            ("-r <root> -v a", Invocation { sender: root(), verbose: true, recipients: to(&["a"]), ..empty() }),
            ("-bs", Invocation { mode: Mode::Dialog, ..empty() }),
            ("-bp", Invocation { mode: Mode::Queue, ..empty() }),
            ("-q15m", Invocation { mode: Mode::Nothing, ..empty() }),
            ("-bm -d0 -C /etc/x -O a=b -n -m -h 3 a", Invocation { recipients: to(&["a"]), ..empty() }),
            (
                "-R hdrs -Nfailure,delay -V id a",
                Invocation {
                    ret: Some(Ret::Headers),
                    notify: Notify::On { success: false, failure: true, delay: true },
                    envid: Some("id".into()),
                    recipients: to(&["a"]),
                    ..empty()
                },
            ),
            (
                "--state /x --config=/y a",
                Invocation { state: Some("/x".into()), config: Some("/y".into()), recipients: to(&["a"]), ..empty() },
            ),
        ] {
            assert_eq!(parsed(line), Ok(expected), "{line}");
        }
        assert_eq!(parse("mailq", []).map(|found| found.mode), Ok(Mode::Queue));
        assert_eq!(parse("newaliases", []).map(|found| found.mode), Ok(Mode::Nothing));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (line, says) in [
            ("-f", "-f needs a value"),
            ("-bd", "not offered"),
            ("-Rall a", "full or hdrs"),
            ("-N sometimes a", "never"),
            ("-Z", "unknown flag -Z"),
            ("--fly", "unknown option --fly"),
            ("--state", "--state needs a value"),
        ] {
            assert!(parsed(line).expect_err(line).contains(says), "{line}");
        }
        let many = vec!["a"; RECIPIENTS_MAX];
        assert!(parse("sendmail", many.iter().copied()).is_ok());
        assert!(parse("sendmail", many.iter().copied().chain(["b"])).is_err());
    }

    proptest! {
        #[test]
        fn any_words_are_taken_or_refused(words in proptest::collection::vec("-?[a-zA-Z@<>=-]{0,4}", 0..6)) {
            let _ = parse("sendmail", words.iter().map(String::as_str));
        }
    }
}
