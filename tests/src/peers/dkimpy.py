# Verifies every DKIM signature and the ARC chain of a message by dkimpy, with keys from one name server.
# Usage: dkimpy.py HOST PORT <MESSAGE; prints JSON.
import json, sys

import dkim, dns.resolver

resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port, resolver.lifetime = [sys.argv[1]], int(sys.argv[2]), 10


def text(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    try:
        answer = resolver.resolve(name.rstrip(".") + ".", "TXT")
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return None
    return b"".join(answer[0].strings)


message = sys.stdin.buffer.read()
judged = dkim.DKIM(message)
count = sum(1 for name, _ in judged.headers if name.lower() == b"dkim-signature")
found = []
for index in range(count):
    judge = dkim.DKIM(message)
    try:
        good, why = judge.verify(idx=index, dnsfunc=text), None
    except dkim.DKIMException as error:
        good, why = False, str(error)
    tags = {name.decode(): value.decode() for name, value in judge.signature_fields.items()}
    found.append({"good": good, "why": why, "domain": tags.get("d"), "selector": tags.get("s"), "algorithm": tags.get("a")})
cv, results, why = dkim.ARC(message).verify(dnsfunc=text)
print(json.dumps({"dkim": found, "arc": (cv or b"none").decode(), "sets": len(results or []), "why": str(why)}))
