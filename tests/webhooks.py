"""Verifies a delivery with the public Standard Webhooks library, as a team would.

usage: webhooks.py PROGRAM    (the built gateway; needs the package standardwebhooks)

Starts the gateway with one team whose URL is served here, posts a callback as Iluma does, reads the team's secret as the team does,
and has the library check what was delivered; then what was tampered with, which it must refuse.
"""

import json
import sys

from gateway import CALLBACK, KEY, TIMEOUT, ask, basic, endpoint, running
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def main(program):
    url, delivered = endpoint()
    team = f'callback_urls = {{ NAME_VALIDATOR_REQUEST = "{url}" }}'
    with running(program, "http://127.0.0.1:9", "iluma_live_0123456789", team) as (_, addresses):
        check(addresses, delivered)


def check(addresses, delivered):
    status, _, answer = ask(f"http://{addresses['server']}/_gateway/webhook_secret", headers=basic(KEY))
    assert status == 200, answer
    webhook = Webhook(json.loads(answer)["webhook_secret"])
    body = json.dumps({"id": "5abc", "status": "COMPLETED", "name": "né", "reference_id": "lending:loan-17"}).encode()
    headers = {"x-callback-token": CALLBACK, "content-type": "application/json"}
    status, _, answer = ask(f"http://{addresses['callbacks']}/callbacks/live/NAME_VALIDATOR_REQUEST", body, headers=headers)
    assert status == 200, answer

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
