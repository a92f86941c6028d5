{{- define "iluma-gateway.name" -}}
{{- printf "%s" (ternary .Release.Name (printf "%s-iluma-gateway" .Release.Name) (contains "iluma-gateway" .Release.Name)) | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "iluma-gateway.selector" -}}
app.kubernetes.io/name: iluma-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "iluma-gateway.labels" -}}
{{ include "iluma-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "iluma-gateway.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- .Values.image.repository -}}{{- ternary "@" ":" (hasPrefix "sha256:" $tag) -}}{{- $tag -}}
{{- end -}}

{{/* The port with health and metrics. */}}
{{- define "iluma-gateway.healthPort" -}}
{{- ternary "status" "admin" .Values.status.enabled -}}
{{- end -}}

{{/* Seconds of a span like "1m 30s". */}}
{{- define "iluma-gateway.seconds" -}}
{{- $units := dict "s" 1 "m" 60 "h" 3600 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(s|m|h)" (toString .) -1 -}}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | atoi) (get $units (regexFind "[smh]$" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* gateway.toml. Numbers of values are floating point to Helm, and whole ones are written as such again. */}}
{{- define "iluma-gateway.toml" -}}
{{- $listen := dict "server" (dict "listen" "0.0.0.0:8080") "callbacks" (dict "listen" "0.0.0.0:8081") "admin" (dict "listen" "0.0.0.0:9090") -}}
{{- if .Values.status.enabled -}}
{{- $_ := set $listen "status" (dict "listen" "0.0.0.0:9091") -}}
{{- end -}}
{{- $own := mergeOverwrite $listen (dict "state" (dict "path" "/var/lib/iluma-gateway/iluma-gateway.db")) -}}
{{- regexReplaceAll "(?m)= ([0-9]+)\\.0$" (mergeOverwrite (deepCopy .Values.config) $own | toToml) "= ${1}" -}}
{{- end -}}

{{/* What would not work is refused here, before a pod fails. */}}
{{- define "iluma-gateway.check" -}}
{{- if not .Values.config.accounts -}}{{- fail "config.accounts is empty: name at least one Iluma account, see ci/one-node.yaml" -}}{{- end -}}
{{- if not .Values.config.tenants -}}{{- fail "config.tenants is empty: name at least one team, see ci/one-node.yaml" -}}{{- end -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.config.state.redis) -}}{{- fail "more than one node need config.state.redis" -}}{{- end -}}
{{- $health := get .Values.config (include "iluma-gateway.healthPort" .) | default dict -}}
{{- if dig "tls" "client_ca" "" $health -}}{{- fail "probes and Prometheus have no client certificate: the listener with health and metrics can't ask for one" -}}{{- end -}}
{{- if ne (empty $health.tls) (eq .Values.probeScheme "HTTP") -}}{{- fail "probeScheme has to be HTTPS where the listener with health and metrics has TLS, and HTTP where it has none" -}}{{- end -}}
{{- $drain := include "iluma-gateway.seconds" .Values.config.server.drain_timeout | int -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int (add $drain .Values.preStopSleepSeconds)) -}}
{{- fail "terminationGracePeriodSeconds has to be longer than config.server.drain_timeout and preStopSleepSeconds together" -}}
{{- end -}}
{{- end -}}
