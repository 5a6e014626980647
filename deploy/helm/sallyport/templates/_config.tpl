{{/* SPDX-License-Identifier: Apache-2.0
Configuration files of the programs (config.v1). */}}

{{- define "sallyport.deployment" -}}
{{- $deployment := deepCopy .Values.deployment -}}
{{- if include "sallyport.edgeTls" . -}}
{{- $_ := set $deployment "extraHosts" (append (default list $deployment.extraHosts) (include "sallyport.internalHost" .)) -}}
{{- end -}}
{{- if include "sallyport.usesKubernetes" . -}}
{{- $egress := default dict $deployment.egress -}}
{{- $_ := set $egress "oauthNetworks" (append (default list $egress.oauthNetworks) (include "sallyport.apiServerNetwork" .) | uniq) -}}
{{- $_ := set $deployment "egress" $egress -}}
{{- end -}}
{{- toYaml $deployment -}}
{{- end }}

{{- define "sallyport.roles" -}}
{{- $roles := deepCopy .Values.roles -}}
{{- if include "sallyport.applies" . -}}
{{- $account := printf "%s:%s/%s-apply" .Values.kubernetes.id .Release.Namespace (include "sallyport.fullname" .) -}}
{{- range list "adminServiceAccounts" "credentialAdminServiceAccounts" -}}
{{- $_ := set $roles . (append (default list (index $roles .)) $account) -}}
{{- end -}}
{{- end -}}
{{- toYaml $roles -}}
{{- end }}

