"""Revokes a certificate (RFC 8555 §7.6) by its own key. Arguments: the directory, a PEM file that vouches for it.
Standard input: key and chain, PEM."""
import base64, json, ssl, sys, urllib.error, urllib.request

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

directory, root = sys.argv[1:]
text = sys.stdin.buffer.read()
key = serialization.load_pem_private_key(text[text.index(b"-----BEGIN PRIVATE"):], None)
leaf = x509.load_pem_x509_certificates(text)[0]
trust = ssl.create_default_context(cafile=root)


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def ask(url, body=None, method=None):
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": "application/jose+json"})
    return urllib.request.urlopen(request, context=trust, timeout=30)


public = key.public_key().public_numbers()
jwk = {"crv": "P-256", "kty": "EC", "x": b64(public.x.to_bytes(32, "big")), "y": b64(public.y.to_bytes(32, "big"))}
urls = json.load(ask(directory))
for _ in range(20):
    nonce = ask(urls["newNonce"], method="HEAD").headers["Replay-Nonce"]
    header = b64(json.dumps({"alg": "ES256", "jwk": jwk, "nonce": nonce, "url": urls["revokeCert"]}).encode())
    payload = b64(json.dumps({"certificate": b64(leaf.public_bytes(serialization.Encoding.DER)), "reason": 1}).encode())
    r, s = utils.decode_dss_signature(key.sign(f"{header}.{payload}".encode(), ec.ECDSA(hashes.SHA256())))
    signature = b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    body = json.dumps({"protected": header, "payload": payload, "signature": signature}).encode()
    try:
        ask(urls["revokeCert"], body)
        sys.exit(0)
    except urllib.error.HTTPError as error:
        problem = error.read().decode()
        # Some good nonces are refused on purpose.
        if "badNonce" not in problem:
            sys.exit(problem)
sys.exit("every nonce was refused")
