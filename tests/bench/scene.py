"""A gateway with a simulated Iluma on loopback, for the measurements that are written in Python."""

import base64
import hashlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import threading
import time

KEY = "a-key-of-the-team-lending"
BASIC = base64.b64encode(f"{KEY}:".encode()).decode()
ACCOUNT_KEY = "iluma_live_0123456789"
BANK = "/v1.1/identity/bank_account_data_requests"
CFT = "/v1/identity/cft/individual_watchlist"
KTP = "/v1/identity/ktp_name/validations"
MIB = 1 << 20
local = threading.local()


def bank(number):
    """Returns the request about a bank account that has this number, and so its own cache entry."""
    return BANK, {"bank_account_number": f"{number:08}11", "bank_code": "BCA", "reference_id": "x"}


def ktp(_=0):
    return KTP, {"nik": "3171234567890123", "name": "CONTOH"}


def team(number):
    """Returns the table of a further team, whose key is `key-of-team-N`."""
    hashed = hashlib.sha256(f"key-of-team-{number}".encode()).hexdigest()
    return f'[tenants.team-{number:04}]\naccount = "live"\nkey_sha256 = ["{hashed}"]\n'


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def on_core(core):
    """Returns the command that runs another one on this core, where the machine has several."""
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 else []


class Scene:
    """A simulator and a gateway, and a Redis if one is wanted; they end with the block."""

    def __init__(self, program, folder, memory="256MiB", redis=False, before=(), cores=False, server="", disk=None, teams=1):
        self.redis, self.server, self.admin, self.processes = free_port(), free_port(), free_port(), []
        self.simulator = free_port()
        configuration = folder / "gateway.toml"
        configuration.write_text(f"""
server = {{ listen = "127.0.0.1:{self.server}"{server} }}
admin = {{ listen = "127.0.0.1:{self.admin}" }}
callbacks = {{ listen = "127.0.0.1:0" }}
upstream = {{ base_url = "http://127.0.0.1:{self.simulator}" }}
cache = {{ memory = "{memory}"{f', disk = "{disk}"' if disk else ''} }}
[state]
path = "{folder}/state-{memory}.db"
root_key = {{ env = "ROOT" }}
encryption_keys = [{{ id = "one", key = {{ env = "ENCRYPTION" }} }}]
{'redis = { url = { env = "REDIS" } }' if redis else ''}
redis_timeout = "1s"
[accounts.live]
api_key = {{ env = "ACCOUNT" }}
requests_per_second = 100000
[tenants.lending]
account = "live"
key_sha256 = ["{hashlib.sha256(KEY.encode()).hexdigest()}"]
requests_per_second = 100000
upstream_calls_per_day = 10000000
""" + "".join(team(number) for number in range(1, teams)))
        secrets = {"ROOT": "1a" * 32, "ENCRYPTION": "2b" * 32, "ACCOUNT": ACCOUNT_KEY}
        env = {**os.environ, **secrets, "REDIS": f"redis://127.0.0.1:{self.redis}/0"}
        first, second = (on_core(0), on_core(1)) if cores else ([], [])
        if redis:
            self.start(["redis-server", "--port", str(self.redis), "--save", "", "--dir", str(folder)], env)
            wait_for(self.redis)
        simulate = [program, "simulate", "--listen", f"127.0.0.1:{self.simulator}", "--answer-at-once"]
        self.start([*second, *simulate], env)
        wait_for(self.simulator)
        begun = time.monotonic()
        self.gateway = self.start([*first, *before, program, "run", "--config", str(configuration)], env)
        wait_for(self.server)
        # Seconds until the gateway accepted a connection.
        self.started = time.monotonic() - begun

    def start(self, command, env):
        quiet = subprocess.DEVNULL
        self.processes.append(subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet))
        return self.processes[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
            process.wait(timeout=60)

    def metric(self, name):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"iluma_gateway_{name}"))

    def ask(self, path, body):
        """Sends one request on this thread's connection; returns the field cache-status of its answer."""
        connection = getattr(local, "connection", None)
        if connection is None or connection.port != self.server:
            connection = local.connection = http.client.HTTPConnection("127.0.0.1", self.server)
        head = {"authorization": f"Basic {BASIC}", "content-type": "application/json"}
        connection.request("POST", path, json.dumps(body), head)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, (path, answer.status)
        return answer.getheader("cache-status", "")


def request_bytes(path, body, basic=BASIC):
    """Returns a request as it is sent."""
    text = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Basic {basic}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


def answer_length(data):
    """Returns the length of the whole answer that data begins with; None if more of it is needed."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, start = data[:end].lower(), end + 4
    at = head.find(b"content-length:")
    if at >= 0:
        length = start + int(head[at + 15 :].split(b"\r\n", 1)[0])
        return length if len(data) >= length else None
    if b"transfer-encoding: chunked" not in head:
        return start
    last = data.find(b"0\r\n\r\n", start)
    return None if last < 0 else last + 5


def resident(pid):
    """Returns the resident memory of a process, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the gateway has ended")


def cpu(pid):
    """Returns the CPU seconds of a process, user and system."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def exchange(connection, requests):
    """Sends requests at once; returns the number of answers by status."""
    connection.sendall(b"".join(requests))
    data, statuses = bytearray(), {}
    while sum(statuses.values()) < len(requests):
        length = answer_length(data)
        if length is None:
            piece = connection.recv(1 << 16)
            if not piece:
                raise SystemExit("the gateway closed a connection before its answer")
            data += piece
            continue
        status = int(data[9:12])
        statuses[status] = statuses.get(status, 0) + 1
        del data[:length]
    return statuses
