"""Web hosts of MTA-STS policies, one a domain: policy_host.py FOLDER CERTIFICATE KEY ADDRESS. FOLDER/DOMAIN is what is
answered at mta-sts.DOMAIN; its first line is how: a status, or `huge`, `endless`, `moved`, `html`. Each request is a line
in FOLDER/asked."""
import http.server, os, ssl, sys

folder, certificate, key, address = sys.argv[1:5]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        host = self.headers.get("Host", "").split(":")[0]
        with open(os.path.join(folder, "asked"), "a") as asked:
            asked.write(host + self.path + "\n")
        path = os.path.join(folder, host.removeprefix("mta-sts."))
        if self.path != "/.well-known/mta-sts.txt" or not os.path.exists(path):
            return self.answer(404, b"", "text/plain")
        with open(path, "rb") as file:
            how, body = file.read().split(b"\n", 1)
        how = how.decode()
        if how == "moved":
            self.send_response(301)
            self.send_header("Location", "https://mta-sts.elsewhere.test/.well-known/mta-sts.txt")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif how == "huge":
            self.answer(200, body + b"mx: x\n" * 1_000_000, "text/plain")
        elif how == "endless":
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x: y\n" * 1000)
            except OSError:
                self.close_connection = True
        elif how == "html":
            self.answer(200, body, "text/html")
        else:
            self.answer(int(how), body, "text/plain; charset=utf-8")

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


server = http.server.ThreadingHTTPServer((address, 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
