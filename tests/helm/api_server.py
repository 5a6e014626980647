# SPDX-License-Identifier: Apache-2.0
"""A kube-apiserver and an etcd of a test's own, on free loopback ports. Nothing schedules pods."""
import os
import pathlib
import socket
import subprocess
import time
import urllib.request
import ssl

ISSUER = "https://kubernetes.default.svc.cluster.local"
ADMIN = "the-administrators-token"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class ApiServer:
    def __init__(self, binaries, directory):
        self.binaries, self.directory = pathlib.Path(binaries), pathlib.Path(directory)
        self.port, self.processes = free_port(), []
        self.kubeconfig = self.directory / "kubeconfig"
        self.environment = {"PATH": f"{self.binaries}:{os.environ['PATH']}", "HOME": str(self.directory), "KUBECONFIG": str(self.kubeconfig)}

    def __enter__(self):
        try:
            self._certify()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def _certify(self):
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.crt",
                      "-days", "2", "-subj", "/CN=cluster", "-addext", "basicConstraints=critical,CA:TRUE")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "server.key", "-out", "server.csr",
                      "-subj", "/CN=kube-apiserver")
        (self.directory / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc\n")
        self._openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san",
                      "-out", "server.crt")
        self._openssl("genrsa", "-out", "accounts.key", "2048")
        (self.directory / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n")
        self.kubeconfig.write_text(
            f"""{{"apiVersion": "v1", "kind": "Config", "current-context": "test",
"clusters": [{{"name": "test", "cluster": {{"server": "https://127.0.0.1:{self.port}", "certificate-authority": "{self.directory}/ca.crt"}}}}],
"users": [{{"name": "admin", "user": {{"token": "{ADMIN}"}}}}],
"contexts": [{{"name": "test", "context": {{"cluster": "test", "user": "admin"}}}}]}}""")
        self.kubeconfig.chmod(0o600)

    def _launch(self, name, *arguments):
        log = open(self.directory / f"{name}.log", "wb")
        self.processes.append(subprocess.Popen([str(self.binaries / name), *arguments], stdout=log, stderr=log, cwd=self.directory))
        log.close()

    def _start(self):
        client, peer = free_port(), free_port()
        self._launch("etcd", f"--data-dir={self.directory}/etcd", f"--listen-client-urls=http://127.0.0.1:{client}",
                     f"--advertise-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
                     f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}", f"--initial-cluster=default=http://127.0.0.1:{peer}")
        self._launch("kube-apiserver", f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
                     "--tls-cert-file=server.crt", "--tls-private-key-file=server.key", "--token-auth-file=tokens.csv",
                     "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16", f"--service-account-issuer={ISSUER}",
                     "--service-account-key-file=accounts.key", "--service-account-signing-key-file=accounts.key",
                     # Nothing makes the account `default` of a namespace here.
                     "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none", "--cert-dir=certs")
        context = ssl.create_default_context(cafile=self.directory / "ca.crt")
        deadline = time.monotonic() + 180
        while True:
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args[0]} has ended:\n{self._logs()}")
            try:
                request = urllib.request.Request(f"https://127.0.0.1:{self.port}/readyz", headers={"Authorization": f"Bearer {ADMIN}"})
                with urllib.request.urlopen(request, context=context, timeout=5):
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the API server does not become ready: {error}\n{self._logs()}") from error
                time.sleep(0.2)

    def _logs(self):
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                         for log in sorted(self.directory.glob("*.log")))
