"""Verifies a delivery with the public Standard Webhooks library, as a team would.

usage: webhooks.py PROGRAM    (the built gateway; needs the package standardwebhooks)

Starts the gateway with one team whose URL is served here, posts a callback as Iluma does, reads the team's secret as the team does,
and has the library check what was delivered; then what was tampered with, which it must refuse.
"""

import base64
import hashlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

KEY = "a-key-of-the-team-lending"
TOKEN = "the-token-of-the-account"
PATIENCE = 20
delivered = queue.Queue()


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        delivered.put((body, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def configuration(port):
    return f"""
[server]
listen = "127.0.0.1:0"
[callbacks]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[upstream]
base_url = "http://127.0.0.1:9"
[state]
path = "state.db"
root_key = {{ env = "ROOT" }}
encryption_keys = [{{ id = "one", key = {{ env = "ENCRYPTION" }} }}]
[accounts.live]
api_key = {{ env = "ACCOUNT" }}
callback_token = {{ env = "CALLBACK" }}
[tenants.lending]
account = "live"
key_sha256 = ["{hashlib.sha256(KEY.encode()).hexdigest()}"]
callback_urls = {{ NAME_VALIDATOR_REQUEST = "http://127.0.0.1:{port}/kyc" }}
"""


def listening(gateway):
    for line in gateway.stderr:
        fields = json.loads(line).get("fields", {})
        if fields.get("message") == "listening":
            threading.Thread(target=gateway.stderr.read, daemon=True).start()
            return fields
    raise SystemExit("the gateway did not start")


def ask(url, headers, body=None):
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read()


def main(program):
    endpoint = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(configuration(endpoint.server_port))
        env = {"ROOT": "1a" * 32, "ENCRYPTION": "2b" * 32, "ACCOUNT": "iluma_live_0123456789", "CALLBACK": TOKEN}
        command = [program, "run", "--config", str(path)]
        gateway = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            check(listening(gateway))
        finally:
            gateway.terminate()
            gateway.wait(PATIENCE)


def check(addresses):
    basic = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()
    answer = ask(f"http://{addresses['server']}/_gateway/webhook_secret", {"authorization": basic})
    webhook = Webhook(json.loads(answer)["webhook_secret"])
    body = json.dumps({"id": "5abc", "status": "COMPLETED", "name": "né", "reference_id": "lending:loan-17"}).encode()
    headers = {"x-callback-token": TOKEN, "content-type": "application/json"}
    ask(f"http://{addresses['callbacks']}/callbacks/live/NAME_VALIDATOR_REQUEST", headers, body)

    got, headers = delivered.get(timeout=PATIENCE)
    assert webhook.verify(got, headers)["reference_id"] == "loan-17"
    for tampered, changed in [
        (got.replace(b"COMPLETED", b"FAILED"), {}),
        (got, {"webhook-id": "msg_other"}),
        (got, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}),
    ]:
        try:
            webhook.verify(tampered, headers | changed)
        except WebhookVerificationError:
            continue
        raise SystemExit("what was tampered with is verified")
    print("a delivery verifies with the standardwebhooks package, and nothing else does")


if __name__ == "__main__":
    main(*sys.argv[1:])
