#!/usr/bin/env python3
"""Writes dashboards/*.json from the panels below: Overview, Teams, Money, Callbacks, Redis and nodes.

usage: generate.py [--check]      --check changes nothing, and fails if a file differs from what would be written

Figures that every node publishes alike (quotas, queues of callbacks) are taken as their maximum, never summed. Counters are each
node's own. $__rate_interval is Grafana's: long enough for four scrapes. Standard library only.
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "dashboards"
P = "iluma_gateway_"
# What the variables of every dashboard choose: the scrape job and nodes.
NODES = 'job=~"$job",instance=~"$instance"'
TENANTS = NODES + ',tenant=~"$tenant"'
RED, YELLOW, GREEN = "red", "yellow", "green"
WIDTH = 24


def steps(first, *rest):
    """Thresholds: a colour, then pairs of a value and the colour from there on."""
    return [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in rest]


BAD_ABOVE_ZERO = steps(GREEN, (1, RED))
GOOD_IS_ONE = steps(RED, (1, GREEN))


def panel(kind, title, description, *targets, unit="short", thresholds=None, width=8, height=7, stack=False, maximum=None, mappings=(), decimals=None):
    """One panel; a target is an expression and the name of its series."""
    field = {"unit": unit, "thresholds": {"mode": "absolute", "steps": thresholds or steps(GREEN)}, "mappings": list(mappings), "min": 0}
    if maximum is not None:
        field["max"] = maximum
    if decimals is not None:
        field["decimals"] = decimals
    options = {}
    if kind == "timeseries":
        custom = {"lineWidth": 1, "fillOpacity": 20 if stack else 8, "showPoints": "never", "stacking": {"mode": "normal" if stack else "none", "group": "A"}}
        custom["thresholdsStyle"] = {"mode": "dashed" if thresholds else "off"}
        field["custom"] = custom
        options = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}, "tooltip": {"mode": "multi", "sort": "desc"}}
    elif kind in ("stat", "bargauge", "gauge"):
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
        if kind == "bargauge":
            options = {"reduceOptions": options["reduceOptions"], "displayMode": "gradient", "orientation": "horizontal"}
    elif kind == "table":
        options = {"showHeader": True, "cellHeight": "sm"}
    instant = kind in ("stat", "bargauge", "gauge", "table")
    queries = [
        {"refId": chr(65 + at), "expr": expression, "legendFormat": name, "instant": instant, "range": not instant, "datasource": SOURCE}
        | ({"format": "table"} if kind == "table" else {})
        for at, (expression, name) in enumerate(targets)
    ]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "fieldConfig": {"defaults": field, "overrides": []},
        "options": options,
        "targets": queries,
    }


SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": 0}}


def variable(name, label, query):
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name}, "definition": query,
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2, "sort": 1,
    }


def dashboard(uid, title, description, panels, tenant=False):
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}, "refresh": 1},
        variable("job", "Job", f"label_values({P}build_info, job)"),
        variable("instance", "Node", f'label_values({P}build_info{{job=~"$job"}}, instance)'),
    ]
    if tenant:
        variables.append(variable("tenant", "Team", f'label_values({P}requests_total{{job=~"$job"}}, tenant)'))
    return {
        "uid": f"iluma-gateway-{uid}", "title": f"Iluma gateway / {title}", "description": description, "tags": ["iluma-gateway"],
        "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"}, "templating": {"list": variables}, "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["iluma-gateway"], "title": "Iluma gateway", "asDropdown": True, "includeVars": True, "keepTime": True}],
        "panels": laid_out(panels),
    }


def laid_out(panels):
    """Gives each panel its place, from left to right."""
    x = y = high = 0
    for number, one in enumerate(panels, 1):
        place = one["gridPos"]
        if x + place["w"] > WIDTH:
            x, y, high = 0, y + high, 0
        place["x"], place["y"], one["id"] = x, y, number
        x, high = x + place["w"], max(high, place["h"])
    return panels


def rate(metric, labels="", by="", where=NODES):
    """A counter a second, summed over nodes."""
    selector = where + ("," + labels if labels else "")
    return f"sum{f' by ({by})' if by else ''} (rate({P}{metric}{{{selector}}}[$__rate_interval]))"


def share(metric, labels, where=NODES, by=""):
    """The part of a counter's increase that has these labels; 0 where it has none."""
    return f"({rate(metric, labels, by, where)} or 0 * {rate(metric, '', by, where)}) / {rate(metric, '', by, where)}"


