"""Runs an image as the compose demo does, and asks it a question.

usage: image.py --image INSPECTED_JSON --root FOLDER --binary FILE

In a network of its own, so that the ports of the demo's configuration are free: a Redis, the simulator, and the image with a
read-only root, without capabilities, as its own user.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scene import DEMO, HERE, PATIENCE, Processes, curl, demo_environment, is_ready, own_network, until

SIZE_LIMIT = 60_000_000


def specification(image, root, work, command):
    config = image["OCIv1"]["config"]
    user, group = config["User"].split(":")
    assert user == group and int(user) > 0, f"the image runs as {config['User']}"
    volume = work / "volume"
    # A new named volume takes over the owner that the image has there.
    inside = os.stat(root + "/var/lib/iluma-gateway")
    assert inside.st_uid == int(user) and not inside.st_mode & 0o022, "the image's state folder is not the user's alone"
    if not volume.exists():
        volume.mkdir(mode=0o700)
        os.chown(volume, int(user), int(group))
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    return {
        "root": root,
        "user": int(user),
        "directory": config["WorkingDir"],
        "command": config["Entrypoint"] + (command or config["Cmd"]),
        "environment": environment | demo_environment(),
        "writable": {list(config["Volumes"])[0]: str(volume)},
        "files": {"/etc/hosts": str(work / "hosts"), "/etc/iluma-gateway/gateway.toml": str(DEMO / "gateway.toml")},
    }


def contained(processes, spec, name):
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, HERE / "contained.py", json.dumps(spec)]
    return processes.start(*command, name=name)


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


def run(args, work, processes):
    image = json.loads(args.image)
    processes.redis_and_simulator(args.binary)
    check = ["check", "--config", "/etc/iluma-gateway/gateway.toml"]
    checked = contained(processes, specification(image, args.root, work, check), "check")
    assert checked.wait(PATIENCE) == 0, processes.log("check")
    spec = specification(image, args.root, work, None)
    started = time.monotonic()
    gateway = contained(processes, spec, "gateway")
    until(lambda: is_ready(9090) or gateway.poll() is not None, "the image is ready")
    seconds = time.monotonic() - started
    assert gateway.poll() is None, processes.log("gateway")
    pid = inner_pid(gateway)
    confined(pid, spec["user"])
    question_is_answered()
    assert image["Docker"]["config"]["Healthcheck"]["Test"][0] == "CMD"
    healthy = contained(processes, specification(image, args.root, work, image["Docker"]["config"]["Healthcheck"]["Test"][2:]), "healthcheck")
    assert healthy.wait(PATIENCE) == 0, processes.log("healthcheck")
    os.kill(pid, signal.SIGTERM)
    assert gateway.wait(PATIENCE) == 0, processes.log("gateway")
    return seconds


def main():
    parser = argparse.ArgumentParser()
    for name in ("--image", "--root", "--binary"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    size = sum(entry.lstat().st_size for entry in Path(args.root).rglob("*") if not entry.is_dir())
    assert size < SIZE_LIMIT, f"the image has {size / 1e6:.1f} MB, more than {SIZE_LIMIT / 1e6:.0f}"
    with tempfile.TemporaryDirectory() as folder, Processes(folder) as processes:
        os.chmod(folder, 0o755)
        own_network(folder)
        seconds = run(args, Path(folder), processes)
    print(f"image: {size / 1e6:.1f} MB unpacked, ready {seconds:.2f} s after its start, answers as user 65532 on a read-only root")


if __name__ == "__main__":
    main()
