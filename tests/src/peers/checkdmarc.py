# What checkdmarc says of a domain, by one name server.
# Usage: checkdmarc.py HOST PORT DOMAIN mail|parked; prints JSON.
import json, sys

import checkdmarc
from dns.nameserver import Do53Nameserver

host, port, domain, kind = sys.argv[1:]
servers = [Do53Nameserver(host, int(port))]
print(json.dumps(checkdmarc.check_domains([domain], parked=kind == "parked", nameservers=servers, bimi_selector=None)))
