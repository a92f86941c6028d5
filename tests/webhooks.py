"""Verifies a delivery with the public Standard Webhooks library, as a team would.

usage: webhooks.py PROGRAM    (the built gateway; needs the package standardwebhooks)

Starts the gateway with one team whose URL is served here, posts a callback as Iluma does, reads the team's secret as the team does,
and has the library check what was delivered; then what was tampered with, which it must refuse.
"""

import base64
import json
import queue
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

from gateway import CALLBACK, KEY, TIMEOUT, running
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

delivered = queue.Queue()


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        delivered.put((body, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def ask(url, headers, body=None):
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        return answer.read()


def main(program):
    endpoint = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    team = f'callback_urls = {{ NAME_VALIDATOR_REQUEST = "http://127.0.0.1:{endpoint.server_port}/kyc" }}'
    with running(program, "http://127.0.0.1:9", "iluma_live_0123456789", team) as (_, addresses):
        check(addresses)


def check(addresses):
    basic = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()
    answer = ask(f"http://{addresses['server']}/_gateway/webhook_secret", {"authorization": basic})
    webhook = Webhook(json.loads(answer)["webhook_secret"])
    body = json.dumps({"id": "5abc", "status": "COMPLETED", "name": "né", "reference_id": "lending:loan-17"}).encode()
    headers = {"x-callback-token": CALLBACK, "content-type": "application/json"}
    ask(f"http://{addresses['callbacks']}/callbacks/live/NAME_VALIDATOR_REQUEST", headers, body)

    got, headers = delivered.get(timeout=TIMEOUT)
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