def grew(metric, labels="", by="", where=NODES):
    """A counter's increase over the dashboard's time, summed over nodes."""
    selector = where + ("," + labels if labels else "")
    return f"sum{f' by ({by})' if by else ''} (increase({P}{metric}{{{selector}}}[$__range]))"


def grown(metric, labels="", by="", where=NODES):
    """The same, and 0 where there is none."""
    increase = grew(metric, labels, by, where)
    return increase if by else f"{increase} or vector(0)"


def total(expression):
    return f"sum({expression})"


def per_minute(expression):
    return f"60 * {expression}"


def divided(part, whole):
    return f"({part}) / ({whole} > 0)"


def common(metric, labels="", by="", where=NODES):
    """A figure that every node publishes alike."""
    selector = where + ("," + labels if labels else "")
    return f"max{f' by ({by})' if by else ''} ({P}{metric}{{{selector}}})"


def quantile(part, metric, by, labels=""):
    selector = NODES + ("," + labels if labels else "")
    return f"histogram_quantile({part}, sum by (le{', ' + by if by else ''}) (rate({P}{metric}_bucket{{{selector}}}[$__rate_interval])))"


def overview():
    return dashboard("overview", "Overview", "Is it well, how much does it do, how fast, and what fails.", [
        panel("stat", "Nodes", "Nodes that answer Prometheus.", (f"count({P}build_info{{{NODES}}})", "nodes"), width=4, height=4, thresholds=GOOD_IS_ONE),
        panel("stat", "Requests", "Answered a second, over all nodes.", (rate("requests_total"), "requests"), unit="reqps", width=4, height=4),
        panel("stat", "5xx", "Part of the answers that are 5xx. Alert IlumaGatewayErrors from 5 % on.",
              (share("requests_total", 'status=~"5.."'), "5xx"), unit="percentunit", width=4, height=4, thresholds=steps(GREEN, (0.01, YELLOW), (0.05, RED))),
        panel("stat", "Hits", "Part of the answers that came from the cache.", (share("requests_total", 'cache=~"hit|stale"'), "hits"), unit="percentunit", width=4, height=4),
        panel("stat", "Circuits open", "Accounts to which nothing is sent, because Iluma fails. Alert IlumaCircuitOpen.",
              (f"count(max by (account) ({P}circuit_open{{{NODES}}}) == 1) or vector(0)", "open"), width=4, height=4, thresholds=BAD_ABOVE_ZERO),
        panel("stat", "Redis", "1 while every node can use its Redis, and where none is configured. Alert RedisDown.",
              (f"min({P}redis_up{{{NODES}}})", "up"), width=4, height=4, thresholds=GOOD_IS_ONE),
        row("Requests"),
        panel("timeseries", "Requests by route", "Answered a second.", (rate("requests_total", by="route"), "{{route}}"), unit="reqps", stack=True),
        panel("timeseries", "Answers by status", "Answered a second.", (rate("requests_total", by="status"), "{{status}}"), unit="reqps", stack=True),
        panel("timeseries", "Answers by cache", "hit, stored and miss are questions of cached routes; - had no part in it.",
              (rate("requests_total", by="cache"), "{{cache}}"), unit="reqps", stack=True),
        panel("timeseries", "Latency of hits", "From a request's head to the last byte of its answer. Alert IlumaGatewayHitsSlow from 100 ms on.",
              (quantile(0.5, "request_duration_seconds", "", 'cache="hit"'), "half"), (quantile(0.99, "request_duration_seconds", "", 'cache="hit"'), "99 %"),
              unit="s", thresholds=steps(GREEN, (0.1, RED))),
        panel("timeseries", "Latency by route, 95 %", "Whole requests, Iluma's part included.", (quantile(0.95, "request_duration_seconds", "route"), "{{route}}"), unit="s"),
        panel("timeseries", "In flight", "Requests being served by a node, of 4096 (server.max_in_flight). Alert IlumaGatewayNearlyFull.",
              (f"{P}in_flight{{{NODES}}}", "{{instance}}"), thresholds=steps(GREEN, (3277, RED))),
        row("Iluma"),
        panel("timeseries", "Calls by account and status", "Sent to Iluma a second; error: no answer.", (rate("upstream_requests_total", by="account, status"), "{{account}} {{status}}"), unit="reqps", stack=True),
        panel("timeseries", "Failed calls", "Part of the calls without an answer or with a 5xx. Alert IlumaFails from 10 % on.",
              (share("upstream_requests_total", 'status=~"error|5.."', by="account"), "{{account}}"), unit="percentunit", thresholds=steps(GREEN, (0.1, RED))),
        panel("timeseries", "Iluma's latency by route, 95 %", "Read routes to the last byte, streamed ones to the head. Alert IlumaSlow from 10 s on.",
              (quantile(0.95, "upstream_duration_seconds", "route"), "{{route}}"), unit="s", thresholds=steps(GREEN, (10, RED))),
        row("What the gateway refused"),
        panel("timeseries", "Errors by reason", "Errors that the gateway made, a second, as in x-gateway-error.", (rate("gateway_errors_total", by="reason"), "{{reason}}"), unit="reqps", width=12),
        panel("timeseries", "Refused for a limit", "A second; account: the account's rate is too small for all teams.", (rate("rate_limited_total", by="limit"), "{{limit}}"), unit="reqps", width=12),
    ])


