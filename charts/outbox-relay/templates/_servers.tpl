{{/*
Where Postgres and Redis are. A server is a dict: "root", "kind" (database or redis), "values" (that part of the
values), "at" (how the values call it, for messages), "inline" (key in the chart's own Secret, and "secret", its name).
*/}}

{{- define "outbox-relay.database" -}}
{{- dict "kind" "database" "at" "database" "values" .Values.database "inline" "database-url" "secret" (include "outbox-relay.fullname" .) | toYaml }}
{{- end }}

{{- define "outbox-relay.redis" -}}
{{- dict "kind" "redis" "at" "redis" "values" .Values.redis "inline" "redis-url" "secret" (include "outbox-relay.fullname" .) | toYaml }}
{{- end }}

{{/* How its URL is given: url, parts or inline; none of them is "", and more than one is refused. */}}
{{- define "outbox-relay.given" -}}
{{- $given := list }}
{{- if .values.urlSecret.name }}{{ $given = append $given "url" }}{{ end }}
{{- if .values.partsSecret.name }}{{ $given = append $given "parts" }}{{ end }}
{{- if .values.url }}{{ $given = append $given "inline" }}{{ end }}
{{- if gt (len $given) 1 }}
{{- fail (printf "%s: set one of urlSecret.name, partsSecret.name and url, not several" .at) }}
{{- end }}
{{- first (append $given "") }}
{{- end }}

{{/*
Postgres as the owner of the schema sees it: as the relay does, unless migrations.database says otherwise. A
certificate to show belongs to a role, so the relay's is not shown for another one.
*/}}
{{- define "outbox-relay.owner" -}}
{{- $name := include "outbox-relay.fullname" . }}
{{- $own := .Values.migrations.database }}
{{- $hook := eq .Values.migrations.mode "hook" }}
{{- if eq (include "outbox-relay.given" (dict "at" "migrations.database" "values" $own)) "" }}
{{- $secret := ternary (printf "%s-migrate" $name) $name $hook }}
{{- $inline := ternary "migrate-url" "database-url" $hook }}
{{- dict "kind" "database" "at" "database" "values" .Values.database "inline" $inline "secret" $secret | toYaml }}
{{- else }}
{{- $own = deepCopy $own }}
{{- if not (or $own.tls.caSecret.name $own.tls.caConfigMap.name) }}
{{- $_ := set $own.tls "caSecret" .Values.database.tls.caSecret }}
{{- $_ := set $own.tls "caConfigMap" .Values.database.tls.caConfigMap }}
{{- end }}
{{- $secret := ternary (printf "%s-migrate" $name) $name $hook }}
{{- dict "kind" "database" "at" "migrations.database" "values" $own "inline" "migrate-url" "secret" $secret | toYaml }}
{{- end }}
{{- end }}

{{/* What the values of a server must be beyond what a schema can say. */}}
{{- define "outbox-relay.check" -}}
{{- $given := include "outbox-relay.given" . }}
{{- $tls := .values.tls }}
{{- if not $given }}
{{- fail (printf "%s: name a Secret that holds the URL in %s.urlSecret.name, or its parts in %s.partsSecret.name" .at .at .at) }}
{{- end }}
{{- if and $tls.caSecret.name $tls.caConfigMap.name }}
{{- fail (printf "%s.tls: set one of caSecret.name and caConfigMap.name, not both" .at) }}
{{- end }}
{{- if and (eq $given "parts") (eq .kind "database") }}
{{- range list "host" "user" }}
{{- if not (or (get $.values.parts .) (get $.values.partsSecret.keys .)) }}
{{- fail (printf "%s: set parts.%s, or the key that holds it in partsSecret.keys.%s" $.at . .) }}
{{- end }}
{{- end }}
{{- if and (eq .values.parts.sslmode "disable") (or $tls.caSecret.name $tls.caConfigMap.name $tls.clientSecret.name $tls.acceptAnyName) }}
{{- fail (printf "%s: parts.sslmode is disable, but %s.tls is set; drop one of them" .at .at) }}
{{- end }}
{{- end }}
{{- if and (eq $given "parts") (eq .kind "redis") }}
{{- if not .values.parts.address }}
{{- fail "redis: set parts.address to host:port" }}
{{- end }}
{{- if and (hasSuffix "+sentinel" .values.parts.scheme) (not .values.parts.path) }}
{{- fail "redis: set parts.path to the name that the sentinels have for the primary, like mymaster/0" }}
{{- end }}
{{- end }}
{{- if and (eq $given "parts") (not .values.partsSecret.keys.password) }}
{{- fail (printf "%s: set partsSecret.keys.password; without a password there is nothing to keep secret" .at) }}
{{- end }}
{{- end }}

