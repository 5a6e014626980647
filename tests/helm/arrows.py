# SPDX-License-Identifier: Apache-2.0
"""Compares the NetworkPolicies of split mode with who calls whom: the table of docs/operations.md, and the tables in the code from method
to callers."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVICES = ("edge", "authn", "token_broker", "vault", "registry")
PORTS = {"edge": 7000, "authn": 7001, "token_broker": 7002, "vault": 7003, "registry": 7004}
STORES = {"authn": {"postgresql"}, "vault": {"postgresql"}, "registry": {"postgresql"}, "token_broker": {"redis"}}
OUTSIDE = "outside"
# How the table of the operations page calls what is not a service of ours.
WORDS = {"its database": "postgresql", "Redis": "redis", "upstream servers": OUTSIDE, "identity providers": OUTSIDE,
         "OAuth providers": OUTSIDE, "Kubernetes clusters of platforms": OUTSIDE}
CODE = {"authn": "services/authn/authn_service.cc", "token_broker": "services/token_broker/token_broker_service.cc",
        "vault": "services/vault/access.cc", "registry": "services/registry/registry_service.cc"}


def documented():
    """From docs/operations.md: pairs (from, to), and the same from the column that says who reaches a service."""
    calls, reached = set(), set()
    for line in (ROOT / "docs/operations.md").read_text().splitlines():
        row = re.match(r"\| `sallyport-([a-z-]+)` \| (.*) \| (.*) \|$", line)
        if not row:
            continue
        name = row.group(1).replace("-", "_")
        for word in re.sub(r" \([^)]*\)", "", row.group(2)).split(", "):
            calls.add((name, WORDS.get(word, word)))
        reached |= {(word, name) for word in row.group(3).split(", ") if word in SERVICES}
    return calls, reached


def coded():
    """From the method tables: pairs (caller, service)."""
    calls = set()
    for service, file in CODE.items():
        text = (ROOT / file).read_text()
        start = re.search(r"^(?:std::map<std::string, MethodTable>|absl::StatusOr<CallGuard>) .*\{$", text, re.MULTILINE)
        body = text[start.end():text.index("\n}\n", start.end())]
        calls |= {(name, service) for name in re.findall(r'"([a-z_]+)"', body) if name in SERVICES}
    # A service reaches itself in its own process.
    return {(caller, service) for caller, service in calls if caller != service}


def _component(peer):
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return labels.get("app.kubernetes.io/component", "").replace("-", "_")


def _numbers(rule):
    return {port["port"] for port in rule.get("ports", [])}


def _stores(documents):
    """Port to store, as the configuration has it."""
    text = "\n".join(document["data"].get("config.yaml", "") for document in documents if document["kind"] == "ConfigMap")
    return {int(port): "postgresql" for port in re.findall(r"postgresql: host=.* port=(\d+)", text)} | {
        int(port): "redis" for port in re.findall(r"^  address: .*:(\d+)$", text, re.MULTILINE)}


def rendered(documents):
    """What the NetworkPolicies let through: pairs (from, to), where both ends must agree between pods of the release."""
    policies = {document["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component", "").replace("-", "_"): document["spec"]
                for document in documents if document["kind"] == "NetworkPolicy"}
    deny = policies.pop("")
    if deny.get("ingress") or deny.get("egress") or set(deny["policyTypes"]) != {"Ingress", "Egress"}:
        raise AssertionError("the policy for all pods does not deny everything")
    out, into, stores = set(), set(), _stores(documents)
    for name, spec in policies.items():
        for rule in spec.get("egress") or []:
            if 53 in _numbers(rule):
                continue
            for peer in rule.get("to", [{}]):
                target = _component(peer)
                if not target:
                    target = next((stores[port] for port in _numbers(rule) if port in stores), OUTSIDE)
                out.add((name, target, frozenset(_numbers(rule))))
        for rule in spec.get("ingress") or []:
            for peer in rule.get("from", [{}]):
                into.add((_component(peer), name, frozenset(_numbers(rule))))
    # The public port admits everybody, unless the values say whom.
    inside = {arrow for arrow in out if arrow in into or ("", *arrow[1:]) in into}
    loose = {arrow for arrow in out if arrow[1] in policies and arrow not in inside} | {
        arrow for arrow in into if arrow[0] in policies and arrow not in out}
    if loose:
        raise AssertionError(f"one end lets through what the other does not: {sorted(map(str, loose))}")
    return {(source, target) for source, target, _ in inside} | {(source, target) for source, target, _ in out if target not in policies}


def differences(documents):
    """Sentences; empty when all agree."""
    found = []
    calls, reached = documented()
    services = {(source, target) for source, target in calls if target in SERVICES}
    allowed = {(source, target) for source, target in rendered(documents) if source in SERVICES}

    def compare(what, left, right):
        for source, target in sorted(left - right):
            found.append(f"{what}: {source} -> {target} is missing")
        for source, target in sorted(right - left):
            found.append(f"{what}: {source} -> {target} is too much")

    compare("docs/operations.md, column \"reached by\"", services, reached)
    compare("the code's method tables", services, coded())
    compare("NetworkPolicies", calls, allowed)
    if len(services) < 10:
        found.append("docs/operations.md: the table of processes was not found")
    return found
