"""Runs dkimpy's own tests and writes down every message they verify: the message, what its DNS says, what dkimpy found.

Usage: python3 collect_dkimpy.py UNPACKED-SOURCE-OF-DKIMPY > dkimpy-vectors.json
Messages and texts are written as one letter an octet. Times in signatures are those of the run.
"""

import json
import re
import sys
import unittest

sys.path.insert(0, sys.argv[1])
import dkim  # noqa: E402
from dkim.tests import test_arc, test_dkim, test_dkim_ed25519, test_dkim_rsavariants  # noqa: E402

vectors = []
seen = set()
current = [""]


def letters(octets):
    return octets.decode("latin-1")


def watched(verify, method):
    def verify_and_note(self, *arguments, dnsfunc):
        dns = {}

        def ask(name, timeout=5):
            text = dnsfunc(name, timeout=timeout)
            if text:
                dns[letters(name).rstrip(".")] = letters(text if isinstance(text, bytes) else text.encode())
            return text

        found = None
        try:
            found = verify(self, *arguments, dnsfunc=ask)
            return found
        finally:
            expected = letters(found[0]) if method == "arc" else "pass" if found else "no pass"
            vector = {"test": current[0], "method": method, "dns": dns, "message": letters(self.raw),
                      "expected": expected}
            # Another run of a test is the same but for its time and what was made with it.
            key = re.sub(r"t=\d+|b=[A-Za-z0-9+/=\\rn ]+", "", json.dumps({**vector, "test": ""}, sort_keys=True))
            if key not in seen:
                seen.add(key)
                vectors.append(vector)

    return verify_and_note


def keeping(set_message):
    def set_and_keep(self, message):
        self.raw = message or b""
        return set_message(self, message)

    return set_and_keep


class Runner(unittest.TestResult):
    def startTest(self, test):
        current[0] = test.id().removeprefix("dkim.tests.")
        super().startTest(test)


dkim.DomainSigner.set_message = keeping(dkim.DomainSigner.set_message)
dkim.DKIM.verify = watched(dkim.DKIM.verify, "dkim")
dkim.ARC.verify = watched(dkim.ARC.verify, "arc")
result = Runner()
for module in [test_dkim, test_dkim_ed25519, test_dkim_rsavariants, test_arc]:
    unittest.defaultTestLoader.loadTestsFromModule(module).run(result)
if not result.wasSuccessful():
    sys.exit("\n".join(trace for _, trace in result.failures + result.errors))
json.dump(vectors, sys.stdout, indent=1, sort_keys=True)
print()
