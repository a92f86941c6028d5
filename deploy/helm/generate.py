#!/usr/bin/env python3
"""Writes the chart's README.md and values.schema.json from its values.yaml.

usage: generate.py [--check]      --check changes nothing, and fails if a file differs from what would be written

The comment above a key is its description; a line "@schema {…}" of it adds to the key's JSON schema. A key whose value is a map of
keys with comments is a section; another map may hold anything. Needs PyYAML.
"""

import json
import re
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent / "iluma-gateway"
TYPES = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}

INTRODUCTION = """\
# Chart of iluma-gateway

<!-- Written by deploy/helm/generate.py from values.yaml: change that file. -->

One node with a volume, or several that share a Redis. `config` is `gateway.toml` as YAML; secrets are keys of one Secret.

```text
$ kubectl create namespace kyc
$ kubectl --namespace kyc create secret generic iluma-gateway --from-literal=root-key="$(iluma-gateway keygen --secret)" \\
    --from-literal=encryption-key="$(iluma-gateway keygen --secret)" --from-literal=admin-token="$(iluma-gateway keygen --secret)" \\
    --from-file=live-api-key --from-file=live-callback-token
$ helm upgrade --install kyc deploy/helm/iluma-gateway --namespace kyc --values my-values.yaml
```

Needs Kubernetes 1.30 or newer. [One node](ci/one-node.yaml), [several nodes](ci/several-nodes.yaml) and [TLS](ci/tls.yaml) are values to start
from; the tests render all of them and check what comes out. After the installation: [the first hour](../../../docs/operate.md#first-hour).

- **Keys**: the root key and the encryption key are needed to read the volumes and every backup. Keep them where the backups are not.
- **Iluma's credentials**: name the Secret's keys in the values:
  `config: { accounts: { live: { api_key: { file: /etc/iluma-gateway/secrets/live-api-key }, callback_token: { file:
  /etc/iluma-gateway/secrets/live-callback-token }, requests_per_second: 50 } } }`. A Secret of another name: `existingSecret`.
- **Several nodes**: `replicaCount: 3`, and
  `config: { state: { redis: { url: { file: /etc/iluma-gateway/secrets/redis-url } } } }`. Add to the Secret
  `--from-literal=redis-url='rediss://USER:PASSWORD@HOST:6379/0'`. For a private CA also `--from-file=redis-ca.pem`, and
  `extra_ca: /etc/iluma-gateway/secrets/redis-ca.pem` beside `url`. [Which Redis](../../../docs/several-nodes.md#the-redis).
- **TLS**: name a Secret as `tlsSecret`, and give a listener its files, as in `ci/tls.yaml`:
  `config: { server: { tls: { cert: /etc/iluma-gateway/tls/tls.crt, key: /etc/iluma-gateway/tls/tls.key } } }`. If the listener with
  health and metrics has TLS (`status`, or `admin` without it): `probeScheme: HTTPS`.
- **Restart**: after a change of an encryption key, of Redis' URL or password, or of another key that
  [the configuration](../../../docs/configuration.md) marks with "restart": `kubectl --namespace kyc rollout restart statefulset/kyc-iluma-gateway`.
- **Later**: [a node does not start](../../../docs/operate.md#a-node-does-not-start), [backup](../../../docs/operate.md#backup),
  [upgrade](../../../docs/operate.md#upgrade), [rotation of keys](../../../docs/operate.md#rotate-keys), [alerts](../../../docs/operate.md#alerts).

| value | default | |
|---|---|---|
"""


def comments(lines):
    """Yields each key's path with the text above it."""
    path, said = [], []
    for line in lines:
        if match := re.match(r"^( *)# ?(.*)$", line):
            said.append(match[2])
        elif match := re.match(r"^( *)([A-Za-z]\w*):", line):
            path[len(match[1]) // 2 :] = [match[2]]
            yield tuple(path), said
            said = []
        else:
            said = []


def described(text):
    """By path: a description, and what is added to the schema."""
    found = {}
    for path, said in comments(text.splitlines()):
        words = " ".join(line for line in said if not line.startswith("@schema"))
        extra = [json.loads(line.removeprefix("@schema")) for line in said if line.startswith("@schema")]
        if words or extra:
            found[path] = (words, extra[0] if extra else {})
    return found


def is_section(path, value, known):
    """A map whose keys are described one by one, as far as the schema does not leave it open."""
    open_map = known.get(path, ("", {}))[1].get("additionalProperties")
    described_below = any(len(key) > len(path) and key[: len(path)] == path for key in known)
    return isinstance(value, dict) and not open_map and described_below


def schema(path, value, known):
    words, extra = known.get(path, ("", {}))
    result = {"type": TYPES[type(value)]} | ({"description": words} if words else {})
    if is_section(path, value, known):
        members = {key: schema(path + (key,), member, known) for key, member in value.items()}
        result |= {"properties": members, "additionalProperties": False}
    return result | extra


def rows(path, value, known):
    for key, member in value.items():
        here = path + (key,)
        if is_section(here, member, known):
            yield from rows(here, member, known)
            continue
        words = known.get(here, ("", {}))[0] or known.get(here[:-1], ("", {}))[0]
        assert words, f"{'.'.join(here)} has no comment"
        shown = json.dumps(member, ensure_ascii=False)
        yield f"| `{'.'.join(here)}` | `{shown}` | {words} |" if len(shown) < 60 else f"| `{'.'.join(here)}` | see values.yaml | {words} |"


def main():
    text = (CHART / "values.yaml").read_text()
    values, known = yaml.safe_load(text), described(text)
    top = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart iluma-gateway"} | schema((), values, known)
    # What Helm itself hands to a chart.
    top["properties"]["global"] = {"type": "object"}
    files = {
        "README.md": INTRODUCTION + "\n".join(rows((), values, known)) + "\n",
        "values.schema.json": json.dumps(top, indent=2, ensure_ascii=False) + "\n",
    }
    for name, wanted in files.items():
        path = CHART / name
        if "--check" not in sys.argv:
            path.write_text(wanted)
        elif not path.exists() or path.read_text() != wanted:
            raise SystemExit(f"deploy/helm/iluma-gateway/{name} differs from what deploy/helm/generate.py writes")


if __name__ == "__main__":
    main()