def teams():
    return dashboard("teams", "Teams", "What each team asks, gets and is refused.", [
        panel("timeseries", "Requests", "Answered a second. none: no known key.", (rate("requests_total", by="tenant", where=TENANTS), "{{tenant}}"), unit="reqps", stack=True),
        panel("timeseries", "Client errors", "Part of a team's answers that are 4xx.", (share("requests_total", 'status=~"4.."', by="tenant", where=TENANTS), "{{tenant}}"), unit="percentunit"),
        panel("timeseries", "Server errors", "Part of a team's answers that are 5xx.", (share("requests_total", 'status=~"5.."', by="tenant", where=TENANTS), "{{tenant}}"), unit="percentunit", thresholds=steps(GREEN, (0.05, RED))),
        panel("timeseries", "Answered without a call", "Part of a team's requests that needed none: hits, collapsed and shared ones.",
              (divided(rate("upstream_calls_saved_total", by="tenant", where=TENANTS), rate("requests_total", by="tenant", where=TENANTS)), "{{tenant}}"), unit="percentunit"),
        panel("timeseries", "Refused for a limit", "A second, by limit. Alert TeamRateLimited from 10 % of a team's requests on.", (rate("rate_limited_total", by="tenant, limit", where=TENANTS), "{{tenant}} {{limit}}"), unit="reqps"),
        panel("timeseries", "Requests by route", "Answered a second, of the chosen teams.", (rate("requests_total", by="route", where=TENANTS), "{{route}}"), unit="reqps", stack=True),
        row("Quotas"),
        panel("bargauge", "Used of the quota", "Calls that Iluma may charge for, of this day or month, as a part of what the team may have. Alerts TeamQuotaNearlySpent, TeamQuotaSpent.",
              (f"{common('quota_used', by='tenant, period', where=TENANTS)} / {common('quota_limit', by='tenant, period', where=TENANTS)}", "{{tenant}} {{period}}"),
              unit="percentunit", maximum=1, width=12, thresholds=steps(GREEN, (0.8, YELLOW), (1, RED))),
        panel("timeseries", "Calls of the quota", "Used, of all nodes together.", (common("quota_used", by="tenant, period", where=TENANTS), "{{tenant}} {{period}}"), width=6),
        panel("timeseries", "Beyond a quota in shadow mode", "Calls that would have been refused, a minute.", (per_minute(rate("quota_beyond_total", by="tenant, period", where=TENANTS)), "{{tenant}} {{period}}"), unit="cpm", width=6),
        row("By team"),
        panel("table", "Answers by team, route and status", "Of the dashboard's whole time.", (f"sort_desc({grown('requests_total', by='tenant, route, status', where=TENANTS)} > 0)", ""), width=24, height=9, decimals=0),
    ], tenant=True)


