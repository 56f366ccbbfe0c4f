//! Streaming seal to the home's public key. Holds the key of one message only, never a private key:
//! what was sealed can't be opened again here.

use hpke::aead::AeadCtxS;
use hpke::inout::InOutBuf;
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, OpModeS, Serializable};
use thiserror::Error;

use super::container::{
    Aead, CHUNK_HEADER_OCTETS, CHUNK_OCTETS_MAX, Header, Kdf, Kem, PUBLIC_KEY_OCTETS, TAG_OCTETS, aad, info, key_id,
};
use crate::tunnel::transfer::TransferId;

/// Why nothing can be sealed to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// It is no public key of ours.
    #[error("the home's sealing key is malformed ({octets} octets, {PUBLIC_KEY_OCTETS} expected)")]
    Key {
        /// Its length.
        octets: usize,
    },
}

/// Seals one message, chunk by chunk.
pub struct Sealer {
    context: AeadCtxS<Aead, Kdf, Kem>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// Begins a sealed message: its header, to be written first, and what seals its chunks.
    pub fn new(
        public_key: &[u8],
        transfer: TransferId,
        sealed_unix_s: i64,
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Self), SealError> {
        let malformed = SealError::Key { octets: public_key.len() };
        if public_key.len() != PUBLIC_KEY_OCTETS {
            return Err(malformed);
        }
        let recipient = key_id(public_key);
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(public_key).map_err(|_| malformed)?;
        let info = info(transfer, sealed_unix_s, &recipient);
        let (encapsulated, context) =
            hpke::setup_sender_with_rng::<Aead, Kdf, Kem>(&OpModeS::Base, &key, &info, rng).map_err(|_| malformed)?;
        let header = Header { transfer, sealed_unix_s, recipient, encapsulated: encapsulated.to_bytes().to_vec() };
        Ok((header.to_bytes(), Self { context }))
    }

    /// Appends `plaintext` to `into` as sealed chunks; more will follow. Best given
    /// [`CHUNK_OCTETS_MAX`] at a time.
    pub fn seal(&mut self, plaintext: &[u8], into: &mut Vec<u8>) {
        for piece in plaintext.chunks(CHUNK_OCTETS_MAX) {
            self.chunk(piece, false, into);
        }
    }

    /// Appends the end of the message (it may be empty) to `into`: now it is whole.
    pub fn finish(mut self, plaintext: &[u8], into: &mut Vec<u8>) {
        let tail = match plaintext.len() % CHUNK_OCTETS_MAX {
            0 => plaintext.len().min(CHUNK_OCTETS_MAX),
            tail => tail,
        };
        let (front, tail) = plaintext.split_at(plaintext.len() - tail);
        self.seal(front, into);
        self.chunk(tail, true, into);
    }

