{{/* Names and labels. */}}

{{- define "outbox-relay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Suffixes like -migrate still have room in 63. */}}
{{- define "outbox-relay.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of every object and pod of the release. */}}
{{- define "outbox-relay.ours" -}}
app.kubernetes.io/name: {{ include "outbox-relay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of the relay's pods alone, not of migrations and tests. It never changes: a selector cannot. */}}
{{- define "outbox-relay.selector" -}}
{{ include "outbox-relay.ours" . }}
app.kubernetes.io/component: relay
{{- end }}

{{/* What may change, beside one of the two above. */}}
{{- define "outbox-relay.more" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "outbox-relay.labels" -}}
{{ include "outbox-relay.selector" . }}
{{ include "outbox-relay.more" . }}
{{- end }}

{{/* Those and some of the values; of (dict "root" . "labels" .Values.podLabels). The schema keeps them apart from ours. */}}
{{- define "outbox-relay.labelsWith" -}}
{{- merge (deepCopy .labels) (include "outbox-relay.labels" .root | fromYaml) | toYaml }}
{{- end }}

{{- define "outbox-relay.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "outbox-relay.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "outbox-relay.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether an object of the Prometheus operator is rendered: of (dict "root" . "kind" "PodMonitor"). */}}
{{- define "outbox-relay.knows" -}}
{{- $mode := .root.Values.monitoring.renderMode }}
{{- $kind := printf "monitoring.coreos.com/v1/%s" .kind }}
{{- if or (eq $mode "alwaysRender") (.root.Capabilities.APIVersions.Has $kind) -}}
yes
{{- else if eq $mode "failIfMissing" }}
{{- fail (printf "this cluster does not know %s; install the Prometheus operator first, or set monitoring.renderMode" $kind) }}
{{- end }}
{{- end }}
