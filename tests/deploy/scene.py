"""The compose demo without containers: a network of its own, the demo's names and ports in it, and processes that end with it."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEMO = ROOT / "deploy" / "compose" / "demo"
NAMES = "127.0.0.1 localhost gateway simulator redis teams prometheus\n"
# Long enough for a machine that does much else; waiting ends with what is waited for.
PATIENCE = 60
NEW_MOUNTS, NEW_NETWORK = 0x00020000, 0x40000000
SET_FLAGS, UP = 0x8914, 1


def own_network(work):
    """Leaves the machine's network for one with a loopback and nothing else, where the demo's names are on it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS | NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network of its own; this takes root")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sH", b"lo", UP))
    hosts = Path(work) / "hosts"
    hosts.write_text(NAMES)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    return hosts


def demo_environment():
    lines = (DEMO / "demo.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")) | {
        "ILUMA_GATEWAY_REDIS_URL": "redis://redis:6379"
    }


def curl(*arguments):
    done = subprocess.run(["curl", "--silent", "--max-time", "5", *arguments], capture_output=True, text=True)
    return done.stdout


def until(condition, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise SystemExit(f"{what}: not within {patience} s")


def is_ready(port):
    return curl("--fail", "--output", os.devnull, "--write-out", "%{http_code}", f"http://127.0.0.1:{port}/readyz") == "200"


class Processes:
    """What was started; all of it ends with the `with`."""

    def __init__(self, work):
        self.work, self.started, self.mounted, self.last_acts = Path(work), [], [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for act in self.last_acts:
            act()
        for process in reversed(self.started):
            process.kill()
            process.wait()
        for folder in self.mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)

    def start(self, *command, name=None, **options):
        with open(self.work / f"{name or Path(command[0]).name}.log", "w") as log:
            options = {"stdout": log, "stderr": log, "text": True} | options
            process = subprocess.Popen([str(part) for part in command], **options)
        self.started.append(process)
        return process

    def at_end(self, act):
        self.last_acts.append(act)

    def mount(self, *arguments):
        subprocess.run(["mount", *arguments], check=True)
        self.mounted.append(arguments[-1])

    def log(self, name):
        return (self.work / f"{name}.log").read_text()[-3000:]

    def redis_and_simulator(self, binary):
        self.start("redis-server", "--port", "6379", "--save", "", "--appendonly", "yes", "--dir", self.work)
        token = demo_environment()["ILUMA_LIVE_CALLBACK_TOKEN"]
        self.start(binary, "simulate", "--listen", "127.0.0.1:8090", "--callback-token", token, name="simulator")
        until(lambda: curl("http://simulator:8090/_sim/stats"), "the simulator answers")
