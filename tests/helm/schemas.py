# SPDX-License-Identifier: Apache-2.0
"""Validates objects against the OpenAPI schemas of Kubernetes and of custom resources, strictly: a field that the schema does not
name is an error, as with `kubectl apply --validate=strict`."""
import json
import pathlib
import re

import yaml


class Schemas:
    def __init__(self, directory):
        swagger = json.loads((pathlib.Path(directory) / "swagger.json").read_text())
        self.definitions = swagger["definitions"]
        self.roots = {}
        for name, schema in self.definitions.items():
            for kind in schema.get("x-kubernetes-group-version-kind", []):
                self.roots[(f"{kind['group']}/{kind['version']}".lstrip("/"), kind["kind"])] = {"$ref": f"#/definitions/{name}"}
        meta = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
        for path in sorted(pathlib.Path(directory).glob("*.yaml")):
            for crd in yaml.safe_load_all(path.read_text()):
                if not crd:
                    continue
                for version in crd["spec"]["versions"]:
                    schema = version["schema"]["openAPIV3Schema"]
                    schema["properties"]["metadata"] = meta
                    self.roots[(f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])] = schema

    def errors(self, document):
        root = self.roots.get((document.get("apiVersion"), document.get("kind")))
        if root is None:
            return [f"no schema for {document.get('apiVersion')} {document.get('kind')}"]
        return list(self._check(document, root, ""))

    def _check(self, value, schema, path):
        if "$ref" in schema:
            schema = self.definitions[schema["$ref"].rsplit("/", 1)[-1]]
        if value is None:
            if not schema.get("nullable"):
                yield f"{path}: is null"
            return
        kind = schema.get("type")
        if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
            if isinstance(value, bool) or not isinstance(value, (int, str)):
                yield f"{path}: must be an integer or a string"
        elif kind == "object" or "properties" in schema:
            yield from self._check_object(value, schema, path)
        elif kind == "array":
            if not isinstance(value, list):
                yield f"{path}: must be a list"
                return
            if len(value) < schema.get("minItems", 0) or len(value) > schema.get("maxItems", len(value)):
                yield f"{path}: has {len(value)} items"
            for index, item in enumerate(value):
                yield from self._check(item, schema["items"], f"{path}[{index}]")
        elif kind is not None:
            yield from self._check_scalar(value, schema, path)
        if "enum" in schema and value not in schema["enum"]:
            yield f"{path}: {value!r} is none of {schema['enum']}"

    def _check_object(self, value, schema, path):
        if not isinstance(value, dict):
            # Quantities and the like, which the schema calls objects without fields.
            if "properties" in schema or "additionalProperties" in schema:
                yield f"{path}: must be a map"
            return
        for name in schema.get("required", []):
            if name not in value:
                yield f"{path}.{name}: is required"
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name, item in value.items():
            if not isinstance(name, str):
                yield f"{path}: the key {name!r} is no string"
            elif name in properties:
                yield from self._check(item, properties[name], f"{path}.{name}")
            elif isinstance(rest, dict):
                yield from self._check(item, rest, f"{path}.{name}")
            elif properties and not rest and not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}.{name}: unknown field"

    @staticmethod
    def _check_scalar(value, schema, path):
        kinds = {"string": str, "integer": int, "boolean": bool, "number": (int, float)}
        kind = kinds.get(schema["type"], object)
        if not isinstance(value, kind) or (isinstance(value, bool) and schema["type"] != "boolean"):
            yield f"{path}: {value!r} is no {schema['type']}"
        elif "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        elif isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            yield f"{path}: {value} is out of range"


# Pod Security "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/).
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def pods_of(document):
    """Pod specs inside an object."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Pod":
        yield spec
    elif kind in ("Deployment", "StatefulSet", "Job"):
        yield spec["template"]["spec"]
    elif kind == "CronJob":
        yield spec["jobTemplate"]["spec"]["template"]["spec"]


def insecurities(document):
    """What Pod Security "restricted" would refuse, and what this chart promises beyond it."""
    for pod in pods_of(document):
        security = pod.get("securityContext", {})
        if not security.get("runAsNonRoot") or security.get("runAsUser") in (None, 0):
            yield "runs as root"
        if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield "has no seccomp profile"
        if pod.get("hostNetwork") or pod.get("hostPID") or pod.get("hostIPC"):
            yield "uses a namespace of the host"
        if pod.get("automountServiceAccountToken") is not False:
            yield "mounts a service-account token"
        for volume in pod.get("volumes", []):
            if not set(volume) - {"name"} <= VOLUMES:
                yield f"has a volume of the kind {set(volume) - {'name'}}"
        mounts = {volume["name"] for volume in pod.get("volumes", [])}
        mounts |= {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
        for container in pod.get("initContainers", []) + pod["containers"]:
            name, own = container["name"], container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{name} may escalate privileges"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{name} keeps capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{name} has a writable root"
            if not container.get("resources", {}).get("limits", {}).get("memory"):
                yield f"{name} has no memory limit"
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in mounts:
                    yield f"{name} mounts {mount['name']}, which is no volume"
