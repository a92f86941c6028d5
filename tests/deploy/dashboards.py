"""Asks a real Prometheus every query of deploy/grafana, and loads deploy/prometheus into it.

usage: dashboards.py BINARY

Two nodes over one Redis serve the compose demo's load (deploy/compose/demo/teams.py) while Prometheus scrapes them, in a network
of their own. Every panel must have data, every rule must evaluate, and no name of a metric may be unknown.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from scene import DEMO, PATIENCE, ROOT, Processes, curl, demo_environment, is_ready, own_network, until

LOAD_SECONDS = 15
TEAMS = DEMO / "teams.py"
# Ten scrapes, as there would be four in Grafana's own interval; the whole of the load.
VARIABLES = {"$__rate_interval": "10s", "$__range": "30s", "$job": "iluma-gateway", "$instance": ".*", "$tenant": ".*"}
# Figures of all nodes together, which each node publishes: their maximum is the figure, their sum is not.
GLOBAL = re.compile(r"iluma_gateway_(?:quota_used|quota_limit|quota_warning|callback_queue|callback_oldest_seconds)")
MAXIMUM = re.compile(r"\bmax(?: by \([\w, ]+\))? ?\(" + GLOBAL.pattern)
SECOND = {":8080": ":8180", ":8081": ":8181", ":9090": ":9190", ":9091": ":9191", "/var/lib/iluma-gateway/iluma-gateway.db": "b.db"}


def configurations(work):
    text = (DEMO / "gateway.toml").read_text()
    first, second = work / "a.toml", work / "b.toml"
    first.write_text(text.replace("/var/lib/iluma-gateway/iluma-gateway.db", "a.db"))
    # Iluma knows one of them by its callback URL; the port that it names stays the first one's.
    url = 'public_url = "http://gateway:8081"'
    kept = text.replace(url, "@url@")
    for old, new in SECOND.items():
        kept = kept.replace(old, new)
    second.write_text(kept.replace("@url@", url))
    return first, second


def start_nodes(processes, binary):
    environment = demo_environment()
    for path, admin in zip(configurations(processes.work), (9090, 9190)):
        node = processes.start(binary, "run", "--config", path, name=path.stem, env=environment)
        until(lambda: is_ready(admin) or node.poll() is not None, f"node {path.stem} is ready")
        assert node.poll() is None, processes.log(path.stem)
    command = [binary, "register-callbacks", "--config", processes.work / "a.toml"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def start_prometheus(processes):
    text = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    # The file that ships, with a quicker pace, both nodes, and rules by their place here.
    text = re.sub(r"(scrape|evaluation)_interval: \S+", r"\1_interval: 1s", text)
    text = text.replace("/etc/prometheus/rules.yaml", str(ROOT / "deploy" / "prometheus" / "rules.yaml"))
    text = text.replace("gateway:9091", "gateway:9091, gateway:9191")
    path = processes.work / "prometheus.yml"
    path.write_text(text)
    options = [f"--storage.tsdb.path={processes.work}/tsdb", "--web.listen-address=127.0.0.1:9099"]
    processes.start("prometheus", f"--config.file={path}", *options)
    until(lambda: curl("http://127.0.0.1:9099/-/ready").startswith("Prometheus Server is Ready"), "Prometheus is ready")


def api(path, **parameters):
    answer = json.loads(curl(f"http://127.0.0.1:9099/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
    assert answer["status"] == "success", f"{parameters}: {answer}"
    return answer["data"]


def has_data(expression, at):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return any(not math.isnan(float(series["value"][1])) for series in api("query", query=expression, time=at)["result"])


def queries():
    """Each board, panel and expression."""
    for path in sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            assert panel["type"] == "row" or (panel["description"] and panel["targets"]), f"{path.stem}: {panel['title']}"
            for target in panel.get("targets", []):
                yield path.stem, panel["title"], target["expr"]


def check_rules(names):
    rules = [rule for group in api("rules")["groups"] for rule in group["rules"]]
    broken = [rule["name"] for rule in rules if rule["health"] != "ok"]
    assert rules and not broken, f"rules that do not evaluate: {broken}"
    expressions = [(rule["name"], rule["query"]) for rule in rules] + [(f"{board}: {title}", expr) for board, title, expr in queries()]
    for where, expression in expressions:
        unknown = set(re.findall(r"iluma_gateway_\w+", expression)) - names
        assert not unknown, f"{where} asks for what no node publishes: {unknown}"
        assert len(GLOBAL.findall(expression)) == len(MAXIMUM.findall(expression)), f"{where} adds up what every node says alike"


def main(binary):
    subprocess.run([sys.executable, str(ROOT / "deploy" / "grafana" / "generate.py"), "--check"], check=True)
    with tempfile.TemporaryDirectory() as folder, Processes(folder) as processes:
        own_network(folder)
        processes.redis_and_simulator(binary)
        start_nodes(processes, binary)
        start_prometheus(processes)
        gateways = ["--gateway", "http://gateway:8080", "--gateway", "http://gateway:8180"]
        load = processes.start(sys.executable, TEAMS, *gateways, "--seconds", LOAD_SECONDS, "--listen", "127.0.0.1:8088", name="teams")
        assert load.wait(LOAD_SECONDS + PATIENCE) == 0, processes.log("teams")
        asked, ended = list(queries()), time.time()
        empty = [f"{board}: {title}: {expression}" for board, title, expression in asked if not has_data(expression, ended)]
        assert not empty, "panels without data:\n" + "\n".join(empty)
        check_rules(set(api("label/__name__/values")))
    print(f"dashboards: each of {len(asked)} queries has data, every rule evaluates")


if __name__ == "__main__":
    main(*sys.argv[1:])
