{{/* SPDX-License-Identifier: Apache-2.0
Combinations that cannot work, refused in words. */}}
{{- define "sallyport.validate" -}}
{{- $v := .Values -}}
{{- $url := $v.deployment.publicUrl -}}
{{- if not $url -}}
{{- fail "deployment.publicUrl: is required: the origin that browsers and clients use, such as https://gw.example.com" -}}
{{- end -}}
{{- if not (regexMatch `^(https://[^/?#@]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)$` $url) -}}
{{- fail (printf "deployment.publicUrl: must be a bare origin with https, such as https://gw.example.com, not %s" $url) -}}
{{- end -}}
{{- if eq $v.mode "standalone" -}}
{{- if or $v.postgresql.host $v.postgresql.bundled.enabled -}}
{{- fail "postgresql: standalone mode keeps its data in SQLite files: set mode to split, or leave postgresql.host and postgresql.bundled.enabled out" -}}
{{- end -}}
{{- else -}}
{{- if and $v.postgresql.host $v.postgresql.bundled.enabled -}}
{{- fail "postgresql.host: is set although postgresql.bundled.enabled is true: choose one" -}}
{{- end -}}
{{- if not (or $v.postgresql.host $v.postgresql.bundled.enabled) -}}
{{- fail "postgresql.host: is required in split mode (for a trial: postgresql.bundled.enabled)" -}}
{{- end -}}
{{- if $v.postgresql.host -}}
{{- range $service, $database := $v.postgresql.databases -}}
{{- if not $database.passwordSecret.name -}}
{{- fail (printf "postgresql.databases.%s.passwordSecret: is required: the name of the Secret with the password, and its key" $service) -}}
{{- end -}}
{{- end -}}
{{- $used := dict -}}
{{- range $service, $database := $v.postgresql.databases -}}
{{- if hasKey $used $database.name -}}
{{- fail (printf "postgresql.databases.%s.name: is that of %s, too: each service needs a database of its own" $service (get $used $database.name)) -}}
{{- end -}}
{{- $_ := set $used $database.name $service -}}
{{- end -}}
{{- end -}}
{{- if not (or $v.kek.existingSecret $v.kek.create) -}}
{{- fail "kek.existingSecret: is required in split mode when kek.create is false: a Secret whose key `current` holds 32 random bytes" -}}
{{- end -}}
{{- range $key := list "edge" "authn" "tokenBroker" "vault" "registry" -}}
{{- $values := index $v $key -}}
{{- $scaling := $values.autoscaling -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling.minReplicas: must not be more than maxReplicas" $key) -}}
{{- end -}}
{{- if and $scaling.enabled (not (dig "requests" "cpu" "" $values.resources)) -}}
{{- fail (printf "%s.autoscaling.enabled: needs %s.resources.requests.cpu, of which targetCPU is a share" $key $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.redis.address $v.redis.bundled.enabled -}}
{{- fail "redis.address: is set although redis.bundled.enabled is true: choose one" -}}
{{- end -}}
{{- if and $v.redis.bundled.enabled $v.redis.passwordSecret -}}
{{- fail "redis.passwordSecret: the bundled Redis has no password: leave it out" -}}
{{- end -}}
{{- if and (eq $v.edge.tls.mode "secret") (not $v.edge.tls.secret) -}}
{{- fail "edge.tls.secret: is required with edge.tls.mode secret: the name of a Secret of the type kubernetes.io/tls" -}}
{{- end -}}
{{- if and (eq $v.edge.tls.mode "certManager") (not $v.edge.tls.issuerRef) (ne $v.tls.mode "certManager") -}}
{{- fail "edge.tls.issuerRef: is required with edge.tls.mode certManager, because the release has no cert-manager authority of its own (tls.mode is not certManager)" -}}
{{- end -}}
{{- if and (eq $v.edge.tls.mode "certManager") (not $v.edge.tls.issuerRef) (eq $v.mode "standalone") -}}
{{- fail "edge.tls.issuerRef: is required with edge.tls.mode certManager in standalone mode" -}}
{{- end -}}
{{- if and (ne $v.edge.service.type "ClusterIP") (eq $v.edge.tls.mode "none") (not $v.edge.behindTlsProxy) -}}
{{- fail (printf "edge.service.type: %s without edge.tls would carry tokens in the clear: set edge.tls.mode, or edge.behindTlsProxy if a proxy of yours ends TLS" $v.edge.service.type) -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
{{- fail "gateway.parentRefs: is required: the Gateway to which the HTTPRoute belongs, such as [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and $v.gateway.enabled (ne $v.edge.tls.mode "none") -}}
{{- fail "gateway.enabled: the route would speak plain HTTP to a port with TLS: leave edge.tls.mode at none, or make HTTPRoute and BackendTLSPolicy yourself" -}}
{{- end -}}
{{- if and $v.tokenBroker.platform.enabled (not $v.tokenBroker.platform.tlsSecret) -}}
{{- fail "tokenBroker.platform.tlsSecret: is required with tokenBroker.platform.enabled: the listener speaks TLS only" -}}
{{- end -}}
{{- if and $v.platforms (not $v.tokenBroker.platform.enabled) -}}
{{- fail "platforms: no platform can call without a listener: set tokenBroker.platform.enabled" -}}
{{- end -}}
{{- $named := dict "platforms" $v.platforms "roles" $v.roles | toJson | regexFind `"(serviceAccounts|[a-zA-Z]+ServiceAccounts)":` -}}
{{- if and $named (not (include "sallyport.usesKubernetes" .)) (not $v.clusters) -}}
{{- fail (printf "%s needs kubernetes.enabled, or a cluster in clusters: nobody could verify their tokens" (trimAll `":` $named)) -}}
{{- end -}}
{{- $resources := dict "servers" $v.servers "apps" $v.apps "credentials" $v.credentials | toJson -}}
{{- $inline := regexFind `"(clientSecret|privateKey|token|password|value|secretValue|clientCert|secretUpstreamUrl)":\{("clear":[^,{}]*,)?"value":"` $resources -}}
{{- if $inline -}}
{{- fail (printf "servers, apps, credentials: %s holds a secret in the clear: write {valueFrom: {secretKeyRef: {name: …, key: …}}}" (regexFind `[A-Za-z]+` $inline)) -}}
{{- end -}}
{{- if regexMatch `"valueFrom":\{"(env|file)"` $resources -}}
{{- fail "servers, apps, credentials: valueFrom must be {secretKeyRef: {name: …, key: …}}: there is no environment and no file of yours in the cluster" -}}
{{- end -}}
{{- if and (include "sallyport.applies" .) (hasPrefix "http://" (default $url $v.apply.url)) (eq $v.edge.tls.mode "none") -}}
{{- fail "apply.url: servers, apps and credentials are applied by a job that calls the gateway over https: set edge.tls.mode, or apply.url to an address with https" -}}
{{- end -}}
{{- if and $v.test.server (hasPrefix "http://" $url) (eq $v.edge.tls.mode "none") -}}
{{- fail "test.server: the test calls the gateway over https: set edge.tls.mode, or a deployment.publicUrl with https" -}}
{{- end -}}
{{- if and $v.test.tokenSecret $v.test.audience -}}
{{- fail "test.audience: is set although test.tokenSecret is: choose one" -}}
{{- end -}}
{{- if ge (int $v.pod.drainSeconds) (sub (int $v.pod.terminationGracePeriodSeconds) 28) -}}
{{- fail "pod.terminationGracePeriodSeconds: must be more than drainSeconds and the 28 s a service may take to end" -}}
{{- end -}}
{{- end }}