def money():
    return dashboard("money", "Money", "Calls that cost, and calls that did not have to be made. In rupiah: iluma-gateway usage, or GET /v1/usage.", [
        panel("stat", "Calls to Iluma", "Sent in the dashboard's time; looks at results are among them, and cost nothing.", (grown("upstream_requests_total"), "calls"), width=6, height=4, decimals=0),
        panel("stat", "Calls saved", "Requests that needed no call in the dashboard's time.", (grown("upstream_calls_saved_total"), "saved"), width=6, height=4, decimals=0),
        panel("stat", "Saved of all questions", "Saved, as a part of saved and sent on cached routes.",
              (divided(grew("upstream_calls_saved_total"), grew("upstream_calls_saved_total") + " + " + grew("upstream_requests_total", 'route=~"bank|cft|bank_codes"')), "saved"),
              unit="percentunit", width=6, height=4),
        panel("stat", "Calls without an outcome", "No answer, or a 5xx other than 503: they may have been charged. See iluma-gateway usage, and /v1/usage/unknown.",
              (grown("upstream_requests_total", 'status=~"error|500|502|504"'), "unknown"), width=6, height=4, decimals=0, thresholds=steps(GREEN, (1, YELLOW))),
        panel("timeseries", "Calls by route", "Sent to Iluma, a minute.", (per_minute(rate("upstream_requests_total", by="route")), "{{route}}"), unit="cpm", stack=True, width=12),
        panel("timeseries", "Saved by route", "Requests that needed no call, a minute.", (per_minute(rate("upstream_calls_saved_total", by="route")), "{{route}}"), unit="cpm", stack=True, width=12),
        panel("timeseries", "Saved by team", "Requests that needed no call, a minute.", (per_minute(rate("upstream_calls_saved_total", by="tenant", where=TENANTS)), "{{tenant}}"), unit="cpm", stack=True),
        panel("timeseries", "Saved by how", "hit: from the cache; collapsed: shared a call that was under way; shared: shared a pending request.", (per_minute(rate("upstream_calls_saved_total", by="how")), "{{how}}"), unit="cpm", stack=True),
        panel("timeseries", "Charged calls of the month", "Of teams with a monthly quota, all nodes together.", (common("quota_used", 'period="month"', by="tenant", where=TENANTS), "{{tenant}}")),
        panel("bargauge", "Calls by account and route", "Of the dashboard's whole time.", (f"sort_desc({grown('upstream_requests_total', by='account, route')})", "{{account}} {{route}}"), width=12, decimals=0),
        panel("bargauge", "Saved by team and route", "Of the dashboard's whole time.", (f"sort_desc({grown('upstream_calls_saved_total', by='tenant, route', where=TENANTS)})", "{{tenant}} {{route}}"), width=12, decimals=0),
    ], tenant=True)


