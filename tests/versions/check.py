"""Asks two versions of the gateway that share one Redis, and takes a node from the older to the newer one.

usage: check.py OLDER NEWER    (two built gateways; tests/versions/run builds the older one)
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gateway import CALLBACK, KEY, OPERATOR, TIMEOUT, ask, basic, bearer, endpoint, running, simulated  # noqa: E402

ACCOUNT = "iluma_live_0123456789"
BANK = "/v1.2/identity/bank_account_data_requests"


def until(what, so):
    end = time.monotonic() + TIMEOUT
    while not so():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain: {what}")
        time.sleep(0.02)


class Node:
    """A running node, as its team and its operators see it."""

    def __init__(self, addresses):
        self.server, self.admin = (f"http://{addresses[name]}" for name in ("server", "admin"))
        self.callbacks = f"http://{addresses['callbacks']}"

    def as_team(self, path, body=None, key=KEY, headers=None):
        return ask(self.server + path, body, headers=basic(key) | (headers or {}))

    def as_operator(self, path, body=None, method=None):
        status, _, answer = ask(self.admin + path, body, method, bearer(OPERATOR))
        assert status < 300, (path, status, answer)
        return json.loads(answer)

    def bank(self, number, reference):
        status, headers, body = self.as_team(BANK, {"bank_account_number": number, "bank_code": "BCA", "reference_id": reference})
        answer = json.loads(body)
        assert status == 200 and answer["reference_id"] == reference, (status, answer)
        return headers.get("cache-status", ""), answer

    def calls(self):
        """The month's upstream calls by all nodes' ledgers."""
        return sum(row["upstream_calls"] for row in self.as_operator("/v1/usage")["rows"])


@contextmanager
def redis():
    """Runs a Redis, and yields its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            until("Redis listens", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            yield f"redis://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(TIMEOUT)


def main(older, newer):
    to, delivered = endpoint()
    team = f'callback_urls = {{ NAME_VALIDATOR_REQUEST = "{to}" }}'
    with redis() as url, simulated(newer, "--answer-at-once") as iluma, tempfile.TemporaryDirectory() as folders:
        state = 'redis = {{ url = {{ env = "REDIS" }} }}\n[node]\nname = "{}"'

        def node(program, name):
            folder = Path(folders) / name
            folder.mkdir(exist_ok=True)
            return running(program, iluma, ACCOUNT, team, state.format(name), folder, {"REDIS": url})

        with node(newer, "newer") as (_, addresses):
            new = Node(addresses)
            with node(older, "older") as (_, addresses):
                asked = check_side_by_side(Node(addresses), new, iluma, delivered)
            with node(newer, "older") as (_, addresses):
                check_upgraded(Node(addresses), new, asked, iluma)


def check_side_by_side(old, new, iluma, delivered):
    """Returns the number of calls that Iluma got."""
    for number, (first, second) in enumerate([(old, new), (new, old)]):
        account = f"12345678{number}1"
        status, answer = first.bank(account, "first")
        assert "hit" not in status, status
        status, again = second.bank(account, "second")
        assert "hit" in status and again["id"] == answer["id"], (status, again)
        callback(second, answer["id"], delivered)
        check_key(first, second)
        check_purge(first, second, account)
    assert requests(iluma) == 4, requests(iluma)
    for node in (old, new):
        until("the ledger has all calls", lambda node=node: node.calls() == 4)
    print("two versions share answers, callbacks, keys, purges, erasures and the ledger over one Redis", flush=True)
    return 4


def callback(node, record, delivered):
    """A callback that this node gets reaches the team once for each of its references."""
    body = {"id": record, "status": "COMPLETED", "reference_id": "lending:first"}
    status, _, answer = ask(f"{node.callbacks}/callbacks/live/NAME_VALIDATOR_REQUEST", body, headers={"x-callback-token": CALLBACK})
    assert status == 200, answer
    got = [json.loads(delivered.get(timeout=TIMEOUT)[0]) for _ in range(2)]
    assert sorted((body["id"], body["reference_id"]) for body in got) == [(record, "first"), (record, "second")], got


def check_key(first, second):
    """A key that one node makes works on the other, until the first revokes it."""
    key = first.as_operator("/v1/tenants/lending/keys", {"note": "two versions"})
    own = "/_gateway/usage"
    assert second.as_team(own, key=key["key"])[0] == 200
    first.as_operator(f"/v1/tenants/lending/keys/{key['id']}", method="DELETE")
    assert second.as_team(own, key=key["key"])[0] == 401


def check_purge(first, second, account):
    """What one node purges or erases, the other asks Iluma for."""
    first.as_operator("/v1/erase", {"bank_code": "BCA", "bank_account_number": account})
    status, _ = second.bank(account, "third")
    assert "hit" not in status, status
    first.as_operator("/v1/cache/purge", {"all": True})
    status, _, _ = second.as_team(
        BANK, {"bank_account_number": account, "bank_code": "BCA"}, headers={"cache-control": "only-if-cached"}
    )
    assert status == 504, status


def check_upgraded(upgraded, new, asked, iluma):
    """The newer version goes on with the older one's database."""
    for node in (upgraded, new):
        until("the ledger has all calls", lambda node=node: node.calls() == asked)
    status, answer = upgraded.bank("1234567841", "fourth")
    status, again = new.bank("1234567841", "fifth")
    assert "hit" in status and again["id"] == answer["id"], (status, again)
    assert requests(iluma) == asked + 1, requests(iluma)
    names = sorted(node["name"] for node in new.as_operator("/v1/nodes")["nodes"])
    assert names == ["newer", "older"], names
    print("the newer version goes on with the database of the older one", flush=True)


def requests(iluma):
    """The number of bank questions that Iluma got."""
    status, _, body = ask(f"{iluma}/_sim/stats")
    assert status == 200, body
    return json.loads(body)["routes"]["bank"]["requests"]


if __name__ == "__main__":
    main(*sys.argv[1:])
