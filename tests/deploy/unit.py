"""Checks deploy/systemd: the unit by systemd's own tools, and that its credentials are the secrets of config/example.toml.

usage: unit.py BINARY

No systemd runs here: manual.py starts what the unit says, with its credentials, by a stand-in for systemctl.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "systemd" / "iluma-gateway.service"
CONFIGURATION = ROOT / "deploy" / "systemd" / "gateway.toml"
# In tenths: 1.3 of 10. What is left of it is the network, which is the unit's purpose.
EXPOSURE = 13
CREDENTIALS = "/run/credentials/iluma-gateway.service/"


def as_credential(name):
    return re.sub(r"^ILUMA_(GATEWAY_)?", "", name).lower().replace("_", "-")


def check_configuration(unit):
    """gateway.toml is config/example.toml with other secrets, and each is loaded by the unit."""
    example = (ROOT / "config" / "example.toml").read_text()
    wanted = re.sub(r'\{ env = "(\w+)" \}', lambda match: f'{{ file = "{CREDENTIALS}{as_credential(match[1])}" }}', example)
    body = lambda text: text[text.index("[server]") :]
    shipped = CONFIGURATION.read_text()
    assert body(shipped) == body(wanted), "deploy/systemd/gateway.toml is not config/example.toml with credentials"
    used = set(re.findall(rf'"{CREDENTIALS}([\w-]+)"', shipped))
    loaded = dict(re.findall(r"^LoadCredential=([\w-]+):(.*)$", unit, re.M))
    assert used == set(loaded), f"secrets and credentials differ: {used ^ set(loaded)}"
    assert all(path == f"/etc/iluma-gateway/secrets/{name}" for name, path in loaded.items())
    listens = re.findall(r'^listen = "0\.0\.0\.0:(\d+)"', shipped, re.M)
    assert listens == re.findall(r"^SocketBindAllow=tcp:(\d+)$", unit, re.M), "the unit allows other ports than gateway.toml listens on"


def main(binary):
    unit = UNIT.read_text()
    check_configuration(unit)
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]) > 30, "systemd kills before server.drain_timeout"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / UNIT.name
        # Verified where the program is, since it is not installed here.
        copy.write_text(unit.replace("/usr/local/bin/iluma-gateway", binary))
        verified = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
        assert verified.returncode == 0 and not verified.stderr, verified.stderr
        command = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", copy]
        scored = subprocess.run(command, capture_output=True, text=True)
        last = scored.stdout.strip().splitlines()[-1]
        assert scored.returncode == 0, last
    print("unit:", re.sub(r"[^\x20-\x7e]", "", last).strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
