# What parsedmarc reads in a message that carries a report; prints JSON.
import json, sys

import parsedmarc

read = parsedmarc.parse_report_email(sys.stdin.buffer.read(), offline=True, always_use_local_files=True)
print(json.dumps(read, default=str))