{{/* What authn is told of clusters. */}}
{{- define "sallyport.clusters" -}}
{{- $clusters := .Values.clusters -}}
{{- if include "sallyport.usesKubernetes" . -}}
{{- $own := dict "id" .Values.kubernetes.id "issuer" .Values.kubernetes.issuer "audience" (include "sallyport.audience" .)
    "caBundle" "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    "tokenFile" "/var/run/secrets/kubernetes.io/serviceaccount/token" -}}
{{- if eq .Values.kubernetes.verify "tokenReview" -}}
{{- $_ := set $own "tokenReviewUrl" .Values.kubernetes.apiServer -}}
{{- else -}}
{{- $_ := set $own "jwksUrl" (printf "%s/openid/v1/jwks" .Values.kubernetes.apiServer) -}}
{{- end -}}
{{- $clusters = prepend $clusters $own -}}
{{- end -}}
{{- toJson $clusters -}}
{{- end }}

{{/* Fields of authn that standalone has, too. */}}
{{- define "sallyport.people" -}}
connectors: {{ toJson .Values.connectors }}
clients: {{ toJson .Values.clients }}
roles: {{ include "sallyport.roles" . | fromYaml | toJson }}
platforms: {{ toJson .Values.platforms }}
kubernetes: {{ include "sallyport.clusters" . }}
{{- end }}

{{- define "sallyport.redisConfig" -}}
{{- $redis := dict "address" (ternary (printf "%s-redis:6379" (include "sallyport.fullname" .)) .Values.redis.address .Values.redis.bundled.enabled) -}}
{{- with .Values.redis.username }}{{ $_ := set $redis "username" . }}{{ end -}}
{{- if .Values.redis.passwordSecret }}{{ $_ := set $redis "passwordFile" "/etc/sallyport/redis/password" }}{{ end -}}
{{- mustMergeOverwrite $redis (deepCopy .Values.redis.config) | toJson -}}
{{- end }}

{{- define "sallyport.hasRedis" -}}
{{- if or .Values.redis.address .Values.redis.bundled.enabled }}true{{ end -}}
{{- end }}

{{- define "sallyport.platformListener" -}}
{{- $listener := dict "listen" (printf "%s:7100" .Values.listenAddress) "certificate" "/etc/sallyport/platform/tls.crt" "privateKey" "/etc/sallyport/platform/tls.key" -}}
{{- if .Values.tokenBroker.platform.clientCaSecret }}{{ $_ := set $listener "clientCaBundle" "/etc/sallyport/platform-clients/ca.crt" }}{{ end -}}
{{- mustMergeOverwrite $listener (deepCopy .Values.tokenBroker.platform.config) | toJson -}}
{{- end }}

{{- define "sallyport.publicListener" -}}
listen: "{{ .Values.listenAddress }}:{{ include "sallyport.publicPort" . }}"
{{- if include "sallyport.edgeTls" . }}
tls: {certificate: /etc/sallyport/public/tls.crt, privateKey: /etc/sallyport/public/tls.key}
{{- else }}
behindTlsProxy: true
{{- end }}
{{- end }}

{{/* Of (root, service): its PostgreSQL. */}}
{{- define "sallyport.database" -}}
{{- $values := .root.Values.postgresql -}}
{{- $database := index $values.databases .service -}}
{{- if $values.bundled.enabled -}}
postgresql: host={{ include "sallyport.fullname" .root }}-postgresql port=5432 dbname={{ .service }} user=sallyport sslmode=disable
{{- else -}}
postgresql: host={{ $values.host }} port={{ $values.port }} dbname={{ $database.name }} user={{ $database.user }} sslmode={{ $values.sslmode }}
{{- if $values.caSecret }} sslrootcert=/etc/sallyport/postgresql-ca/ca.crt
{{- else if hasPrefix "verify-" $values.sslmode }} sslrootcert=/etc/ssl/certs/ca-certificates.crt{{ end }}
{{- end }}
passwordFile: /etc/sallyport/postgresql/password
{{- end }}

{{/* Of (root, key). */}}
{{- define "sallyport.config" -}}
{{- $root := .root -}}
{{- $components := include "sallyport.components" $root | fromYaml -}}
{{- $meta := index $components .key -}}
{{- $peers := dict -}}
{{- range $meta.peers -}}
{{- $peer := index $components . -}}
{{- $_ := set $peers . (printf "dns:///%s-%s:%d" (include "sallyport.fullname" $root) $peer.component (int $peer.rpc)) -}}
{{- end -}}
{{- $config := dict
    "server" (dict
      "listen" (printf "%s:%d" $root.Values.listenAddress (int $meta.rpc))
      "adminListen" (printf "%s:%d" $root.Values.listenAddress (int $meta.admin))
      "logLevel" $root.Values.logLevel
      "tls" (dict "certificate" "/etc/sallyport/certs/tls.crt" "privateKey" "/etc/sallyport/certs/tls.key"
                  "caBundle" "/etc/sallyport/certs/ca.crt" "trustDomain" $root.Values.tls.trustDomain))
    "peers" $peers
    "deployment" (include "sallyport.deployment" $root | fromYaml) -}}
{{- if has .key (list "authn" "vault" "registry") -}}
{{- $_ := set $config "database" (include "sallyport.database" (dict "root" $root "service" .key) | fromYaml) -}}
{{- end -}}
{{- if eq .key "authn" -}}
{{- $config = merge $config (include "sallyport.people" $root | fromYaml) -}}
{{- else if eq .key "vault" -}}
{{- $_ := set $config "kek" (dict "directory" "/etc/sallyport/kek") -}}
{{- else if eq .key "edge" -}}
{{- $_ := set $config "dataDirectory" "/var/lib/sallyport" -}}
{{- $config = merge $config (include "sallyport.publicListener" $root | fromYaml) -}}
{{- else if eq .key "tokenBroker" -}}
{{- $_ := set $config "dataDirectory" "/var/lib/sallyport" -}}
{{- if include "sallyport.hasRedis" $root }}{{ $_ := set $config "redis" (include "sallyport.redisConfig" $root | fromJson) }}{{ end -}}
{{- if $root.Values.tokenBroker.platform.enabled }}{{ $_ := set $config "platform" (include "sallyport.platformListener" $root | fromJson) }}{{ end -}}
{{- end -}}
{{- mustMergeOverwrite $config (deepCopy (index $root.Values .key).config) | toYaml -}}
{{- end }}

{{- define "sallyport.standaloneConfig" -}}
{{- $config := dict
    "dataDirectory" "/var/lib/sallyport"
    "deployment" (include "sallyport.deployment" . | fromYaml)
    "adminListen" (printf "%s:9080" .Values.listenAddress)
    "logLevel" .Values.logLevel -}}
{{- $config = merge $config (include "sallyport.publicListener" . | fromYaml) (include "sallyport.people" . | fromYaml) -}}
{{- if include "sallyport.hasRedis" . }}{{ $_ := set $config "redis" (include "sallyport.redisConfig" . | fromJson) }}{{ end -}}
{{- if .Values.tokenBroker.platform.enabled }}{{ $_ := set $config "platform" (include "sallyport.platformListener" . | fromJson) }}{{ end -}}
{{- mustMergeOverwrite $config (deepCopy .Values.standalone.config) | toYaml -}}
{{- end }}
