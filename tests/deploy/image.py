"""Runs an image as the compose demo does, and asks it a question.

usage: image.py --image INSPECTED_JSON --root FOLDER --binary FILE

In a network of its own, so that the ports of the demo's configuration are free: a Redis, the simulator, and the image with a
read-only root, without capabilities, as its own user.
"""

import argparse
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "deploy" / "compose" / "demo"
SIZE_LIMIT = 60_000_000
PATIENCE = 20
NEW_NETWORK, BRING_UP, UP = 0x40000000, 0x8914, 1


def own_network():
    """Leaves the machine's network for one with a loopback and nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace; this takes root")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, BRING_UP, struct.pack("16sH", b"lo", UP))


def demo_environment():
    lines = (DEMO / "demo.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def specification(image, root, work, command):
    config = image["OCIv1"]["config"]
    user, group = config["User"].split(":")
    assert user == group and int(user) > 0, f"the image runs as {config['User']}"
    volume, hosts = work / "volume", work / "hosts"
    # A new named volume takes over the owner that the image has there.
    inside = os.stat(root + "/var/lib/iluma-gateway")
    assert inside.st_uid == int(user) and not inside.st_mode & 0o022, "the image's state folder is not the user's alone"
    if not volume.exists():
        volume.mkdir(mode=0o700)
        os.chown(volume, int(user), int(group))
    hosts.write_text("127.0.0.1 localhost gateway simulator redis teams\n")
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    environment |= demo_environment() | {"ILUMA_GATEWAY_REDIS_URL": "redis://redis:6379"}
    return {
        "root": root,
        "user": int(user),
        "directory": config["WorkingDir"],
        "command": config["Entrypoint"] + (command or config["Cmd"]),
        "environment": environment,
        "writable": {list(config["Volumes"])[0]: str(volume)},
        "files": {"/etc/hosts": str(hosts), "/etc/iluma-gateway/gateway.toml": str(DEMO / "gateway.toml")},
    }


def contained(spec, **streams):
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, str(HERE / "contained.py"), json.dumps(spec)]
    return subprocess.Popen(command, text=True, **streams)


def curl(*arguments):
    done = subprocess.run(["curl", "--silent", "--max-time", "5", *arguments], capture_output=True, text=True)
    return done.stdout


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise SystemExit(f"{what}: not within {PATIENCE} s")


def inner_pid(process):
    """The program itself, not the unshare that waits for it."""
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    return int(until(lambda: Path(children).read_text().split(), "the program in the image starts")[0])


def status_of(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def confined(pid, user):
    status = status_of(pid)
    assert status["Uid"].split() == [str(user)] * 4, status["Uid"]
    assert status["CapEff"].strip("0 ") == status["CapBnd"].strip("0 ") == "", "capabilities are left"
    assert status["NoNewPrivs"].strip() == "1"
    root = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines() if line.split()[1] == "/"][-1]
    assert "ro" in root[3].split(","), f"the root is writable: {root}"


def question_is_answered():
    body = '{"bank_account_number":"1234567855","bank_code":"BCA","reference_id":"mine"}'
    url = "http://127.0.0.1:8080/v1.1/identity/bank_account_data_requests"
    asked = ["--user", "igw_lending_demo:", "--header", "content-type: application/json", "--data", body, "--include", url]
    first, second = curl(*asked), curl(*asked)
    assert '"is_found":true' in first and '"reference_id":"mine"' in first, first
    assert "iluma-gateway; hit" in second, second


def run(args, work):
    image = json.loads(args.image)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    others = [
        subprocess.Popen(["redis-server", "--port", "6379", "--save", "", "--appendonly", "yes", "--dir", str(work)], **quiet),
        subprocess.Popen([args.binary, "simulate", "--listen", "127.0.0.1:8090"], **quiet),
    ]
    try:
        until(lambda: curl("http://127.0.0.1:8090/_sim/stats"), "the simulator answers")
        checked = contained(specification(image, args.root, work, ["check", "--config", "/etc/iluma-gateway/gateway.toml"]), **quiet)
        assert checked.wait(PATIENCE) == 0, "`check` finds faults in the demo's configuration"
        with open(work / "log", "w") as log:
            spec = specification(image, args.root, work, None)
            started = time.monotonic()
            gateway = contained(spec, stdout=log, stderr=log)
        others.append(gateway)
        ready = lambda: curl("--fail", "--write-out", "%{http_code}", "http://127.0.0.1:9090/readyz").endswith("200")
        until(lambda: ready() or gateway.poll() is not None, "the image is ready")
        seconds = time.monotonic() - started
        assert gateway.poll() is None, (work / "log").read_text()[-2000:]
        pid = inner_pid(gateway)
        confined(pid, spec["user"])
        question_is_answered()
        os.kill(pid, signal.SIGTERM)
        assert gateway.wait(PATIENCE) == 0, (work / "log").read_text()[-2000:]
        return seconds
    finally:
        for process in reversed(others):
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser()
    for name in ("--image", "--root", "--binary"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    size = sum(entry.lstat().st_size for entry in Path(args.root).rglob("*") if not entry.is_dir())
    assert size < SIZE_LIMIT, f"the image has {size / 1e6:.1f} MB, more than {SIZE_LIMIT / 1e6:.0f}"
    own_network()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        seconds = run(args, Path(folder))
    print(f"image: {size / 1e6:.1f} MB unpacked, ready {seconds:.2f} s after its start, answers as user 65532 on a read-only root")


if __name__ == "__main__":
    main()
