"""Drives Thunderbird as a person would who types an address and a password, and nothing else: its settings come from the
web. Then it sends a message. Speaks Marionette, its own remote control; prints what was set up, as JSON.

Arguments: Marionette's port, the address, the password, whom to write to.
"""

import json
import socket
import sys
import time

SCRIPT = """
const [address, password, recipient, done] = arguments;
(async () => {
  const load = (path) => ChromeUtils.importESModule(`resource:///modules/${path}.sys.mjs`);
  const { FetchConfig } = load("accountcreation/FetchConfig");
  const { AccountConfig } = load("accountcreation/AccountConfig");
  const { CreateInBackend } = load("accountcreation/CreateInBackend");
  const { MailServices } = load("MailServices");
  const window = Services.wm.getMostRecentWindow("mail:3pane");
  const domain = address.split("@")[1];
  const config = await FetchConfig.fromISP(domain, address, new window.AbortController().signal);
  AccountConfig.replaceVariables(config, "Alice", address, password);
  config.rememberPassword = true;
  const account = await CreateInBackend.createAccountInBackend(config);
  const incoming = account.incomingServer;
  incoming.loginAtStartUp = false;
  incoming.doBiff = false;
  const identity = account.defaultIdentity;
  const outgoing = MailServices.outgoingServer.getServerByIdentity(identity);
  const told = {
    incoming: [incoming.type, incoming.hostname, incoming.port, incoming.socketType, incoming.username],
    outgoing: [outgoing.serverURI.spec, outgoing.socketType, outgoing.username],
  };
  const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
  fields.from = address;
  fields.to = recipient;
  fields.subject = "set up by autoconfig alone";
  fields.body = "hello\\r\\n";
  const params = Cc["@mozilla.org/messengercompose/composeparams;1"].createInstance(Ci.nsIMsgComposeParams);
  params.composeFields = fields;
  params.identity = identity;
  params.format = Ci.nsIMsgCompFormat.PlainText;
  params.type = Ci.nsIMsgCompType.New;
  identity.doFcc = false;
  const compose = MailServices.compose.initCompose(params, window, null);
  await compose.sendMsg(Ci.nsIMsgCompDeliverMode.Now, identity, account.key, null, null);
  return told;
})().then((told) => done({ told }), (error) => done({ error: String(error), stack: String(error.stack) }));
"""


class Marionette:
    def __init__(self, port):
        for _ in range(600):
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=300)
                break
            except OSError:
                time.sleep(0.1)
        self.number = 0
        self.read()

    def read(self):
        length = b""
        while not length.endswith(b":"):
            length += self.take(1)
        return json.loads(self.take(int(length[:-1])))

    def take(self, count):
        octets = b""
        while len(octets) < count:
            more = self.socket.recv(count - len(octets))
            if not more:
                raise EOFError("Thunderbird is gone")
            octets += more
        return octets

    def ask(self, verb, **parameters):
        self.number += 1
        text = json.dumps([0, self.number, verb, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(text), text))
        _, _, error, answer = self.read()
        if error:
            raise RuntimeError(f"{verb}: {error}")
        return answer


port, *arguments = sys.argv[1:]
thunderbird = Marionette(int(port))
thunderbird.ask("WebDriver:NewSession")
thunderbird.ask("Marionette:SetContext", value="chrome")
thunderbird.ask("WebDriver:SetTimeouts", script=240000)
answer = thunderbird.ask("WebDriver:ExecuteAsyncScript", script=SCRIPT, args=arguments)["value"]
print(json.dumps(answer))
sys.exit("error" in answer)