    fn chunk(&mut self, plaintext: &[u8], last: bool, into: &mut Vec<u8>) {
        // Fits: a chunk is at most CHUNK_OCTETS_MAX.
        let octets = u32::try_from(plaintext.len() + TAG_OCTETS).unwrap_or(u32::MAX);
        into.reserve(CHUNK_HEADER_OCTETS + plaintext.len() + TAG_OCTETS);
        into.push(u8::from(last));
        into.extend_from_slice(&octets.to_be_bytes());
        let start = into.len();
        into.extend_from_slice(plaintext);
        let tag = self
            .context
            .seal_inout_detached(InOutBuf::from(&mut into[start..]), aad(last))
            .expect("fails only after 2^64 chunks, or for one over AES-GCM's bound of 64 GiB");
        into.extend_from_slice(&tag.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use hpke::aead::AeadCtxR;
    use hpke::{Kem as _, OpModeR};

    use super::super::container::{ContainerError, Part, Reader};
    use super::*;

    /// Counts up: good enough to be repeatable, for tests only.
    struct Counting(u8);

    impl hpke::rand_core::TryRng for Counting {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            self.0 = self.0.wrapping_add(1);
            Ok(u32::from(self.0))
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            self.try_next_u32().map(u64::from)
        }

        fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
            for byte in into {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
            Ok(())
        }
    }

    impl hpke::rand_core::TryCryptoRng for Counting {}

    type PrivateKey = <Kem as hpke::Kem>::PrivateKey;

    fn keys() -> (PrivateKey, Vec<u8>) {
        let (private, public) = Kem::derive_keypair(&[7; 32]);
        (private, public.to_bytes().to_vec())
    }

    fn sealed(public: &[u8], pieces: &[&[u8]], end: &[u8]) -> Vec<u8> {
        let (mut bytes, mut sealer) =
            Sealer::new(public, TransferId([3; 16]), 1_795_176_000, &mut Counting(0)).expect("a good key");
        for piece in pieces {
            sealer.seal(piece, &mut bytes);
        }
        sealer.finish(end, &mut bytes);
        bytes
    }

    fn opened(private: &PrivateKey, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut buffer = BytesMut::from(bytes);
        let mut reader = Reader::default();
        let mut context: Option<AeadCtxR<Aead, Kdf, Kem>> = None;
        let mut plaintext = Vec::new();
        while let Some(part) = reader.take(&mut buffer).map_err(|error| error.to_string())? {
            match part {
                Part::Header(header) => {
                    let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&header.encapsulated)
                        .map_err(|error| error.to_string())?;
                    context = Some(
                        hpke::setup_receiver(&OpModeR::Base, private, &encapsulated, &header.info())
                            .map_err(|error| error.to_string())?,
                    );
                }
                Part::Chunk(chunk) => {
                    let context = context.as_mut().expect("the header comes first");
                    let piece = context.open(&chunk.ciphertext, chunk.aad()).map_err(|error| error.to_string())?;
                    plaintext.extend_from_slice(&piece);
                }
            }
        }
        reader.end(&buffer).map_err(|error| error.to_string())?;
        Ok(plaintext)
    }

    #[test]
    fn the_private_key_opens_what_was_sealed() {
        let (private, public) = keys();
        let big = vec![b'x'; 3 * CHUNK_OCTETS_MAX];
        for (pieces, end) in [
            (&[][..], &b""[..]),
            (&[], b"all of it"),
            (&[&b"hello, "[..], b"", b"world"], b""),
            (&[&big], &big),
            (&[&big[..=CHUNK_OCTETS_MAX]], &big[..CHUNK_OCTETS_MAX]),
        ] {
            let whole = [&pieces.concat(), end].concat();
            assert_eq!(opened(&private, &sealed(&public, pieces, end)), Ok(whole));
        }
    }

    #[test]
    fn another_key_does_not() {
        let (_, public) = keys();
        let (other, _) = Kem::derive_keypair(&[8; 32]);
        assert!(opened(&other, &sealed(&public, &[], b"secret")).is_err());
    }

    #[test]
    fn every_flipped_octet_is_noticed() {
        let (private, public) = keys();
        let good = sealed(&public, &[b"one"], b"two");
        // Each octet of header front and chunks, and some of the encapsulated key.
        let places = (0..66).chain((66..good.len()).step_by(37)).chain(good.len() - 60..good.len());
        for place in places {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(opened(&private, &bad).is_err(), "octet {place}");
        }
    }

    #[test]
    fn truncation_reordering_and_additions_are_noticed() {
        let (private, public) = keys();
        let good = sealed(&public, &[b"one", b"two"], b"end");
        let chunk = CHUNK_HEADER_OCTETS + 3 + TAG_OCTETS;
        let start = good.len() - 3 * chunk;
        for cut in [0, start, start + chunk, good.len() - chunk, good.len() - 1] {
            assert_eq!(opened(&private, &good[..cut]), Err(ContainerError::Truncated.to_string()), "at {cut}");
        }
        let mut swapped = good.clone();
        swapped[start..start + 2 * chunk].rotate_left(chunk);
        assert!(opened(&private, &swapped).is_err());
        // The second chunk marked as the last one, and the rest dropped.
        let mut shortened = good[..start + 2 * chunk].to_vec();
        shortened[start + chunk] = 1;
        assert!(opened(&private, &shortened).is_err());
        let longer = [&good[..], b"x"].concat();
        assert_eq!(opened(&private, &longer), Err(ContainerError::Trailing.to_string()));
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let (_, public) = keys();
        for octets in [0, 32, PUBLIC_KEY_OCTETS - 1] {
            let error = Sealer::new(&public[..octets], TransferId([0; 16]), 0, &mut Counting(0)).expect_err("short");
            assert_eq!(error, SealError::Key { octets });
        }
    }
}