def callbacks():
    return dashboard("callbacks", "Callbacks", "What came from Iluma, what went to teams, what waits and what was given up.", [
        panel("stat", "Oldest still to be delivered", "Alert CallbacksLate from an hour on.", (common("callback_oldest_seconds"), "age"), unit="s", width=6, height=4, thresholds=steps(GREEN, (300, YELLOW), (3600, RED))),
        panel("stat", "Queued", "Deliveries that wait for their next attempt, of all teams.", (total(common("callback_queue", 'state="queued"', by="tenant")), "queued"), width=6, height=4, decimals=0),
        panel("stat", "Dead letters", "Given up; kept for a replay. Alert CallbacksDead.", (total(common("callback_queue", 'state="dead"', by="tenant")), "dead"), width=6, height=4, decimals=0, thresholds=BAD_ABOVE_ZERO),
        panel("stat", "Unowned", "Callbacks that no team is known to own. Alert CallbacksUnowned.", (common("callback_queue", 'state="unowned"'), "unowned"), width=6, height=4, decimals=0, thresholds=BAD_ABOVE_ZERO),
        panel("timeseries", "Received by outcome", "From Iluma, a minute; repeat: known already.", (per_minute(rate("callbacks_received_total", by="outcome")), "{{outcome}}"), unit="cpm", stack=True),
        panel("timeseries", "Received by type", "From Iluma, a minute.", (per_minute(rate("callbacks_received_total", by="account, type")), "{{account}} {{type}}"), unit="cpm", stack=True),
        panel("timeseries", "Not taken", "Callbacks that were refused or could not be stored, a minute. Alerts CallbacksNotStored, CallbacksUnauthorized.",
              (per_minute("(" + rate("callbacks_received_total", 'outcome!~"stored|repeat|test"') + " or vector(0))"), "refused"), unit="cpm", thresholds=steps(GREEN, (1, RED))),
        panel("timeseries", "Attempts by outcome", "Toward teams, a minute: delivered; failed: tried again; dead: given up; dropped: the outbox was full; no_url, lost: none was made.",
              (per_minute(rate("callback_deliveries_total", by="outcome", where=TENANTS)), "{{outcome}}"), unit="cpm", stack=True),
        panel("timeseries", "Failed attempts by team", "Part of a team's attempts that failed.",
              (divided(rate("callback_deliveries_total", 'outcome=~"failed|dead"', "tenant", TENANTS), rate("callback_deliveries_total", 'outcome=~"delivered|failed|dead"', "tenant", TENANTS)), "{{tenant}}"),
              unit="percentunit", thresholds=steps(GREEN, (0.5, RED))),
        panel("timeseries", "Oldest still to be delivered", "All nodes say the same where they share a Redis.", (common("callback_oldest_seconds"), "age"), unit="s", thresholds=steps(GREEN, (3600, RED))),
        panel("timeseries", "Queued by team", "Deliveries that wait for their next attempt.", (common("callback_queue", 'state="queued"', by="tenant", where=TENANTS), "{{tenant}}"), width=12),
        panel("timeseries", "Dead letters by team", "Replay them once the team's endpoint is well: POST /v1/callbacks/replay.", (common("callback_queue", 'state="dead"', by="tenant", where=TENANTS), "{{tenant}}"), width=12, thresholds=BAD_ABOVE_ZERO),
    ], tenant=True)


