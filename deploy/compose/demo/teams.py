"""Three teams that use the gateway: the load of the profile `demo`, and their endpoints for callbacks.

usage: teams.py [--gateway URL ...] [--simulator URL] [--listen HOST:PORT] [--seconds N] [--rate N]

Everything that the dashboards show happens within a few seconds: misses, hits, shared pending requests, refusals, faults of
Iluma, callbacks that arrive and callbacks that become dead letters. Without --seconds it goes on for ever. Standard library only.
"""

import argparse
import base64
import itertools
import json
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BANK = "/v1.1/identity/bank_account_data_requests"
CFT = "/v1/identity/cft/individual_watchlist"
KTP = "/v1/identity/ktp_name/validations"
OCR = "/v1/identity/id_card_images"
# As in gateway.toml, which has their hashes.
KEYS = {team: f"igw_{team}_demo" for team in ("lending", "payments", "onboarding")}
PATIENCE = 10
received = []


class Endpoint(BaseHTTPRequestHandler):
    """Takes callbacks; whatever is posted to /down fails."""

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        received.append(self.path)
        self.send_response(500 if self.path.startswith("/down") else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def ask(url, team=None, body=None, headers=()):
    """Asks with that team's key; returns the status, whatever it is, and the body."""
    fields = {"content-type": "application/json", **dict(headers)}
    if team:
        fields["authorization"] = "Basic " + base64.b64encode(f"{KEYS.get(team, team)}:".encode()).decode()
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(url, data=data, headers=fields)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return None, b""


def upload(gateway, team, reference):
    """Posts a picture of an identity card that is none, as multipart."""
    lines = ["--x", 'content-disposition: form-data; name="reference_id"', "", reference, "--x"]
    lines += ['content-disposition: form-data; name="image"; filename="card.png"', "content-type: image/png", "", "none", "--x--", ""]
    ask(gateway + OCR, team, "\r\n".join(lines).encode(), {"content-type": "multipart/form-data; boundary=x"})


def bank(number, reference):
    return {"bank_account_number": f"{number:08}55"[-10:], "bank_code": "BCA", "reference_id": reference}


def pending(number, reference):
    return {"bank_account_number": f"{number:08}50"[-10:], "bank_code": "BCA", "reference_id": reference}


def use(gateway, simulator, turn):
    """One turn of everything; every fifth has faults, so that the error panels are not empty and the circuit stays closed."""
    # What nobody else asks, so that it costs a call of the team's quota.
    ask(gateway + BANK, "payments", bank(70_000_000 + turn, f"payout-{turn}"))
    for team in ("lending", "payments", "onboarding"):
        ask(gateway + BANK, team, bank(turn // 4, f"{team}-{turn}"))
        ask(gateway + BANK, team, pending(turn // 2, f"{team}-{turn}"))
    ask(gateway + CFT, "lending", {"given_name": f"CONTOH {turn // 3}"})
    ask(gateway + KTP, "lending", {"nik": f"{3171234567890000 + turn % 90}", "name": "CONTOH"})
    upload(gateway, "onboarding", f"card-{turn}")
    ask(gateway + "/bank/available_bank_codes", "lending")
    ask(gateway + "/health")
    if turn % 5 == 0:
        ask(gateway + KTP, "payments", {"nik": "3171234567890123", "name": "CONTOH"})
        ask(gateway + BANK, "a-wrong-key", bank(1, "none"))
        ask(gateway + BANK + "/bknv_unknown", "lending")
        ask(gateway + KTP, "lending", {"nik": "3171234567890123", "name": "CONTOH"}, {"x-sim-fault": "status=503"})
        ask(gateway + KTP, "lending", {"nik": "3171234567890124", "name": "CONTOH"}, {"x-sim-fault": "reset"})
    if simulator and turn % 20 == 0:
        ask(simulator + "/_sim/stats")


def collapse(gateway, turn):
    """Four equal questions at once, which make one call."""
    body = bank(50_000_000 + turn, "same")
    threads = [threading.Thread(target=ask, args=(gateway + BANK, "lending", body)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", action="append", default=[])
    parser.add_argument("--simulator")
    parser.add_argument("--listen", default="0.0.0.0:8088")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--rate", type=float, default=2, help="turns a second")
    args = parser.parse_args()
    host, port = args.listen.rsplit(":", 1)
    endpoint = ThreadingHTTPServer((host, int(port)), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    gateways = args.gateway or ["http://gateway:8080"]
    end = time.monotonic() + args.seconds
    for turn in itertools.count():
        started = time.monotonic()
        if started >= end:
            break
        gateway = gateways[turn % len(gateways)]
        use(gateway, args.simulator, turn)
        if turn % 3 == 0:
            collapse(gateway, turn)
        time.sleep(max(0, 1 / args.rate - (time.monotonic() - started)))
    print(f"{len(received)} callbacks received")


if __name__ == "__main__":
    main()
