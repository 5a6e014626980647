{{/* SPDX-License-Identifier: Apache-2.0
Pods of the services: of (root, key, meta), where key is standalone or one of sallyport.components. */}}

{{/* Files as authn needs them, also in standalone. */}}
{{- define "sallyport.peopleVolumes" -}}
{{- with .Values.secretFiles }}
- name: secret-files
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret: {name: {{ .secretKeyRef.name | quote }}, items: [{key: {{ .secretKeyRef.key | quote }}, path: {{ .file | quote }}}]}
      {{- end }}
{{- end }}
{{- if include "sallyport.usesKubernetes" . }}
- name: api-access
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}

{{- define "sallyport.peopleMounts" -}}
{{- if .Values.secretFiles }}
- {name: secret-files, mountPath: /etc/sallyport/secrets, readOnly: true}
{{- end }}
{{- if include "sallyport.usesKubernetes" . }}
- {name: api-access, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}
{{- end }}

{{- define "sallyport.brokerVolumes" -}}
{{- with .Values.redis.passwordSecret }}
- name: redis
  secret: {secretName: {{ .name | quote }}, defaultMode: 0440, items: [{key: {{ default "password" .key | quote }}, path: password}]}
{{- end }}
{{- with .Values.tokenBroker.platform }}
{{- if .enabled }}
- name: platform
  secret: {secretName: {{ .tlsSecret | quote }}, defaultMode: 0440}
{{- with .clientCaSecret }}
- name: platform-clients
  secret: {secretName: {{ .name | quote }}, defaultMode: 0440, items: [{key: {{ default "ca.crt" .key | quote }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sallyport.brokerMounts" -}}
{{- if .Values.redis.passwordSecret }}
- {name: redis, mountPath: /etc/sallyport/redis, readOnly: true}
{{- end }}
{{- if .Values.tokenBroker.platform.enabled }}
- {name: platform, mountPath: /etc/sallyport/platform, readOnly: true}
{{- if .Values.tokenBroker.platform.clientCaSecret }}
- {name: platform-clients, mountPath: /etc/sallyport/platform-clients, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "sallyport.volumes" -}}
{{- $root := .root -}}
{{- $split := ne .key "standalone" -}}
- name: config
  configMap: {name: {{ include "sallyport.fullname" $root }}-{{ .meta.component }}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if $split }}
- name: certs
  secret:
    secretName: {{ include "sallyport.tlsSecret" . }}
    defaultMode: 0440
    # Until all are there the pod waits: with the files missing it would fail instead.
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}, {key: ca.crt, path: ca.crt}]
{{- end }}
{{- if and (has .key (list "edge" "standalone")) (include "sallyport.edgeTls" $root) }}
- name: public
  secret:
    secretName: {{ include "sallyport.publicTlsSecret" $root }}
    defaultMode: 0440
    items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
{{- end }}
{{- if or (eq .key "vault") (and (not $split) $root.Values.kek.existingSecret) }}
- name: kek
  secret: {secretName: {{ include "sallyport.kekSecret" $root }}, defaultMode: 0440}
{{- end }}
{{- if has .key (list "vault" "registry" "authn") }}
{{- $values := $root.Values.postgresql }}
{{- $secret := (index $values.databases .key).passwordSecret }}
- name: postgresql
  {{- if $values.bundled.enabled }}
  secret: {secretName: {{ include "sallyport.fullname" $root }}-postgresql, defaultMode: 0440, items: [{key: password, path: password}]}
  {{- else }}
  secret: {secretName: {{ $secret.name | quote }}, defaultMode: 0440, items: [{key: {{ default "password" $secret.key | quote }}, path: password}]}
  {{- with $values.caSecret }}
