# Judges a message as a receiver does, by pyspf, dkimpy and authheaders, with one name server; authheaders looks at the
# topmost signature only, so each is judged as the topmost in its turn.
# Usage: receiver.py HOST PORT CLIENT MAIL_FROM HELO <MESSAGE; prints JSON, a list of results a signature.
import json, re, sys

import authheaders, dns.resolver

host, port, client, mail_from, helo = sys.argv[1:]
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port, resolver.lifetime = [host], int(port), 10
# All three ask by this one.
dns.resolver.default_resolver = resolver

SIGNATURE = re.compile(rb"^DKIM-Signature:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)
message = sys.stdin.buffer.read()
header, body = message.split(b"\r\n\r\n", 1)
header += b"\r\n"
signatures = SIGNATURE.findall(header)
judged = []
for nth in range(max(len(signatures), 1)):
    one = header
    for above in signatures[:nth]:
        one = one.replace(above, b"", 1)
    results = authheaders.authenticate_message(
        one + b"\r\n" + body, "judge.example", spf=True, dkim=True, arc=True, dmarc=True, ip=client, mail_from=mail_from, helo=helo
    )
    found = re.findall(r"; *(spf|dkim|arc|dmarc)=([a-z]+)", results)
    judged.append({**dict(found), "said": results})
print(json.dumps(judged))
