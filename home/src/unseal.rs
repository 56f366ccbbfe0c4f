//! Opening what an edge sealed while the home was away: the only such code in the product. The private
//! key never leaves `keys/` here. Nothing is acted upon before the last chunk has shown that
//! nothing is missing.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use gatepost_protocol::seal::container::{Aead, ContainerError, Header, Kdf, Kem, Part, Reader, key_id};
use gatepost_protocol::tunnel::frame::{self, Frame, FrameError, RECORD_OCTETS_MAX};
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::durable::{self, DurableError};
use gatepost_runtime::random;
use hpke::aead::AeadCtxR;
use hpke::inout::InOutBuf;
use hpke::{Deserializable, Kem as _, OpModeR, Serializable};
use thiserror::Error;
use zeroize::Zeroizing;

/// Where the private key lies inside the state directory.
const KEY: &str = "keys/seal.key";

type PrivateKey = <Kem as hpke::Kem>::PrivateKey;

/// Why there is no key to open with.
#[derive(Debug, Error)]
pub enum SealKeyError {
    /// The file can't be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{} holds no sealing key: restore it from a backup (without it, mail that waits sealed at an edge can't be opened)",
        path.display()
    )]
    Malformed {
        /// Which.
        path: PathBuf,
    },
}

/// Why something sealed can't be opened.
#[derive(Debug, Error)]
pub enum UnsealError {
    /// Its form.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Sealed to a key that is not ours.
    #[error("it is sealed to another key than this home's")]
    OtherKey,
    /// Another message than the one asked for.
    #[error("it is transfer {found}, not the one asked for")]
    OtherTransfer {
        /// What its header says.
        found: TransferId,
    },
    /// Not what was sealed, or not all of it.
    #[error("it was changed since it was sealed, or was never sealed by whom it claims")]
    Forged,
    /// What was sealed is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What was sealed ends within a frame.
    #[error("what was sealed is not whole")]
    Partial,
}

/// The home's sealing key pair.
pub struct SealKey {
    private: PrivateKey,
    public: Vec<u8>,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey([secret])")
    }
}

impl SealKey {
    /// Loads the key from the state directory, or makes one on first start. Blocking.
    pub fn load_or_create(state: &Path) -> Result<Self, SealKeyError> {
        let path = state.join(KEY);
        match fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => {
                let bytes = STANDARD.decode(text.trim()).map(Zeroizing::new).ok();
                let private = bytes.and_then(|bytes| PrivateKey::from_bytes(&bytes).ok());
                private.map(Self::of).ok_or(SealKeyError::Malformed { path })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let seed = Zeroizing::new(random::bytes::<32>());
                let (private, _) = Kem::derive_keypair(&*seed);
                let text = Zeroizing::new(STANDARD.encode(private.to_bytes()) + "\n");
                if let Some(folder) = path.parent() {
                    durable::create_directory(folder)?;
                }
                durable::write_file(&path, text.as_bytes())?;
                Ok(Self::of(private))
            }
            Err(source) => Err(SealKeyError::Read { path, source }),
        }
    }

    /// The public half, for the directory.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Begins to open one sealed message, which must be this transfer.
    pub fn open(&self, transfer: TransferId) -> Opening<'_> {
        Opening {
            key: self,
            transfer,
            reader: Reader::default(),
            sealed: BytesMut::new(),
            context: None,
            plain: BytesMut::new(),
        }
    }

    fn of(private: PrivateKey) -> Self {
        let public = Kem::sk_to_pk(&private).to_bytes().to_vec();
        Self { private, public }
    }
}

/// A sealed message being opened, as its bytes come. Buffers one chunk and one frame at most.
pub struct Opening<'a> {
    key: &'a SealKey,
    transfer: TransferId,
    reader: Reader,
    sealed: BytesMut,
    context: Option<AeadCtxR<Aead, Kdf, Kem>>,
    plain: BytesMut,
}

impl fmt::Debug for Opening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opening({})", self.transfer)
    }
}

