"""Tests deploy/prometheus/rules.yaml: every alert of it, as tests/deploy/alerts.yaml says, and its place in docs/operate.md.

usage: rules.py WORK_FOLDER
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
MANUAL = ROOT / "docs" / "operate.md"
SEVERITIES = {"critical", "warning", "info"}


def series(described):
    prefixed = ((name if name.startswith("up{") else "iluma_gateway_" + name, values) for name, values in described.items())
    return [{"series": name, "values": str(values)} for name, values in prefixed]


def test_of(name, case, rule):
    """An alert fires once at that time, and has not fired at the beginning, unless it waits for nothing."""
    labels = {key: value for key, value in case["labels"].items() if key != "alertname"}
    expected = {"exp_labels": labels, "exp_annotations": {"summary": case["summary"], "runbook_url": rule["annotations"]["runbook_url"]}}
    before = [] if name in AT_ONCE else [{"eval_time": "0s", "alertname": name}]
    fires = [{"eval_time": case["at"], "alertname": name, "exp_alerts": [expected]}]
    return {"interval": "1m", "name": name, "input_series": series(case["series"]), "alert_rule_test": before + fires}


# Those whose condition holds from the first value of their test and which wait for nothing.
AT_ONCE = {"TeamQuotaNearlySpent", "TeamQuotaSpent", "CallbacksDead"}


def healthy_test(healthy, names):
    # From when a series that is there from the beginning is no longer a new one.
    times = ["11m", "16m", "31m", "60m", "90m"]
    silent = [{"eval_time": time, "alertname": name} for name in names for time in times]
    return {"interval": "1m", "name": "healthy", "input_series": series(healthy), "alert_rule_test": silent}


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)


def check_manual(rules):
    """Each alert is a heading of the manual, followed by exactly its expression, and its link leads there."""
    text = MANUAL.read_text()
    flat = lambda expression: re.sub(r"\s+", " ", expression).strip()
    for rule in rules:
        name = rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"docs/operate.md#{name.lower()}", f"{name} has another runbook_url"
        section = re.search(rf"^#+ {name}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
        assert section, f"docs/operate.md has no heading {name}"
        shown = re.search(r"```promql\n(.*?)```", section[1], re.S)
        assert shown and flat(shown[1]) == flat(rule["expr"]), f"docs/operate.md shows another expression for {name}"
        waits = f"for {rule['for']}" if "for" in rule else "at once"
        first = section[1].strip().split("\n\n")[0]
        assert rule["labels"]["severity"] in first and waits in first, f"docs/operate.md: {name} is {rule['labels']['severity']}, {waits}"


def main(work):
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    cases = yaml.safe_load((ROOT / "tests" / "deploy" / "alerts.yaml").read_text())
    names = [rule["alert"] for rule in rules]
    assert list(cases["alerts"]) == names, f"tests and rules differ: {set(cases['alerts']) ^ set(names) or 'their order'}"
    assert all(rule["labels"]["severity"] in SEVERITIES for rule in rules)
    tests = [test_of(rule["alert"], cases["alerts"][rule["alert"]], rule) for rule in rules] + [healthy_test(cases["healthy"], names)]
    path = Path(work) / "rules-test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}, sort_keys=False))
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    promtool("test", "rules", str(path))
    check_manual(rules)
    print(f"rules: each of {len(rules)} alerts fires once in its test, and none when all is well")


if __name__ == "__main__":
    main(*sys.argv[1:])
