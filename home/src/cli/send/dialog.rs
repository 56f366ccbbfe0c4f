//! `-bs`: SMTP on stdin and stdout, by the same machine as on every door. No TLS, no login: who may run the
//! command may leave mail.

use std::io::{self, Read, Write};

use gatepost_protocol::machine::{Machine, Output};
use gatepost_protocol::mail::address::{Domain, ForwardPath};
use gatepost_protocol::mail::envelope::Notify;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::sendmail::exit::{Exit, Trouble};
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_protocol::smtp::server::{Event, MailFrom, Profile, Server};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::host;
use gatepost_runtime::sendmail::{self, PIECE_OCTETS};

use super::letters::{Letter, Letters};
use crate::pickup::letter::Head;

/// MAIL to the end of data.
struct Transaction {
    from: MailFrom,
    recipients: Vec<String>,
    notify: Notify,
    letter: Option<Result<Letter, Trouble>>,
}

/// Speaks until QUIT or the end of stdin.
pub(super) fn run(letters: &Letters) -> Result<(), Trouble> {
    let clock = Clock::real();
    let profile = Profile {
        hostname: host::name(),
        starttls: false,
        mechanisms: Vec::new(),
        login_required: false,
        dsn: true,
        // A name at localhost is a bare one to the home, which knows its domains.
        qualify: Domain::parse("localhost").ok(),
        limits: Limits::default(),
    };
    let mut server = Server::new(profile, clock.now());
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut piece = vec![0; PIECE_OCTETS];
    let mut transaction = None;
    loop {
        match server.poll(clock.now()) {
            Output::Send(bytes) => {
                let written = stdout.write_all(&bytes).and_then(|()| stdout.flush());
                written.map_err(|error| sendmail::broken(&error))?;
            }
            Output::Event(event) => {
                if let Some(reply) = answer(event, &mut transaction, letters) {
                    server.answer(clock.now(), reply);
                }
            }
            Output::Wait { read: true, .. } => match stdin.read(&mut piece) {
                Ok(0) => server.end(clock.now()),
                Ok(count) => server.bytes(clock.now(), &piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble::new(Exit::IoError, format!("stdin: {error}"))),
            },
            Output::Close => return Ok(()),
            Output::Secure | Output::Wait { read: false, .. } => {
                return Err(Trouble::new(Exit::SystemError, "the dialog is stuck; this is a bug"));
            }
        }
    }
}

/// The reply to a question; nothing to a notice.
fn answer(event: Event, open: &mut Option<Transaction>, letters: &Letters) -> Option<Reply> {
    match event {
        Event::Connected => Some(Reply::greeting(&host::name())),
        Event::Sender(from) => {
            *open = Some(Transaction { from, recipients: Vec::new(), notify: Notify::default(), letter: None });
            Some(Reply::sender_ok())
        }
        Event::Recipient(recipient) => {
            let Some(transaction) = open else { return Some(Reply::local_error()) };
            // One wish for all: the last that is said.
            transaction.notify = recipient.notify;
            transaction.recipients.push(match recipient.path {
                ForwardPath::Postmaster => "postmaster".to_owned(),
                ForwardPath::Address(address) => address.to_string(),
            });
            Some(Reply::recipient_ok())
        }
        Event::Data => {
            let Some(transaction) = open else { return Some(Reply::local_error()) };
            let sender = transaction.from.reverse_path.to_string();
            let head = Head::new(sender, transaction.recipients.clone()).with_wishes(
                transaction.from.ret,
                transaction.notify,
                transaction.from.envid.clone(),
            );
            match letters.begin(&head) {
                Ok(letter) => {
                    transaction.letter = Some(Ok(letter));
                    Some(Reply::start_data())
                }
                Err(trouble) => {
                    eprintln!("{}", trouble.why);
                    Some(Reply::local_error())
                }
            }
        }
        Event::Body(bytes) => {
            if let Some(Transaction { letter: Some(kept), .. }) = open
                && let Ok(letter) = kept
                && let Err(trouble) = letter.write(&bytes)
            {
                *kept = Err(trouble);
            }
            None
        }
        Event::BodyEnd { .. } => Some(match open.take().and_then(|transaction| transaction.letter) {
            Some(Ok(letter)) => posted(letters.post(letter)),
            Some(Err(trouble)) => posted(Err(trouble)),
            None => Reply::local_error(),
        }),
        Event::Reset => {
            *open = None;
            None
        }
        Event::Auth { .. } | Event::AuthResponse(_) | Event::Hello { .. } | Event::Closing(_) => None,
    }
}

fn posted(outcome: Result<Reply, Trouble>) -> Reply {
    match outcome {
        // It lies in the drop, durably, and is taken from there.
        Ok(reply) if reply.class() == Class::Temporary => Reply::ok(),
        Ok(reply) => reply,
        Err(trouble) => {
            eprintln!("{}", trouble.why);
            Reply::local_error()
        }
    }
}