impl Opening<'_> {
    /// The next sealed bytes; then take frames until there is none.
    pub fn add(&mut self, sealed: &[u8]) {
        self.sealed.extend_from_slice(sealed);
    }

    /// The next whole frame of what was sealed; `None` if more bytes are needed. Not to be believed before
    /// [`Opening::end`].
    pub fn frame(&mut self) -> Result<Option<Frame>, UnsealError> {
        loop {
            if let Some(frame) = frame::take(&mut self.plain, RECORD_OCTETS_MAX)? {
                return Ok(Some(frame));
            }
            match self.reader.take(&mut self.sealed)? {
                None => return Ok(None),
                Some(Part::Header(header)) => self.context = Some(self.begin(&header)?),
                Some(Part::Chunk(mut chunk)) => {
                    let Some(context) = &mut self.context else { return Err(UnsealError::Forged) };
                    let aad = chunk.aad();
                    let octets = chunk.ciphertext.len().saturating_sub(gatepost_protocol::seal::container::TAG_OCTETS);
                    let tag = chunk.ciphertext.split_off(octets);
                    let tag = hpke::aead::AeadTag::from_bytes(&tag).map_err(|_| UnsealError::Forged)?;
                    context
                        .open_inout_detached(InOutBuf::from(&mut chunk.ciphertext[..]), aad, &tag)
                        .map_err(|_| UnsealError::Forged)?;
                    if self.plain.is_empty() {
                        self.plain = chunk.ciphertext;
                    } else {
                        self.plain.extend_from_slice(&chunk.ciphertext);
                    }
                }
            }
        }
    }

    /// That was all: is it whole?
    pub fn end(self) -> Result<(), UnsealError> {
        self.reader.end(&self.sealed)?;
        if self.plain.is_empty() { Ok(()) } else { Err(UnsealError::Partial) }
    }

    fn begin(&self, header: &Header) -> Result<AeadCtxR<Aead, Kdf, Kem>, UnsealError> {
        if header.transfer != self.transfer {
            return Err(UnsealError::OtherTransfer { found: header.transfer });
        }
        if header.recipient != key_id(&self.key.public) {
            return Err(UnsealError::OtherKey);
        }
        let encapsulated =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(&header.encapsulated).map_err(|_| UnsealError::Forged)?;
        hpke::setup_receiver(&OpModeR::Base, &self.key.private, &encapsulated, &header.info())
            .map_err(|_| UnsealError::Forged)
    }
}

#[cfg(test)]
pub mod tests {
    use std::os::unix::fs::PermissionsExt;

    use gatepost_protocol::seal::writer::Sealer;
    use gatepost_protocol::tunnel::frame::{data_header, put_record};

    use super::*;

    /// Seals these bytes as an edge does.
    pub fn seal(public: &[u8], transfer: TransferId, plain: &[u8]) -> Vec<u8> {
        let (mut bytes, sealer) =
            Sealer::new(public, transfer, 1_800_000_000, &mut random::System).expect("a good key");
        sealer.finish(plain, &mut bytes);
        bytes
    }

    const TRANSFER: TransferId = TransferId([3; 16]);

    fn frames() -> Vec<u8> {
        let mut frames = BytesMut::new();
        put_record(&mut frames, &"hello".to_owned(), 100).expect("small");
        for size in [1usize, 40_000, 65_536, 65_536] {
            frames.extend_from_slice(&data_header(size));
            frames.extend_from_slice(&vec![7; size]);
        }
        frames.to_vec()
    }

    fn open(key: &SealKey, sealed: &[u8], cut: usize) -> Result<Vec<usize>, UnsealError> {
        let mut opening = key.open(TRANSFER);
        let mut sizes = Vec::new();
        for piece in sealed.chunks(cut) {
            opening.add(piece);
            while let Some(frame) = opening.frame()? {
                sizes.push(match frame {
                    Frame::Record(body) | Frame::Data(body) => body.len(),
                });
            }
        }
        opening.end()?;
        Ok(sizes)
    }

    #[test]
    fn opens_what_was_sealed_however_it_comes_in() {
        let state = tempfile::tempdir().expect("a folder");
        let key = SealKey::load_or_create(state.path()).expect("made");
        let sealed = seal(key.public(), TRANSFER, &frames());
        for cut in [1000, 65_536, usize::MAX] {
            assert_eq!(open(&key, &sealed, cut).expect("good"), [6, 1, 40_000, 65_536, 65_536]);
        }
    }

    #[test]
    fn anything_else_is_noticed() {
        let state = tempfile::tempdir().expect("a folder");
        let key = SealKey::load_or_create(state.path()).expect("made");
        let sealed = seal(key.public(), TRANSFER, &frames());
        for cut in [0, 100, 5000, sealed.len() - 1] {
            assert!(open(&key, &sealed[..cut], 4096).is_err(), "cut at {cut}");
        }
        let mut flipped = sealed.clone();
        flipped[5000] ^= 1;
        assert!(matches!(open(&key, &flipped, 4096), Err(UnsealError::Forged)));
        let other = seal(key.public(), TransferId([4; 16]), &frames());
        assert!(matches!(open(&key, &other, 4096), Err(UnsealError::OtherTransfer { .. })));
        let half = seal(key.public(), TRANSFER, &frames()[..50_000]);
        assert!(matches!(open(&key, &half, 4096), Err(UnsealError::Partial)));
        let elsewhere = tempfile::tempdir().expect("a folder");
        let stranger = SealKey::load_or_create(elsewhere.path()).expect("made");
        assert!(matches!(open(&stranger, &sealed, 4096), Err(UnsealError::OtherKey)));
    }

    #[test]
    fn the_key_stays_and_is_for_its_owner_only() {
        let state = tempfile::tempdir().expect("a folder");
        let first = SealKey::load_or_create(state.path()).expect("made");
        let second = SealKey::load_or_create(state.path()).expect("read");
        assert_eq!(first.public(), second.public());
        let path = state.path().join(KEY);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o077, 0);
        fs::write(&path, "nonsense").expect("written");
        let error = SealKey::load_or_create(state.path()).expect_err("no key").to_string();
        assert!(error.contains("backup"), "{error}");
    }
}