- name: postgresql-ca
  secret: {secretName: {{ .name | quote }}, defaultMode: 0440, items: [{key: {{ default "ca.crt" .key | quote }}, path: ca.crt}]}
  {{- end }}
  {{- end }}
{{- end }}
{{- if has .key (list "authn" "standalone") }}
{{- include "sallyport.peopleVolumes" $root }}
{{- end }}
{{- if has .key (list "tokenBroker" "standalone") }}
{{- include "sallyport.brokerVolumes" $root }}
{{- end }}
{{- if has .key (list "edge" "tokenBroker") }}
- name: data
  {{- toYaml (index $root.Values .key).dataVolume | nindent 2 }}
{{- end }}
{{- with concat $root.Values.pod.extraVolumes (index $root.Values .key).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sallyport.mounts" -}}
{{- $root := .root -}}
{{- $split := ne .key "standalone" -}}
- {name: config, mountPath: /etc/sallyport/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if $split }}
- {name: certs, mountPath: /etc/sallyport/certs, readOnly: true}
{{- end }}
{{- if and (has .key (list "edge" "standalone")) (include "sallyport.edgeTls" $root) }}
- {name: public, mountPath: /etc/sallyport/public, readOnly: true}
{{- end }}
{{- if has .key (list "edge" "tokenBroker" "standalone") }}
- {name: data, mountPath: /var/lib/sallyport}
{{- end }}
{{- if eq .key "vault" }}
- {name: kek, mountPath: /etc/sallyport/kek, readOnly: true}
{{- else if and (not $split) $root.Values.kek.existingSecret }}
- {name: kek, mountPath: /var/lib/sallyport/kek, readOnly: true}
{{- end }}
{{- if has .key (list "vault" "registry" "authn") }}
- {name: postgresql, mountPath: /etc/sallyport/postgresql, readOnly: true}
{{- if and $root.Values.postgresql.caSecret (not $root.Values.postgresql.bundled.enabled) }}
- {name: postgresql-ca, mountPath: /etc/sallyport/postgresql-ca, readOnly: true}
{{- end }}
{{- end }}
{{- if has .key (list "authn" "standalone") }}
{{- include "sallyport.peopleMounts" $root }}
{{- end }}
{{- if has .key (list "tokenBroker" "standalone") }}
{{- include "sallyport.brokerMounts" $root }}
{{- end }}
{{- with concat $root.Values.pod.extraVolumeMounts (index $root.Values .key).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sallyport.ports" -}}
{{- if ne .key "standalone" }}
- {name: grpc, containerPort: {{ .meta.rpc }}}
{{- end }}
- {name: admin, containerPort: {{ .meta.admin }}}
{{- if has .key (list "edge" "standalone") }}
- {name: public, containerPort: {{ include "sallyport.publicPort" .root }}}
{{- end }}
{{- if and (has .key (list "tokenBroker" "standalone")) .root.Values.tokenBroker.platform.enabled }}
- {name: platform, containerPort: 7100}
{{- end }}
{{- end }}

{{- define "sallyport.podTemplate" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .key -}}
{{- $config := ternary (include "sallyport.standaloneConfig" $root) (include "sallyport.config" .) (eq .key "standalone") -}}
metadata:
  labels:
    {{- include "sallyport.labels" (dict "root" $root "component" .meta.component) | nindent 4 }}
    {{- with $root.Values.pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A new configuration is read at the start.
    checksum/config: {{ sha256sum $config }}
    {{- with merge (dict) $values.annotations $root.Values.pod.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "sallyport.serviceAccountName" (dict "root" $root "component" .meta.component) }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $root.Values.pod.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "sallyport.podSecurity" $root | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.pod.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.pod.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $root.Values.pod.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.pod.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.pod.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $root.Values.pod.topologySpread (ne .key "standalone") }}
  topologySpreadConstraints:
    {{- $labels := include "sallyport.selector" (dict "root" $root "component" .meta.component) | fromYaml }}
    {{- range $root.Values.pod.topologySpread }}
    - {{ merge (dict "labelSelector" (dict "matchLabels" $labels) "matchLabelKeys" (list "pod-template-hash")) . | toJson }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .meta.component }}
      image: {{ include "sallyport.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [{{ .meta.program }}]
      args: [--config, /etc/sallyport/config/config.yaml]
      securityContext:
        {{- include "sallyport.containerSecurity" $root | nindent 8 }}
      {{- with concat $root.Values.pod.extraEnv $values.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- include "sallyport.ports" . | nindent 8 }}
      # gRPC health needs a certificate of a service, which kubelet has not: the admin port says the same.
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 2
        failureThreshold: 60
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 3
        timeoutSeconds: 2
        failureThreshold: 2
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      {{- if gt (int $root.Values.pod.drainSeconds) 0 }}
      lifecycle:
        # Until everybody has learned that this pod takes no new work.
        preStop: {sleep: {seconds: {{ $root.Values.pod.drainSeconds }}}}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        {{- include "sallyport.mounts" . | nindent 8 }}
  volumes:
    {{- include "sallyport.volumes" . | nindent 4 }}
{{- end }}
