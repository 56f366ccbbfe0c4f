//! The verb `Spool`, served to the home whose mail it is: list, fetch, acknowledge, drop.

use bytes::Bytes;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::spool::{SpoolDeleted, SpoolDropped, SpoolEnd, SpoolRequest};
use gatepost_runtime::tunnel::{Stream, StreamError};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::Spool;
use super::record::{RecordError, RecordReader};

/// Octets read from the disk at a time.
const PIECE_OCTETS: usize = 256 * 1024;

/// Serves one exchange for one home.
pub async fn serve(spool: Spool, home: String, request: SpoolRequest, mut stream: Stream) {
    let answered = match request {
        SpoolRequest::List => stream.send(&spool.list(&home)).await,
        SpoolRequest::Fetch(transfer) => fetch(&spool, &home, transfer, &mut stream).await,
        SpoolRequest::Page { after } => page(&spool, &home, after, &mut stream).await,
        SpoolRequest::Drop(transfer) => drop_for_good(&spool, &home, transfer, &mut stream).await,
        SpoolRequest::Acknowledge(transfer) => acknowledge(&spool, &home, transfer, &mut stream).await,
    };
    match answered {
        Ok(()) => stream.finish().await,
        // The home asks again when it is back.
        Err(error) => info!(home, %error, "a spool request broke off"),
    }
}

async fn fetch(spool: &Spool, home: &str, transfer: TransferId, stream: &mut Stream) -> Result<(), StreamError> {
    let opened = {
        let (spool, home) = (spool.clone(), home.to_owned());
        spawn_blocking(move || spool.fetch(&home, transfer)).await
    };
    let reader = match opened {
        Ok(Some(Ok(reader))) => reader,
        Ok(None) => return stream.send(&SpoolEnd::Unknown).await,
        Ok(Some(Err(error))) => return unreadable(spool, home, transfer, error, stream).await,
        Err(_) => return stream.send(&SpoolEnd::Unreadable).await,
    };
    let octets = reader.octets();
    let mut next = spawn_blocking(move || read(reader));
    loop {
        match next.await {
            Ok((reader, Ok(piece))) if !piece.is_empty() => {
                // Reads on while this piece is on its way.
                next = spawn_blocking(move || read(reader));
                stream.send_data(piece).await?;
                stream.flush().await?;
            }
            Ok((_, Ok(_))) => return stream.send(&SpoolEnd::Whole { octets }).await,
            Ok((_, Err(error))) => return unreadable(spool, home, transfer, error, stream).await,
            Err(_) => return stream.send(&SpoolEnd::Unreadable).await,
        }
    }
}

fn read(mut reader: RecordReader) -> (RecordReader, Result<Bytes, RecordError>) {
    // A small message takes no large buffer; a piece of nothing finds the end.
    let mut piece = vec![0; usize::try_from(reader.left()).unwrap_or(usize::MAX).min(PIECE_OCTETS)];
    let read = reader.read(&mut piece);
    let piece = read.map(|count| {
        piece.truncate(count);
        Bytes::from(piece)
    });
    (reader, piece)
}

/// Sets the record aside if its bytes are wrong; a disk that merely fails to answer may recover.
async fn unreadable(
    spool: &Spool,
    home: &str,
    transfer: TransferId,
    error: RecordError,
    stream: &mut Stream,
) -> Result<(), StreamError> {
    warn!(home, %transfer, %error, "a sealed message can't be read");
    if !matches!(error, RecordError::Disk(_)) {
        let (spool, home) = (spool.clone(), home.to_owned());
        let _ = spawn_blocking(move || spool.set_aside(&home, transfer, &error)).await;
    }
    stream.send(&SpoolEnd::Unreadable).await
}

async fn acknowledge(spool: &Spool, home: &str, transfer: TransferId, stream: &mut Stream) -> Result<(), StreamError> {
    let deleted = {
        let (spool, home) = (spool.clone(), home.to_owned());
        spawn_blocking(move || spool.acknowledge(&home, transfer)).await
    };
    match deleted {
        Ok(Ok(())) => {
            info!(home, %transfer, "handed over from the spool");
            stream.send(&SpoolDeleted).await
        }
        Ok(Err(error)) => {
            warn!(home, %transfer, %error, "a sealed message could not be deleted");
            Err(StreamError::Ended)
        }
        Err(_) => Err(StreamError::Ended),
    }
}

async fn page(spool: &Spool, home: &str, after: String, stream: &mut Stream) -> Result<(), StreamError> {
    let listed = {
        let (spool, home) = (spool.clone(), home.to_owned());
        spawn_blocking(move || spool.page(&home, &after)).await
    };
    stream.send(&listed.map_err(|_| StreamError::Ended)?).await
}

async fn drop_for_good(
    spool: &Spool,
    home: &str,
    transfer: TransferId,
    stream: &mut Stream,
) -> Result<(), StreamError> {
    let dropped = {
        let (spool, home) = (spool.clone(), home.to_owned());
        spawn_blocking(move || spool.drop_for_good(&home, transfer)).await
    };
    match dropped {
        Ok(Ok(existed)) => {
            if existed {
                warn!(home, %transfer, "a sealed message was dropped for good, as its owner asked");
            }
            stream.send(&SpoolDropped { existed }).await
        }
        Ok(Err(error)) => {
            warn!(home, %transfer, %error, "a sealed message could not be dropped");
            Err(StreamError::Ended)
        }
        Err(_) => Err(StreamError::Ended),
    }
}