def nodes():
    return dashboard("nodes", "Redis and nodes", "Each node, its memory of answers, its Redis, its configuration and its logs.", [
        panel("table", "Nodes", "Versions that run. Alert IlumaGatewayVersionsDiffer after an hour of more than one.", (f"{P}build_info{{{NODES}}}", ""), width=12, height=6),
        panel("timeseries", "Redis", "1 while every Redis of a node answers. Alert RedisDown.", (f"{P}redis_up{{{NODES}}}", "{{instance}}"), maximum=1, width=12, height=6, thresholds=GOOD_IS_ONE),
        panel("timeseries", "Cache in Redis", "Questions of nodes to Redis a second, by what it had; damaged: it does not decrypt.", (rate("redis_cache_total", by="outcome"), "{{outcome}}"), unit="reqps", stack=True),
        panel("timeseries", "Found in Redis", "Part of the questions to Redis that it could answer.", (share("redis_cache_total", 'outcome="hit"'), "hits"), unit="percentunit", maximum=1),
        panel("stat", "Damaged values", "Values in Redis that do not decrypt, in the dashboard's time. Alert RedisValuesDamaged.", (grown("redis_cache_total", 'outcome="damaged"'), "damaged"), thresholds=BAD_ABOVE_ZERO, decimals=0),
        panel("timeseries", "Answers in memory", "By node.", (f"{P}cache_entries{{{NODES}}}", "{{instance}}")),
        panel("timeseries", "Memory of answers", "By node, of 256 MiB (cache.memory). Near it entries leave before their time.", (f"{P}cache_bytes{{{NODES}}}", "{{instance}}"), unit="bytes"),
        panel("timeseries", "Requests by node", "A second: uneven is the load balancer's doing.", (rate("requests_total", by="instance"), "{{instance}}"), unit="reqps"),
        panel("timeseries", "Connections", "By node and listener, of 10000 (server.max_connections). Alert IlumaGatewayNearlyFull.", (f"sum by (instance, listener) ({P}connections{{{NODES}}})", "{{instance}} {{listener}}")),
        panel("timeseries", "Failed TLS handshakes", "A second. Alert TlsHandshakesFail from one a second on.", (rate("tls_handshake_failures_total", by="listener"), "{{listener}}"), unit="reqps", thresholds=steps(GREEN, (1, RED))),
        panel("timeseries", "Scrapes", "1 while Prometheus reaches a node. Alert IlumaGatewayDown.", ('up{job=~"$job",instance=~"$instance"}', "{{instance}}"), maximum=1, thresholds=GOOD_IS_ONE),
        panel("timeseries", "Free disk", "Where state.path is. Alert IlumaGatewayDiskLow below 1 GiB; below state.disk_reserve only what must not be lost is written.", (f"{P}disk_free_bytes{{{NODES}}}", "{{instance}}"), unit="bytes"),
        panel("timeseries", "Cache on disk", "1 while a node can use the file of its disk cache, and where none is configured. Alert IlumaGatewayCacheDiskDown.", (f"{P}cache_disk_up{{{NODES}}}", "{{instance}}"), maximum=1, thresholds=GOOD_IS_ONE),
        panel("stat", "Unreadable state", "Entries that do not decrypt, in the dashboard's time. Alert IlumaGatewayStateUnreadable.", (grown("state_unreadable_total"), "unreadable"), thresholds=BAD_ABOVE_ZERO, decimals=0),
        panel("timeseries", "Errors of the books", "Requests that were refused because books or state could not be written or read, a second. Alert IlumaGatewayBooksNotWritable.",
              (rate("gateway_errors_total", 'reason=~"ledger_unavailable|state_unavailable"') + " or vector(0)", "refused"), unit="reqps", thresholds=steps(GREEN, (0.001, RED))),
        panel("stat", "Refused configurations", "Reloads whose configuration had faults; the old one stayed. Alert IlumaGatewayReloadRefused.", (grown("config_reloads_total", 'outcome="refused"'), "refused"), thresholds=BAD_ABOVE_ZERO, decimals=0, height=4),
        panel("stat", "Lost log lines", "Nobody read the node's output fast enough. Alert IlumaGatewayLogLinesDropped.", (grown("log_lines_dropped_total"), "lost"), thresholds=BAD_ABOVE_ZERO, decimals=0, height=4),
        panel("stat", "Redactions", "Texts that the scrubber took out of log lines. Alert LogRedactions.", (grown("redactions_total"), "redactions"), thresholds=BAD_ABOVE_ZERO, decimals=0, height=4),
    ])


def main():
    wrong = []
    FOLDER.mkdir(exist_ok=True)
    boards = {"overview": overview(), "teams": teams(), "money": money(), "callbacks": callbacks(), "nodes": nodes()}
    for name, board in boards.items():
        path, text = FOLDER / f"{name}.json", json.dumps(board, indent=1, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            wrong.append(path.name)
    if wrong or (extra := {path.stem for path in FOLDER.glob("*.json")} - boards.keys()):
        raise SystemExit(f"differs from what deploy/grafana/generate.py writes: {wrong or extra}")


if __name__ == "__main__":
    main()
