//! Letters into the drop: begun, bounded, committed, and asked for where that may be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gatepost_protocol::mail::reply::{Enhanced, Reply};
use gatepost_protocol::sendmail::exit::{Exit, Trouble};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, DurableError};
use gatepost_runtime::maildrop::{Leaving, Maildrop};
use gatepost_runtime::{control, host, sendmail};
use serde_json::json;

use crate::config::{self, Config};
use crate::pickup::letter::Head;

/// Largest message where the config can't be read by who calls.
const MESSAGE_OCTETS_MAX: u64 = 50 * 1024 * 1024;
/// Disk left free, in octets: the home needs some to go on.
const DISK_RESERVE_OCTETS: u64 = 50 * 1024 * 1024;

/// The drop, as a command sees it.
pub(super) struct Letters {
    state: PathBuf,
    drop: Maildrop,
    octets_max: u64,
}

/// A letter being written.
pub(super) struct Letter {
    leaving: Leaving,
    octets: u64,
    octets_max: u64,
}

impl Letters {
    /// The drop of this config, or of the default where it can't be read: users need not see the config.
    pub(super) fn at(config: &Path, state: Option<&Path>) -> Result<Self, Trouble> {
        let (state, octets_max) = if let Ok(config) = Config::read(config, state) {
            (config.state, config.message_octets_max)
        } else {
            let state = Config::state_path(config, state).unwrap_or_else(|_| config::STATE.into());
            (state, MESSAGE_OCTETS_MAX)
        };
        let drop = Maildrop::of(&state);
        // Its owner may come before the home ever ran.
        if fs::metadata(&state).is_ok_and(|found| found.uid() == host::uid()) && !drop.folder().exists() {
            drop.prepare(Clock::real().unix()).map_err(|error| kept_out(&error))?;
        }
        Ok(Self { state, drop, octets_max })
    }

    /// Begins a letter.
    pub(super) fn begin(&self, head: &Head) -> Result<Letter, Trouble> {
        let free = durable::free_octets(self.drop.folder()).map_err(|error| kept_out(&error))?;
        if free < DISK_RESERVE_OCTETS {
            return Err(Trouble::new(Exit::TemporaryFailure, "the disk has less than 50 MiB left"));
        }
        let mut leaving = self.drop.leave().map_err(|error| kept_out(&error))?;
        leaving.write(&head.line().map_err(|error| sendmail::broken(&error))?).map_err(|error| kept_out(&error))?;
        Ok(Letter { leaving, octets: 0, octets_max: self.octets_max })
    }

    /// Leaves it, durably; gives what the running home says to it, or what it will be taken as.
    pub(super) fn post(&self, letter: Letter) -> Result<Reply, Trouble> {
        let asks = self.may_ask();
        let name = letter.leaving.commit(asks).map_err(|error| kept_out(&error))?;
        let answer = if asks { control::ask(&self.state, &json!({ "letter": name.to_string() })).ok() } else { None };
        // Whoever can't be asked takes it later.
        Ok(answer.as_ref().and_then(reply).unwrap_or_else(|| Reply::accepted(&name.to_string())))
    }

    fn may_ask(&self) -> bool {
        let uid = host::uid();
        let socket = fs::metadata(self.state.join(control::SOCKET));
        socket.is_ok_and(|socket| uid == 0 || socket.uid() == uid)
    }
}

impl Letter {
    /// Appends, within the bound of a message.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.octets += bytes.len() as u64;
        if self.octets > self.octets_max {
            let reply = Reply::too_big(self.octets_max);
            return Err(Trouble::new(Exit::of(&reply), reply));
        }
        self.leaving.write(bytes).map_err(|error| kept_out(&error))
    }
}

/// `{"code": 550, "text": "5.1.1 …"}`.
fn reply(answer: &serde_json::Value) -> Option<Reply> {
    let code = u16::try_from(answer["code"].as_u64()?).ok()?;
    let text = answer["text"].as_str()?;
    let (enhanced, text) = Enhanced::split(text).map_or((None, text), |(enhanced, text)| (Some(enhanced), text));
    Some(Reply::new(code, enhanced, vec![text.to_owned()]))
}

fn kept_out(error: &DurableError) -> Trouble {
    sendmail::kept_out("gatepost-home", error)
}
