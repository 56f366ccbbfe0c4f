//! The local socket behind `status`, `queue`, `spool`…: a unix socket in the state directory (0600),
//! one JSON request a line, one JSON answer a line, one request a connection. Only the program's own
//! user and root are heard.

use std::fs::{self, File, Permissions};
use std::future::Future;
use std::io::{self, BufRead, BufReader as BlockingReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::shutdown::Signal;

/// Name of the socket inside the state directory.
pub const SOCKET: &str = "control.sock";
/// Longest request or answer.
pub const LINE_OCTETS_MAX: usize = 64 * 1024 * 1024;
/// Requests at once; more wait.
const REQUESTS_MAX: usize = 8;
/// A request must be here, or an answer taken, within this time.
const LINE_WAIT_MAX: Duration = Duration::from_mins(1);
/// Rest after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Longest path of a unix socket (the system has room for 108 octets, one of them the last NUL).
const SOCKET_PATH_OCTETS_MAX: usize = 107;

/// Why asking failed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("it is not running (no answer at {0})")]
    NotRunning(String),
    /// It answered with an error, for people.
    #[error("{0}")]
    Refused(String),
    /// The socket broke.
    #[error("the running program did not answer: {0}")]
    Broken(#[from] io::Error),
}

/// Serves until the end. `handle` gets each request; its `Err` is a text for people. A socket left by a
/// crash is replaced: the caller holds the lock of the state directory.
pub async fn serve<F, Fut>(state: &Path, mut signal: Signal, handle: F) -> io::Result<()>
where
    F: Fn(Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, String>> + Send + 'static,
{
    let path = state.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = {
        let short = Short::of(&path)?;
        UnixListener::bind(&short.path)?
    };
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let handle = Arc::new(handle);
    let places = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = signal.ended() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (handle, places) = (handle.clone(), places.clone());
        tokio::spawn(async move {
            // Whoever waits for a place has given us nothing to hold yet. It is never closed.
            let Ok(_place) = places.acquire_owned().await else { return };
            if let Err(error) = answer(stream, handle.as_ref()).await {
                tracing::debug!(%error, "a command broke off");
            }
        });
    }
    fs::remove_file(&path)
}

async fn answer<F, Fut>(mut stream: UnixStream, handle: &F) -> io::Result<()>
where
    F: Fn(Value) -> Fut,
    Fut: Future<Output = Result<Value, String>>,
{
    // The socket's mode says the same; this holds even in the moment before it is set.
    let ours = rustix::process::getuid().as_raw();
    let theirs = stream.peer_cred()?.uid();
    if theirs != ours && theirs != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut line = Vec::new();
    let mut reader = BufReader::new((&mut stream).take(LINE_OCTETS_MAX as u64 + 1));
    timed(reader.read_until(b'\n', &mut line)).await?;
    let result = if line.len() > LINE_OCTETS_MAX {
        Err("the request is too long".to_owned())
    } else {
        match serde_json::from_slice(&line) {
            Ok(request) => {
                drop(line);
                handle(request).await
            }
            Err(error) => Err(format!("the request is not understood: {error}")),
        }
    };
    let answer = match result {
        Ok(value) => json!({ "ok": value }),
        Err(why) => json!({ "error": why }),
    };
    let mut answer = answer.to_string();
    if answer.len() >= LINE_OCTETS_MAX {
        answer = json!({ "error": "the answer is too long; ask for less" }).to_string();
    }
    answer.push('\n');
    timed(stream.write_all(answer.as_bytes())).await
}

async fn timed<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LINE_WAIT_MAX, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks the program that runs on this state directory. Waits as long as the answer takes.
pub fn ask(state: &Path, request: &Value) -> Result<Value, ControlError> {
    let path = state.join(SOCKET);
    let connected = Short::of(&path).and_then(|short| BlockingStream::connect(&short.path));
    let mut stream = connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NotRunning(path.display().to_string())
        }
        _ => ControlError::Broken(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    })?;
    let mut line = request.to_string();
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    BlockingReader::new(stream.take(LINE_OCTETS_MAX as u64)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(ControlError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut answer: Value = serde_json::from_slice(&answer).map_err(io::Error::from)?;
    match answer.get_mut("error") {
        Some(why) => Err(ControlError::Refused(why.as_str().unwrap_or("it said no more").to_owned())),
        None => Ok(answer.get_mut("ok").map(Value::take).unwrap_or_default()),
    }
}

/// A name for a socket that the system takes: a deep directory is reached by its descriptor.
struct Short {
    path: PathBuf,
    // Open while the name is used.
    _directory: Option<File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Self { path: path.to_owned(), _directory: None });
        };
        if path.as_os_str().len() <= SOCKET_PATH_OCTETS_MAX {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let directory = File::open(parent)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::{JoinHandle, spawn_blocking};

    use super::*;
    use crate::shutdown::Shutdown;

    /// A program that doubles numbers, and is there when this returns.
    async fn start(state: &Path) -> (Shutdown, JoinHandle<io::Result<()>>) {
        let (shutdown, signal) = Shutdown::new();
        let running = tokio::spawn({
            let state = state.to_owned();
            async move {
                serve(&state, signal, async |request: Value| match request.as_i64() {
                    Some(number) => Ok(json!(number * 2)),
                    None => Err("give a number".to_owned()),
                })
                .await
            }
        });
        while asked(state, json!(0)).await.is_err() {
            assert!(!running.is_finished());
        }
        (shutdown, running)
    }

    async fn asked(state: &Path, request: Value) -> Result<Value, ControlError> {
        let state = state.to_owned();
        spawn_blocking(move || ask(&state, &request)).await.unwrap()
    }

    #[tokio::test]
    async fn requests_are_answered_or_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let (shutdown, running) = start(directory.path()).await;
        assert_eq!(asked(directory.path(), json!(21)).await.unwrap(), json!(42));
        assert_eq!(asked(directory.path(), json!("x")).await.unwrap_err().to_string(), "give a number");
        let mode = fs::metadata(directory.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        shutdown.drain();
        assert_eq!(asked(directory.path(), json!(1)).await.unwrap(), json!(2), "it answers while it drains");
        shutdown.end();
        running.await.unwrap().unwrap();
        let error = asked(directory.path(), json!(1)).await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning(_)), "{error}");
    }

    #[tokio::test]
    async fn a_socket_left_by_a_crash_is_replaced_and_means_not_running() {
        let directory = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(directory.path().join(SOCKET)).unwrap());
        let error = asked(directory.path(), json!(1)).await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning(_)), "{error}");
        let (_shutdown, _running) = start(directory.path()).await;
    }

    #[tokio::test]
    async fn a_deep_state_directory_is_no_trouble() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(150));
        fs::create_dir(&deep).unwrap();
        let (_shutdown, _running) = start(&deep).await;
        assert_eq!(asked(&deep, json!(4)).await.unwrap(), json!(8));
    }

    #[tokio::test]
    async fn garbage_is_answered_and_a_silent_client_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (_shutdown, _running) = start(directory.path()).await;
        let _silent = UnixStream::connect(directory.path().join(SOCKET)).await.unwrap();
        let mut stream = UnixStream::connect(directory.path().join(SOCKET)).await.unwrap();
        stream.write_all(b"{nonsense\n").await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(heard.starts_with("{\"error\":\"the request is not understood"), "{heard}");
    }

    #[tokio::test]
    async fn several_are_answered_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let (_shutdown, signal) = Shutdown::new();
        let present = Arc::new(AtomicUsize::new(0));
        let barrier = Arc::new(tokio::sync::Barrier::new(3));
        tokio::spawn({
            let (state, present) = (directory.path().to_owned(), present.clone());
            async move {
                let handle = move |_| {
                    let (barrier, present) = (barrier.clone(), present.clone());
                    async move {
                        barrier.wait().await;
                        present.fetch_add(1, Ordering::SeqCst);
                        Ok(Value::Null)
                    }
                };
                serve(&state, signal, handle).await
            }
        });
        while !directory.path().join(SOCKET).exists() {
            tokio::task::yield_now().await;
        }
        let ask = || asked(directory.path(), json!(1));
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        for answer in [one, two, three] {
            answer.unwrap();
        }
        assert_eq!(present.load(Ordering::SeqCst), 3);
    }
}
