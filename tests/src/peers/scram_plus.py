# Submits a message with SCRAM-SHA-256-PLUS: the TLS and its channel binding are OpenSSL's, the rest is
# Python's standard library. Usage: scram_plus.py OPENSSL HOST:PORT CA LOGIN PASSWORD FROM TO <MESSAGE
import base64, hashlib, hmac, os, re, subprocess, sys

openssl, server, ca, login, password, sender, to = sys.argv[1:]
message = sys.stdin.buffer.read()
tls = subprocess.Popen(
    [openssl, "s_client", "-connect", server, "-CAfile", ca, "-verify_return_error", "-tls1_3", "-crlf", "-ign_eof",
     "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
binding = None


def line():
    text = tls.stdout.readline().decode()
    if not text:
        sys.exit("the connection ended")
    return text.rstrip("\r\n")


def reply():
    global binding
    while True:
        text = line()
        found = re.match(r"\s*Keying material: ([0-9A-F]+)$", text)
        if found:
            binding = bytes.fromhex(found.group(1))
        if re.match(r"\d{3} ", text):
            return text


def say(text, code):
    tls.stdin.write(text.encode() + b"\n")
    tls.stdin.flush()
    answer = reply()
    if not answer.startswith(code):
        sys.exit(f"{text!r} was answered {answer!r}")
    return answer[4:]


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


if not reply().startswith("220"):
    sys.exit("no greeting")
say("ehlo laptop.example", "250")
if binding is None:
    sys.exit("OpenSSL exported no keying material")
nonce = base64.b64encode(os.urandom(18)).decode()
header = "p=tls-exporter,,"
first = f"n={login},r={nonce}"
server_first = base64.b64decode(say("auth SCRAM-SHA-256-PLUS " + base64.b64encode((header + first).encode()).decode(), "334")).decode()
fields = dict(part.split("=", 1) for part in server_first.split(","))
salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
client_key = mac(salted, b"Client Key")
final = "c=" + base64.b64encode(header.encode() + binding).decode() + ",r=" + fields["r"]
whole = ",".join([first, server_first, final]).encode()
signature = mac(hashlib.sha256(client_key).digest(), whole)
proof = bytes(a ^ b for a, b in zip(client_key, signature))
last = base64.b64decode(say(base64.b64encode((final + ",p=" + base64.b64encode(proof).decode()).encode()).decode(), "334")).decode()
if last != "v=" + base64.b64encode(mac(mac(salted, b"Server Key"), whole)).decode():
    sys.exit("the server's signature is wrong")
say("", "235")
say(f"mail from:<{sender}>", "250")
say(f"rcpt to:<{to}>", "250")
say("data", "354")
for text in message.decode().split("\r\n")[:-1]:
    tls.stdin.write((("." if text.startswith(".") else "") + text).encode() + b"\n")
print(say(".", "250"))
tls.stdin.write(b"quit\n")
tls.stdin.flush()
tls.wait(10)
