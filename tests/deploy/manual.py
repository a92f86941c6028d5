"""Walks docs/operate.md as an operator would: runs every block that is marked `sh`, in order, in one shell.

usage: manual.py BINARY

A real systemd boots for it (systemd-nspawn, without an engine) over this machine's own file system: what the page installs below
/etc, /usr/local and /var goes to a folder that is thrown away, and the network is a loopback. So the unit is tried as well.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from scene import ROOT, Processes, own_network, until

PAGE = ROOT / "docs" / "operate.md"
# What the page says of a full disk, tried: calls are refused, hits are not, and with room again it goes on by itself.
DISK_FULL = """
asked() { curl --silent --include --user "$second": --data "bank_account_number=$1&bank_code=BCA" $bank; }
asked 1234567855 | grep -q '"is_found":true'
dd if=/dev/zero of=/var/lib/private/iluma-gateway/filler bs=1M 2>/dev/null || true
for number in $(seq 1000000055 100 1000020055); do
  asked $number >answer
  ! grep -q 'x-gateway-error: ledger_unavailable' answer || break
done
cat answer
grep -q 'x-gateway-error: ledger_unavailable' answer
asked 1234567855 | grep -q 'cache-status: iluma-gateway; hit'
rm /var/lib/private/iluma-gateway/filler
until asked 1234567755 | grep -q '"is_found":true'; do sleep 0.2; done
"""
STATE = "/var/lib/private/iluma-gateway"
WALK = "/srv/walk"
PATIENCE = 240
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": WALK,
    "LANG": "C.UTF-8",
    "ILUMA_LIVE_API_KEY": "iluma_live_walk_0000",
    "ILUMA_LIVE_CALLBACK_TOKEN": "walk-callback-token-0000",
}


def boot(processes, here):
    """Starts systemd over the machine's files, and returns its process."""
    work = processes.work
    root, upper, inner = work / "root", work / "upper", work / "inner"
    for folder in (root, upper, inner):
        folder.mkdir()
    processes.mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={inner}", root)
    machine = root / "etc" / "machine-id"
    machine.unlink(missing_ok=True)
    machine.write_text(uuid.uuid4().hex + "\n")
    # The state has a file system of its own, small enough to be filled, and larger than state.disk_reserve.
    options = ["--register=no", "--keep-unit", "--private-network", "--link-journal=no", "--console=pipe", f"--tmpfs={STATE}:size=640m,mode=755"]
    options += [f"--bind={here}:{WALK}", f"--bind-ro={ROOT / 'deploy'}:{WALK}/deploy"]
    # Not what this machine would start as well: databases, servers.
    command = ["systemd-nspawn", f"--directory={root}", *options, "--boot", "systemd.unit=basic.target"]
    nspawn = processes.start(*command, stdin=subprocess.DEVNULL, name="systemd")
    leader = until(lambda: nspawn.poll() is None and leader_of(nspawn), "systemd starts")
    # systemd-nspawn does not take the system with it when it is killed.
    processes.at_end(lambda: kill(leader))
    state = lambda: inside(leader, "systemctl", "is-system-running", capture_output=True).stdout.strip()
    until(lambda: state() == "running", "systemd has booted")
    return leader


def leader_of(nspawn):
    """The first process of the system, once it is there: systemd-nspawn has a helper before it."""
    for child in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
        try:
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return child
        except FileNotFoundError:
            continue
    return None


def kill(leader):
    """Ends the system: with its first process the kernel ends all the others."""
    try:
        os.kill(int(leader), signal.SIGKILL)
    except ProcessLookupError:
        pass


def inside(leader, *command, **options):
    entered = ["nsenter", "--target", leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "env", f"--chdir={WALK}", *command]
    return subprocess.run(entered, text=True, env=ENVIRONMENT, **options)


def blocks():
    """Each block with its line, so that a failure shows where it happened."""
    page = PAGE.read_text()
    for match in re.finditer(r"^```sh\n(.*?)^```$", page, re.M | re.S):
        yield page[: match.start()].count("\n") + 2, match[1]


def main(binary):
    with tempfile.TemporaryDirectory() as folder, Processes(folder) as processes:
        own_network(folder)
        here = processes.work / "here"
        (here / "deploy").mkdir(parents=True)
        shutil.copy(binary, here / "iluma-gateway")
        script = ["set -euo pipefail"]
        for line, text in blocks():
            script += [f"echo '--- docs/operate.md:{line}'", text]
        script += ["echo '--- the disk is full'", DISK_FULL]
        (here / "walk.sh").write_text("\n".join(script))
        leader = boot(processes, here)
        started = time.monotonic()
        with open(processes.work / "walk.log", "w") as log:
            walk = inside(leader, "bash", f"{WALK}/walk.sh", stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=PATIENCE)
        seconds = time.monotonic() - started
        if walk.returncode != 0:
            inside(leader, "journalctl", "--unit=iluma-gateway", "--no-pager", "--lines=30")
            raise SystemExit(processes.log("walk"))
    print(f"manual: {len(list(blocks()))} blocks of docs/operate.md run under systemd, in {seconds:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
