"""A gateway of one team, as a process, for tests with other people's tools."""

import base64
import contextlib
import hashlib
import json
import queue
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

KEY = "a-key-of-the-team-lending"
OPERATOR = "a-token-of-the-operators"
CALLBACK = "the-token-of-the-account"
TIMEOUT = 20


def configuration(upstream, team, state):
    return f"""
[server]
listen = "127.0.0.1:0"
[callbacks]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
token = {{ env = "ADMIN" }}
[upstream]
base_url = "{upstream}"
[state]
path = "state.db"
root_key = {{ env = "ROOT" }}
encryption_keys = [{{ id = "one", key = {{ env = "ENCRYPTION" }} }}]
{state}
[accounts.live]
api_key = {{ env = "ACCOUNT" }}
callback_token = {{ env = "CALLBACK" }}
[tenants.lending]
account = "live"
key_sha256 = ["{hashlib.sha256(KEY.encode()).hexdigest()}"]
{team}
"""


def ask(url, body=None, method=None, headers=None):
    """Returns status, headers and body of an answer, whatever its status. A body that is not bytes is sent as JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def basic(key):
    return {"authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def endpoint():
    """Starts a team's endpoint. Returns its URL, and the queue of what it gets: body, and headers by their names in lower case."""
    delivered = queue.Queue()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            delivered.put((body, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/kyc", delivered


def drain(stream):
    threading.Thread(target=stream.read, daemon=True).start()


def listening(gateway):
    for line in gateway.stderr:
        if not line.startswith("{"):
            raise SystemExit(f"the gateway did not start: {line}{gateway.stderr.read()}")
        fields = json.loads(line).get("fields", {})
        if fields.get("message") == "listening":
            drain(gateway.stderr)
            return fields
    raise SystemExit("the gateway did not start")


@contextlib.contextmanager
def simulated(program, *options):
    """Runs a simulated Iluma, and yields its URL."""
    command = [program, "simulate", "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for line in process.stdout:
            words = [word for word in line.split() if word.startswith("http://127.0.0.1:")]
            if words:
                drain(process.stdout)
                yield words[0].rstrip("/,.;")
                return
        raise SystemExit("the simulator did not start")
    finally:
        process.terminate()
        process.wait(TIMEOUT)


@contextlib.contextmanager
def running(program, upstream, account, team="", state="", folder=None, secrets=None):
    """Runs a gateway in front of `upstream`, with the account's key and further lines of the team and of the state, which may name
    `secrets`. Yields its folder, `folder` or one that is removed at the end, and the addresses of its listeners by name."""
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(configuration(upstream, team, state))
        env = {"ROOT": "1a" * 32, "ENCRYPTION": "2b" * 32, "ACCOUNT": account, "CALLBACK": CALLBACK, "ADMIN": OPERATOR}
        env |= secrets or {}
        command = [program, "run", "--config", str(path)]
        gateway = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            yield Path(folder), listening(gateway)
            assert gateway.poll() is None, "the gateway ended"
        finally:
            gateway.terminate()
            gateway.wait(TIMEOUT)
