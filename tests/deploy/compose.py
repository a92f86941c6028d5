"""Checks deploy/compose as far as it goes without an engine: what compose makes of it, and what each service is handed.

usage: compose.py TOOLS BINARY

Compose itself reads and resolves the files. The configurations are read by the gateway's `check`, Prometheus' by promtool. That
the demo's services do together what they should is shown by image.py and dashboards.py, which run them without containers.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose"
SERVICES = {"gateway", "redis", "prometheus", "grafana"}
DEMO = SERVICES | {"simulator", "register", "teams"}


def compose(tools, *arguments):
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = [f"{tools}/bin/docker-compose", "--project-directory", COMPOSE, "--file", COMPOSE / "compose.yaml", *arguments]
    return subprocess.run([*map(str, command), "config", "--format", "json"], capture_output=True, text=True, env=environment)


def variables(path):
    lines = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return dict(lines)


def check_service(name, service):
    assert service["read_only"] and service["cap_drop"] == ["ALL"], name
    assert service["security_opt"] == ["no-new-privileges:true"], name
    assert re.search(r":v?[\w.-]*\d", service["image"]) or service["image"] == "iluma-gateway:local", f"{name}: {service['image']} is not pinned"
    for port in service.get("ports", []):
        assert port["host_ip"] == "127.0.0.1", f"{name}: {port} is open to other machines"
    for mount in service.get("volumes", []):
        assert mount["type"] != "bind" or (Path(mount["source"]).exists() and mount["read_only"]), f"{name}: {mount}"


def check_example(tools):
    """.env.example has each variable of compose.yaml, and nothing starts before the empty ones are filled in."""
    example = variables(COMPOSE / ".env.example")
    used = set(re.findall(r"\$\{(\w+)", (COMPOSE / "compose.yaml").read_text()))
    assert used == set(example), f"compose.yaml and .env.example differ: {used ^ set(example)}"
    empty = [name for name, value in example.items() if not value]
    refused = compose(tools, "--env-file", str(COMPOSE / ".env.example"))
    assert refused.returncode != 0 and "see .env.example" in refused.stderr, refused.stderr
    with tempfile.NamedTemporaryFile("w", suffix=".env") as filled:
        filled.write("".join(f"{name}={value or 'a' * 64}\n" for name, value in example.items()))
        filled.flush()
        taken = compose(tools, "--env-file", filled.name)
    assert taken.returncode == 0, taken.stderr
    assert set(json.loads(taken.stdout)["services"]) == SERVICES
    return {name: f"{number:064}" for number, name in enumerate(empty)}


def check_configuration(binary, path, environment, work):
    text = path.read_text().replace("/var/lib/iluma-gateway/", f"{work}/")
    wanted = set(re.findall(r'env = "(\w+)"', text))
    assert wanted <= set(environment), f"{path.name}: compose does not hand over {wanted - set(environment)}"
    (work / "gateway.toml").write_text(text)
    environment = environment | {"ILUMA_GATEWAY_REDIS_URL": "redis://127.0.0.1:9"}
    done = subprocess.run([binary, "check", "--config", work / "gateway.toml"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def seconds(span):
    return sum(int(number) * {"s": 1, "m": 60}[unit] for number, unit in re.findall(r"(\d+)([sm])", span))


def check_prometheus(work):
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    (work / "prometheus.yml").write_text(text.replace("/etc/prometheus/", f"{ROOT}/deploy/prometheus/"))
    done = subprocess.run(["promtool", "check", "config", work / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def main(tools, binary):
    made = compose(tools, "--env-file", str(COMPOSE / "demo" / "demo.env"), "--profile", "demo")
    assert made.returncode == 0, made.stderr
    services = json.loads(made.stdout)["services"]
    assert set(services) == DEMO, set(services) ^ DEMO
    for name, service in services.items():
        check_service(name, service)
    gateway = services["gateway"]
    assert seconds(gateway["stop_grace_period"]) > 30, "the gateway is killed before server.drain_timeout"
    secrets = check_example(tools)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        check_configuration(binary, COMPOSE / "demo" / "gateway.toml", gateway["environment"], work)
        check_configuration(binary, COMPOSE / "gateway.toml", gateway["environment"] | secrets, work)
        check_prometheus(work)
    for path in (COMPOSE / "grafana").glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1, path
    paths = {mount["target"] for mount in services["grafana"]["volumes"]}
    assert yaml.safe_load((COMPOSE / "grafana" / "dashboards.yaml").read_text())["providers"][0]["options"]["path"] in paths
    print(f"compose: {len(DEMO)} services, each on a read-only root, without capabilities, on loopback; their configurations are taken")


if __name__ == "__main__":
    main(*sys.argv[1:])
