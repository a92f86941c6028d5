"""Renders the chart for every values file of its ci folder, and checks what comes out.

usage: chart.py TOOLS BINARY

Each object is validated against the schema of its kind: those of Kubernetes by kubernetes-validate, those of the Prometheus
operator by the models of @kubernetes-models. The rendered gateway.toml is read by the gateway's own `check`. Rules of the house for
pods (no root, no writable root, no capabilities, limits) are looked at by themselves, and so is what the chart must refuse.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "iluma-gateway"
# The oldest that the chart takes, and the newest that the validator has.
VERSIONS = ["1.30.0", kubernetes_validate.latest_version()]
EVERYTHING = {
    "ConfigMap", "Ingress", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet",
}
# Values that would deploy something that does not work, and what the refusal says.
REFUSED = [
    ("several-nodes", ["--set", "config.state.redis=null"], "more than one node need config.state.redis"),
    ("several-nodes", ["--set", "terminationGracePeriodSeconds=95"], "terminationGracePeriodSeconds has to be longer"),
    ("one-node", ["--set", "config.accounts=null"], "config.accounts is empty"),
    ("one-node", ["--set", "config.tenants=null"], "config.tenants is empty"),
    ("one-node", ["--set", "ingress.server.enabled=true"], "ingress.server.host is empty"),
    ("tls", ["--set", "probeScheme=HTTP"], "probeScheme has to be HTTPS"),
    ("one-node", ["--set", "probeScheme=HTTPS"], "probeScheme has to be HTTPS"),
    ("tls", ["--set", "config.admin.tls.client_ca=ca.pem"], "no client certificate"),
    ("one-node", ["--set", "replicaCount=0"], "replicaCount"),
    ("one-node", ["--set", "persistance.size=1Gi"], "persistance"),
]


def helm(tools, *arguments):
    return subprocess.run([f"{tools}/bin/helm", *map(str, arguments)], capture_output=True, text=True)


def rendered(tools, values):
    done = helm(tools, "template", "kyc", CHART, "--namespace", "kyc", "--values", values)
    assert done.returncode == 0, f"{values.name}: {done.stderr[-2000:]}"
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def validate(tools, objects):
    of_operator = [one for one in objects if one["apiVersion"].startswith("monitoring.coreos.com/")]
    for one in objects:
        if one in of_operator:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise SystemExit(f"{one['kind']} {one['metadata']['name']}, Kubernetes {version}: {error}") from error
    done = subprocess.run(["node", "validate.mjs"], input=json.dumps(of_operator), capture_output=True, text=True, cwd=f"{tools}/npm")
    assert done.returncode == 0, done.stderr


def check_pods(objects):
    """What security teams ask of a pod, whatever the values are."""
    pod = next(one for one in objects if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    own, (container,) = pod["securityContext"], pod["containers"]
    assert own["runAsNonRoot"] and own["runAsUser"] == 65532 and own["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert "memory" in container["resources"]["limits"] and container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert pod["automountServiceAccountToken"] is False
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    ports = {port["name"] for port in container["ports"]}
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")} <= ports
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claims = next(one for one in objects if one["kind"] == "StatefulSet")["spec"].get("volumeClaimTemplates", [])
    assert mounted == {volume["name"] for volume in pod["volumes"]} | {claim["metadata"]["name"] for claim in claims}


def check_selectors(objects):
    """Every Service finds the pods, and a port of theirs by its name."""
    pod = next(one for one in objects if one["kind"] == "StatefulSet")["spec"]["template"]
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    for service in (one for one in objects if one["kind"] == "Service"):
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items(), service["metadata"]["name"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, service["metadata"]["name"]
    services = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"] for one in objects if one["kind"] == "Service"}
    for ingress in (one for one in objects if one["kind"] == "Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert services[backend["name"]] == backend["port"]["number"], ingress["metadata"]["name"]


def check_configuration(objects, binary):
    """The gateway takes the rendered configuration, with secrets and certificates in the places that it names."""
    text = next(one for one in objects if one["kind"] == "ConfigMap" and "gateway.toml" in one["data"])["data"]["gateway.toml"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in sorted(set(re.findall(r"/etc/iluma-gateway/secrets/([\w-]+)", text))):
            (work / name).write_text("redis://127.0.0.1:9/" if "redis" in name else (name.encode().hex() * 8)[:64])
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gateway"]
        command += ["-addext", "subjectAltName=DNS:gateway", "-keyout", work / "tls.key", "-out", work / "tls.crt"]
        if "/etc/iluma-gateway/tls/" in text:
            subprocess.run(command, check=True, capture_output=True)
        text = re.sub(r"/etc/iluma-gateway/(secrets|tls)/", f"{work}/", text).replace("/var/lib/iluma-gateway/", f"{work}/")
        (work / "gateway.toml").write_text(text)
        done = subprocess.run([binary, "check", "--config", work / "gateway.toml"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + text


def check_refusals(tools):
    for values, options, why in REFUSED:
        done = helm(tools, "template", "kyc", CHART, "--values", CHART / "ci" / f"{values}.yaml", *options)
        assert done.returncode != 0 and why in done.stderr, f"{values} {options}: {done.stderr[-500:]}"


def main(tools, binary):
    subprocess.run([sys.executable, str(ROOT / "deploy" / "helm" / "generate.py"), "--check"], check=True)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert chart["appVersion"] == version, f"Chart.yaml is of {chart['appVersion']}, Cargo.toml of {version}"
    kinds, files = set(), sorted((CHART / "ci").glob("*.yaml"))
    for values in files:
        linted = helm(tools, "lint", "--strict", CHART, "--values", values)
        assert linted.returncode == 0, linted.stdout + linted.stderr
        objects = rendered(tools, values)
        validate(tools, objects)
        for check in (check_pods, check_selectors):
            check(objects)
        check_configuration(objects, binary)
        kinds |= {one["kind"] for one in objects}
    assert kinds == EVERYTHING, f"rendered by no values file: {EVERYTHING - kinds}; not expected: {kinds - EVERYTHING}"
    check_refusals(tools)
    print(f"chart: {len(files)} values files render, validate for Kubernetes {' and '.join(VERSIONS)}, and configure the gateway")


if __name__ == "__main__":
    main(*sys.argv[1:])
