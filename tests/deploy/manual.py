"""Walks docs/operate.md as an operator would: runs every block that is marked `sh`, in order, in one shell.

usage: manual.py BINARY

In a network and a view of the file system of its own: what the page installs below /etc, /usr/local, /var and /run goes to a
folder that is thrown away. No systemd runs there: tests/deploy/systemctl stands in for systemctl and journalctl, and starts what the
unit says with the credentials that it names.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scene import HERE, ROOT, own_network

PAGE = ROOT / "docs" / "operate.md"
# What the page says of a full disk, tried: calls are refused, hits are not, and with room again it goes on by itself.
DISK_FULL = """
asked() { curl --silent --include --user "$second": --data "bank_account_number=$1&bank_code=BCA" $bank; }
asked 1234567855 | grep -q '"is_found":true'
dd if=/dev/zero of=/var/lib/iluma-gateway/filler bs=64k 2>/dev/null || true
for number in $(seq 1000000055 100 1000020055); do
  asked $number >answer
  ! grep -q 'x-gateway-error: ledger_unavailable' answer || break
done
cat answer
grep -q 'x-gateway-error: ledger_unavailable' answer
asked 1234567855 | grep -q 'cache-status: iluma-gateway; hit'
rm /var/lib/iluma-gateway/filler
until asked 1234567755 | grep -q '"is_found":true'; do sleep 0.2; done
"""
OVERLAID = ["/etc", "/usr/local", "/var"]
PATIENCE = 150


def overlay(work):
    """The machine's folders, with changes that nobody else sees."""
    for folder in OVERLAID:
        upper, inner = work / folder.strip("/").replace("/", "-"), work / (folder.strip("/").replace("/", "-") + "-work")
        upper.mkdir()
        inner.mkdir()
        options = f"lowerdir={folder},upperdir={upper},workdir={inner}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, folder], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    Path("/var/lib/iluma-gateway").mkdir(exist_ok=True)
    Path("/var/backups").mkdir(exist_ok=True)
    # A file system of its own, as a volume is.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", "/var/lib/iluma-gateway"], check=True)
    for name in ("systemctl", "journalctl"):
        shutil.copy(HERE / "systemctl", f"/usr/local/bin/{name}")
    # The user that DynamicUser makes.
    subprocess.run(["useradd", "--system", "--no-create-home", "iluma-gateway"], check=True)


def blocks():
    """Each block with its line, under `set -x` in effect: a failure shows where it happened."""
    for match in re.finditer(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        line = PAGE.read_text()[: match.start()].count("\n") + 2
        yield line, match[1]


def main(binary):
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        own_network(work)
        overlay(work)
        here = work / "here"
        here.mkdir()
        shutil.copy(binary, here / "iluma-gateway")
        (here / "deploy").symlink_to(ROOT / "deploy")
        script = ["set -euo pipefail", "trap 'systemctl stop iluma-gateway || true; kill $(jobs -p) 2>/dev/null || true' EXIT"]
        for line, text in blocks():
            script += [f"echo '--- docs/operate.md:{line}'", text]
        script += ["echo '--- the disk is full'", DISK_FULL]
        (work / "walk.sh").write_text("\n".join(script))
        secrets = {"ILUMA_LIVE_API_KEY": "iluma_live_walk_0000", "ILUMA_LIVE_CALLBACK_TOKEN": "walk-callback-token-0000"}
        environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(here), "LANG": "C.UTF-8"} | secrets
        started = time.monotonic()
        with open(work / "walk.log", "w") as log:
            walk = subprocess.run(["bash", work / "walk.sh"], cwd=here, env=environment, stdout=log, stderr=log, timeout=PATIENCE)
        seconds = time.monotonic() - started
        said = (work / "walk.log").read_text()
        subprocess.run(["umount", "--lazy", "/var/lib/iluma-gateway", "/run", *OVERLAID], check=True)
        if walk.returncode != 0:
            raise SystemExit(said[-4000:])
    print(f"manual: {len(list(blocks()))} blocks of docs/operate.md run, in {seconds:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
