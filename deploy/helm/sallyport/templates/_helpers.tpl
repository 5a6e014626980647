{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{- define "sallyport.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Who calls whom: the arrows of docs/architecture.md. NetworkPolicies and addresses are made of this. */}}
{{- define "sallyport.components" -}}
edge: {component: edge, service: edge, program: sallyport-edge, rpc: 7000, admin: 9000, peers: [authn, tokenBroker, registry, vault]}
authn: {component: authn, service: authn, program: sallyport-authn, rpc: 7001, admin: 9001, peers: [registry, vault, tokenBroker]}
tokenBroker: {component: token-broker, service: token_broker, program: sallyport-token-broker, rpc: 7002, admin: 9002, peers: [authn, registry, vault]}
vault: {component: vault, service: vault, program: sallyport-vault, rpc: 7003, admin: 9003, peers: [authn, registry]}
registry: {component: registry, service: registry, program: sallyport-registry, rpc: 7004, admin: 9004, peers: [authn, vault]}
{{- end }}

{{/* Of (root, component). */}}
{{- define "sallyport.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "sallyport.labels" -}}
{{ include "sallyport.selector" . }}
app.kubernetes.io/part-of: sallyport
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name and labels; of (root, component, name). */}}
{{- define "sallyport.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "sallyport.labels" . | nindent 2 }}
{{- end }}

{{- define "sallyport.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* Pod Security "restricted"; of the pod and of each container. */}}
{{- define "sallyport.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sallyport.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "sallyport.jobResources" -}}
requests: {cpu: 50m, memory: 64Mi}
limits: {memory: 256Mi}
{{- end }}

{{- define "sallyport.edgeTls" -}}
{{- if ne .Values.edge.tls.mode "none" }}true{{ end -}}
{{- end }}

{{- define "sallyport.publicPort" -}}
{{ ternary 8443 8080 (ne .Values.edge.tls.mode "none") }}
{{- end }}

{{- define "sallyport.servicePort" -}}
{{- if .Values.edge.service.port -}}
{{ .Values.edge.service.port }}
{{- else -}}
{{ ternary 443 80 (ne .Values.edge.tls.mode "none") }}
{{- end -}}
{{- end }}

{{/* The gateway as programs of the cluster call it with TLS: a value of Host. */}}
{{- define "sallyport.internalHost" -}}
{{- $port := include "sallyport.servicePort" . -}}
{{ include "sallyport.fullname" . }}.{{ .Release.Namespace }}.svc{{ if ne $port "443" }}:{{ $port }}{{ end }}
{{- end }}

{{- define "sallyport.applies" -}}
{{- if or .Values.servers .Values.apps .Values.credentials }}true{{ end -}}
{{- end }}

{{- define "sallyport.usesKubernetes" -}}
{{- if or .Values.kubernetes.enabled (include "sallyport.applies" .) }}true{{ end -}}
{{- end }}

{{- define "sallyport.audience" -}}
{{ default (printf "%s/api" .Values.deployment.publicUrl) .Values.kubernetes.audience }}
{{- end }}

{{/* What the set-up job has to make. */}}
{{- define "sallyport.jobCertificates" -}}
{{- if and (eq .Values.mode "split") (eq .Values.tls.mode "job") }}true{{ end -}}
{{- end }}
{{- define "sallyport.jobPublicCertificate" -}}
{{- if eq .Values.edge.tls.mode "job" }}true{{ end -}}
{{- end }}
{{- define "sallyport.jobKek" -}}
{{- if and (eq .Values.mode "split") .Values.kek.create (not .Values.kek.existingSecret) }}true{{ end -}}
{{- end }}
{{- define "sallyport.jobRenews" -}}
{{- if or (include "sallyport.jobCertificates" .) (include "sallyport.jobPublicCertificate" .) }}true{{ end -}}
{{- end }}
{{- define "sallyport.jobNeeded" -}}
{{- if or (include "sallyport.jobRenews" .) (include "sallyport.jobKek" .) .Values.postgresql.bundled.enabled }}true{{ end -}}
{{- end }}

{{/* Secret with a service's certificate; of (root, key, meta). */}}
{{- define "sallyport.tlsSecret" -}}
{{- $named := "" -}}
{{- if eq .root.Values.tls.mode "secret" }}{{ $named = index .root.Values.tls.secrets .key }}{{ end -}}
{{ default (printf "%s-%s-tls" (include "sallyport.fullname" .root) .meta.component) $named }}
{{- end }}

{{- define "sallyport.publicTlsSecret" -}}
{{- if eq .Values.edge.tls.mode "secret" -}}
{{ .Values.edge.tls.secret }}
{{- else -}}
{{ include "sallyport.fullname" . }}-public-tls
{{- end -}}
{{- end }}

{{- define "sallyport.kekSecret" -}}
{{ default (printf "%s-kek" (include "sallyport.fullname" .)) .Values.kek.existingSecret }}
{{- end }}

{{- define "sallyport.serviceAccountName" -}}
{{ include "sallyport.fullname" .root }}-{{ .component }}
{{- end }}

{{/* CIDR block of the API server. */}}
{{- define "sallyport.apiServerNetwork" -}}
{{- $network := .Values.kubernetes.apiServerNetwork -}}
{{- if not $network -}}
{{- $service := lookup "v1" "Service" "default" "kubernetes" -}}
{{- if $service -}}
{{- $address := $service.spec.clusterIP -}}
{{- $network = printf "%s/%s" $address (ternary "128" "32" (contains ":" $address)) -}}
{{- end -}}
{{- end -}}
{{- if not $network -}}
{{- fail "kubernetes.apiServerNetwork: is required, because there is no cluster to ask: the CIDR block of the Service default/kubernetes, such as 10.96.0.1/32" -}}
{{- end -}}
{{ $network }}
{{- end }}

{{/* servers, apps, credentials as `sallyport apply` reads them: secrets are files. */}}
{{- define "sallyport.resources" -}}
{{- $json := dict "mcpServers" .Values.servers "apps" .Values.apps "credentials" .Values.credentials | toJson -}}
{{- $json = regexReplaceAll `"secretKeyRef":\{"key":"([^"]+)","name":"([^"]+)"\}` $json `"file":"/etc/sallyport/apply/secrets/${2}/${1}"` -}}
{{ $json }}
{{- end }}

{{/* The references among them, each once: "key" and "name" as JSON. */}}
{{- define "sallyport.secretRefs" -}}
{{- $json := dict "mcpServers" .Values.servers "apps" .Values.apps "credentials" .Values.credentials | toJson -}}
{{ regexFindAll `"secretKeyRef":\{"key":"[^"]+","name":"[^"]+"\}` $json -1 | uniq | sortAlpha | toJson }}
{{- end }}
