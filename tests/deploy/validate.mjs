// Validates objects of the Prometheus operator, a JSON list on standard input. Copied beside its node_modules by tests/deploy/run.
import { readFileSync } from "node:fs";
import { PrometheusRule, ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const kinds = { PrometheusRule, ServiceMonitor };
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const Kind = kinds[object.kind];
  if (!Kind) throw new Error(`${object.kind} is not known here`);
  new Kind(object).validate();
}
