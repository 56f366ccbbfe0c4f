//! The client's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), written apart
//! from the product's so that a shared mistake would show.

use std::num::NonZeroU32;

use anyhow::Context as _;
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gatepost_runtime::random;

use super::{Answer, Client};

/// Logs in; with `plus` bound to the TLS channel. Gives the last reply; the server's signature is checked.
pub fn login(client: &mut Client, login: &str, password: &str, plus: bool) -> anyhow::Result<Answer> {
    let binding = if plus { client.exporter()?.to_vec() } else { Vec::new() };
    login_bound(client, login, password, plus.then_some(binding.as_slice()))
}

/// The same with a channel binding of the caller's, which may be a wrong one.
pub fn login_bound(client: &mut Client, login: &str, password: &str, binding: Option<&[u8]>) -> anyhow::Result<Answer> {
    let (mechanism, header) = match binding {
        Some(_) => ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,"),
        None => ("SCRAM-SHA-256", "n,,"),
    };
    let nonce = BASE64.encode(random::bytes::<18>());
    let name = login.replace('=', "=3D").replace(',', "=2C");
    let first_bare = format!("n={name},r={nonce}");
    let answer = client.ask(&format!("AUTH {mechanism} {}", BASE64.encode(format!("{header}{first_bare}"))))?;
    if answer.code != 334 {
        return Ok(answer);
    }
    let server_first = String::from_utf8(BASE64.decode(answer.text())?)?;
    let field = |name: &str| server_first.split(',').find_map(|part| part.strip_prefix(name));
    let full_nonce = field("r=").context("no nonce")?;
    anyhow::ensure!(full_nonce.starts_with(&nonce) && full_nonce.len() > nonce.len(), "the server's nonce is wrong");
    let salt = BASE64.decode(field("s=").context("no salt")?)?;
    let iterations: NonZeroU32 = field("i=").context("no iterations")?.parse()?;

    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
    let client_key = mac(&salted, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, &client_key);
    let mut channel = header.as_bytes().to_vec();
    channel.extend_from_slice(binding.unwrap_or_default());
    let final_bare = format!("c={},r={full_nonce}", BASE64.encode(channel));
    let whole = format!("{first_bare},{server_first},{final_bare}");
    let signature = mac(stored_key.as_ref(), whole.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, bit)| key ^ bit).collect();

    let answer = client.ask(&BASE64.encode(format!("{final_bare},p={}", BASE64.encode(proof))))?;
    if answer.code != 334 {
        anyhow::ensure!(answer.code != 235, "the server never proved that it knows the password");
        return Ok(answer);
    }
    let expected = format!("v={}", BASE64.encode(mac(&mac(&salted, b"Server Key"), whole.as_bytes())));
    let said = BASE64.decode(answer.text())?;
    constant_time::verify_slices_are_equal(&said, expected.as_bytes())
        .map_err(|_| anyhow::anyhow!("the server's signature is wrong: {}", String::from_utf8_lossy(&said)))?;
    client.ask("")
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
}
