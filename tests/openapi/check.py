"""Has public tools read the OpenAPI documents of a running gateway, as a team and an operator would.

usage: check.py PROGRAM    (the built gateway; tests/openapi/run installs the tools)
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gateway import KEY, OPERATOR, TIMEOUT, ask, bearer, running, simulated  # noqa: E402

SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "30"))


def fetch(url, secret):
    status, _, answer = ask(url, headers=bearer(secret))
    assert status == 200, answer
    return json.loads(answer)


def main(program):
    # Whoever ends this program ends what it started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with simulated(program) as upstream, running(program, upstream, "iluma_development_0123456789") as (folder, addresses):
        check(folder, addresses)


def check(folder, addresses):
    admin, server = f"http://{addresses['admin']}", f"http://{addresses['server']}"
    of_admin, of_team = fetch(f"{admin}/v1/openapi.json", OPERATOR), fetch(f"{server}/_gateway/openapi.json", KEY)
    for name, document in (("admin", of_admin), ("team", of_team)):
        OpenAPIV31SpecValidator(document).validate()
        (folder / f"{name}.json").write_text(json.dumps(document))
        print(f"openapi-spec-validator: the {name} document with {len(document['paths'])} paths is valid", flush=True)
    ask_with_a_generated_client(folder, server)
    search(folder, admin, of_admin)


def ask_with_a_generated_client(folder, server):
    """Generates a client from the team's document, and asks for a bank account with it."""
    command = ["openapi-python-client", "generate", "--path", str(folder / "team.json"), "--output-path", str(folder / "client")]
    command += ["--meta", "none", "--fail-on-warning"]
    # Its hooks only format what it wrote.
    (folder / "generator.yaml").write_text("post_hooks: []\n")
    subprocess.run([*command, "--config", str(folder / "generator.yaml")], check=True)
    sys.path.insert(0, str(folder))
    client = importlib.import_module("client").AuthenticatedClient(base_url=server, token=KEY)
    operation = "post_v1_1_identity_bank_account_data_requests"
    module = importlib.import_module(f"client.api.bank.{operation}")
    models = importlib.import_module("client.models")
    body = models.NamedBankRequest(bank_account_number="1234567855", bank_code="BCA", reference_id="loan-17")
    answer = module.sync_detailed(client=client, body=body)
    assert answer.status_code == 200, answer
    assert answer.parsed.reference_id == "loan-17" and answer.parsed.bank_code == "BCA", answer.parsed
    other = models.NamedBankRequest(bank_account_number="1234567856", bank_code="BCA")
    refused = module.sync_detailed(client=client, body=other, cache_control="only-if-cached")
    assert refused.status_code == 504 and refused.headers["x-gateway-error"] == "only_if_cached", refused
    assert refused.parsed.error_code == "UPSTREAM_TIMEOUT", refused.parsed
    print("openapi-python-client: its client asks for a bank account", flush=True)


def with_known_names(part):
    """Returns a part of a document in which a team is one that exists, or one that does not, so that orders get further."""
    names = {"type": "string", "enum": ["lending", "nobody"]}
    if isinstance(part, list):
        return [with_known_names(item) for item in part]
    if not isinstance(part, dict):
        return part
    if part.get("name") == "tenant" and "in" in part:
        return part | {"schema": names}
    return {name: names if name == "tenant" and value == {"type": "string"} else with_known_names(value) for name, value in part.items()}


def search(folder, admin, document):
    """Looks for a status, a content type or a shape that the admin document does not have, and for a 5xx."""
    (folder / "search.json").write_text(json.dumps(with_known_names(document)))
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = ["schemathesis", "run", str(folder / "search.json"), "--url", admin, "--header", f"Authorization: Bearer {OPERATOR}"]
    command += ["--checks", checks, "--max-time", str(SECONDS), "--seed", "1", "--no-color", "--generation-database", "none"]
    # A stream has no end, and metrics are not JSON.
    command += ["--exclude-path", "/v1/live", "--request-timeout", str(TIMEOUT), "--continue-on-failure"]
    subprocess.run(command, check=True, cwd=folder)
    print(f"schemathesis: every answer of the admin API in {SECONDS} s is as its document says", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
