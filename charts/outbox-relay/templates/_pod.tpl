{{/* What all pods have in common: the relay's, migrations' and the test's. */}}

{{/* Restricted, as Pod Security calls it, and not to be loosened by values. */}}
{{- define "outbox-relay.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAs.user }}
runAsUser: {{ int64 . }}
{{- end }}
{{- with .Values.runAs.group }}
runAsGroup: {{ int64 . }}
{{- end }}
{{- with .Values.runAs.fsGroup }}
fsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "outbox-relay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop:
    - ALL
{{- end }}

{{/* Where and how pods run, beside security. */}}
{{- define "outbox-relay.podSpec" -}}
automountServiceAccountToken: false
# Variables of services would stand beside those of the relay.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "outbox-relay.podSecurity" . | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Settings that the values name, as variables. A number that came as a float is still a whole one. */}}
{{- define "outbox-relay.settingsEnv" -}}
{{- $settings := .Values.settings }}
{{- range $key := keys $settings | sortAlpha }}
{{- $value := get $settings $key }}
{{- if kindIs "bool" $value }}
{{- $value = ternary "" "off" $value }}
{{- else if kindIs "float64" $value }}
{{- $value = int64 $value | toString }}
{{- else }}
{{- $value = toString (default "" $value) }}
{{- end }}
{{- if ne $value "" }}
- name: OUTBOX_{{ snakecase $key | upper }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of the relay alone: rules of the review, if there are any. */}}
{{- define "outbox-relay.reviewEnv" -}}
{{- with .Values.review }}
{{- if .rules }}
- name: OUTBOX_REVIEW_RULES
  value: /etc/outbox-relay/review/rules.toml
{{- with .every }}
- name: OUTBOX_REVIEW_EVERY
  value: {{ . | quote }}
{{- end }}
{{- if .remove }}
- name: OUTBOX_REVIEW_REMOVE
  value: "on"
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "outbox-relay.reviewMount" -}}
{{- if .Values.review.rules }}
- name: review
  mountPath: /etc/outbox-relay/review
  readOnly: true
{{- end }}
{{- end }}

{{- define "outbox-relay.reviewVolume" -}}
{{- if .Values.review.rules }}
- name: review
  projected:
    sources:
      - configMap:
          name: {{ include "outbox-relay.fullname" . }}-review
          items:
            - key: rules.toml
              path: rules.toml
{{- end }}
{{- end }}

{{/* All variables of the relay. Two of a name are refused by the cluster, or the last wins: better to hear of it now. */}}
{{- define "outbox-relay.env" -}}
{{- $servers := list (include "outbox-relay.serverEnv" .database) (include "outbox-relay.serverEnv" .redis) }}
{{- $settings := list (include "outbox-relay.settingsEnv" .root) }}
{{- if eq .command "run" }}
{{- $settings = append $settings (include "outbox-relay.reviewEnv" .root) }}
{{- end }}
{{- $env := join "\n" (concat $servers $settings) | fromYamlArray }}
{{- $http := printf "%s:%d" .root.Values.http.address (int64 .root.Values.http.port) }}
{{- $env = append $env (dict "name" "OUTBOX_HTTP" "value" $http) }}
{{- $names := list }}
{{- range $env }}
{{- $names = append $names .name }}
{{- end }}
{{- range .root.Values.extraEnv }}
{{- if has .name $names }}
{{- fail (printf "extraEnv: %s is set by other values already" .name) }}
{{- end }}
{{- end }}
{{- concat $env .root.Values.extraEnv | toYaml }}
{{- end }}

{{/* The container that makes the schema; of (dict "root" . "owner" …). */}}
{{- define "outbox-relay.migrate" -}}
- name: migrate
  image: {{ include "outbox-relay.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - migrate
    {{- range .root.Values.migrations.appRoles }}
    - --app-role={{ . }}
    {{- end }}
    {{- range .root.Values.migrations.workerRoles }}
    - --worker-role={{ . }}
    {{- end }}
    {{- range .root.Values.migrations.relayRoles }}
    - --relay-role={{ . }}
    {{- end }}
  env:
    {{- include "outbox-relay.serverEnv" .owner | trim | nindent 4 }}
    {{- with .root.Values.settings.log }}
    - name: OUTBOX_LOG
      value: {{ . | quote }}
    {{- end }}
    {{- with .root.Values.settings.logFormat }}
    - name: OUTBOX_LOG_FORMAT
      value: {{ . | quote }}
    {{- end }}
    {{- with .root.Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .root.Values.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "outbox-relay.containerSecurity" .root | nindent 4 }}
  {{- with default .root.Values.resources .root.Values.migrations.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $mounts := include "outbox-relay.mount" .owner | trim }}
  {{- if or $mounts .root.Values.extraVolumeMounts }}
  volumeMounts:
    {{- with $mounts }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .root.Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* The container that runs the program with all it needs to know; of (dict "root" "database" "redis" "command"). */}}
{{- define "outbox-relay.program" -}}
image: {{ include "outbox-relay.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args:
  - {{ .command }}
env:
  {{- include "outbox-relay.env" (dict "root" .root "database" .database "redis" .redis "command" .command) | nindent 2 }}
{{- with .root.Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "outbox-relay.containerSecurity" .root | nindent 2 }}
{{- with .root.Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $mounts := trim (printf "%s\n%s" (include "outbox-relay.mount" .database | trim) (include "outbox-relay.mount" .redis | trim)) }}
{{- if eq .command "run" }}
{{- $mounts = trim (printf "%s\n%s" $mounts (include "outbox-relay.reviewMount" .root | trim)) }}
{{- end }}
{{- if or $mounts .root.Values.extraVolumeMounts }}
volumeMounts:
  {{- with $mounts }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/*
Seconds that a pod is given to end: the time to drain, rounded up, and ten more for what comes after it, giving
the lease back and closing. A pod that is killed loses nothing, but its lease has to run out.
*/}}
{{- define "outbox-relay.grace" -}}
{{- $drain := default "20s" .Values.settings.drain }}
{{- $number := regexFind "^[0-9]+" $drain | int64 }}
{{- $unit := regexFind "[a-z]+$" $drain }}
{{- if eq $unit "ms" }}
{{- add 10 (div (add $number 999) 1000) }}
{{- else }}
{{- add 10 (mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit)) }}
{{- end }}
{{- end }}