{{/* A list of what is mounted at /etc/outbox-relay/<kind>, as sources of a projected volume. */}}
{{- define "outbox-relay.sources" -}}
{{- $given := include "outbox-relay.given" . }}
{{- $tls := .values.tls }}
{{- if eq $given "url" }}
- secret:
    name: {{ tpl .values.urlSecret.name .root | quote }}
    items:
      - key: {{ .values.urlSecret.key | quote }}
        path: url
{{- else if eq $given "inline" }}
- secret:
    name: {{ .secret }}
    items:
      - key: {{ .inline }}
        path: url
{{- end }}
{{- if $tls.caSecret.name }}
- secret:
    name: {{ tpl $tls.caSecret.name .root | quote }}
    items:
      - key: {{ $tls.caSecret.key | quote }}
        path: ca.crt
{{- else if $tls.caConfigMap.name }}
- configMap:
    name: {{ tpl $tls.caConfigMap.name .root | quote }}
    items:
      - key: {{ $tls.caConfigMap.key | quote }}
        path: ca.crt
{{- end }}
{{- if $tls.clientSecret.name }}
- secret:
    name: {{ tpl $tls.clientSecret.name .root | quote }}
    items:
      - key: {{ $tls.clientSecret.certKey | quote }}
        path: tls.crt
      - key: {{ $tls.clientSecret.keyKey | quote }}
        path: tls.key
{{- end }}
{{- end }}

{{/* A volume of a server, if it needs files; "volume" is its name. */}}
{{- define "outbox-relay.volume" -}}
{{- $sources := include "outbox-relay.sources" . | trim }}
{{- if $sources }}
- name: {{ .volume }}
  projected:
    # For the group only, which is fsGroup: keys are among them.
    defaultMode: 0440
    sources:
      {{- $sources | nindent 6 }}
{{- end }}
{{- end }}

{{- define "outbox-relay.mount" -}}
{{- if include "outbox-relay.sources" . | trim }}
- name: {{ .volume }}
  mountPath: /etc/outbox-relay/{{ .kind }}
  readOnly: true
{{- end }}
{{- end }}

{{/* The variables of a server. */}}
{{- define "outbox-relay.serverEnv" -}}
{{- $given := include "outbox-relay.given" . }}
{{- $up := upper .kind }}
{{- $folder := printf "/etc/outbox-relay/%s" .kind }}
{{- $tls := .values.tls }}
{{- if eq $given "parts" }}
{{- $secret := tpl .values.partsSecret.name .root }}
{{- $parts := .values.parts }}
{{- $url := "" }}
{{- range $part := list "host" "port" "database" "user" "password" }}
{{- $said := toString (default "" (get $parts $part)) }}
{{- $key := default "" (get $.values.partsSecret.keys $part) }}
{{- if or $said $key }}
- name: {{ $up }}_{{ upper $part }}
  {{- if $said }}
  value: {{ $said | quote }}
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret | quote }}
      key: {{ $key | quote }}
  {{- end }}
  {{- if eq $.kind "database" }}
  {{- $url = printf "%s %s='$(DATABASE_%s)'" $url (ternary "dbname" $part (eq $part "database")) (upper $part) }}
  {{- end }}
{{- end }}
{{- end }}
- name: {{ $up }}_URL
{{- if eq .kind "database" }}
  {{- with $parts.sslmode }}
  {{- $url = printf "%s sslmode=%s" $url . }}
  {{- end }}
  value: {{ trim $url | quote }}
{{- else }}
  {{- $user := ternary "$(REDIS_USER)" "" (or (ne $parts.user "") (ne .values.partsSecret.keys.user "")) }}
  value: {{ printf "%s://%s:$(REDIS_PASSWORD)@%s/%s" $parts.scheme $user $parts.address (trimPrefix "/" $parts.path) | quote }}
{{- end }}
{{- else if $given }}
- name: {{ $up }}_URL_FILE
  value: {{ $folder }}/url
{{- end }}
{{- if or $tls.caSecret.name $tls.caConfigMap.name }}
- name: {{ $up }}_TLS_CA
  value: {{ $folder }}/ca.crt
{{- end }}
{{- if $tls.clientSecret.name }}
- name: {{ $up }}_TLS_CERT
  value: {{ $folder }}/tls.crt
- name: {{ $up }}_TLS_KEY
  value: {{ $folder }}/tls.key
{{- end }}
{{- if $tls.acceptAnyName }}
- name: {{ $up }}_TLS_ACCEPT_ANY_NAME
  value: "on"
{{- end }}
{{- end }}
