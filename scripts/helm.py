#!/usr/bin/env python3
"""A small Helm: lint, template, install, upgrade, rollback, uninstall, status.

It is Helm itself, version 4, as a shared library that scripts/helm.sh fetches; this file calls it through ctypes, so any
Python since 3.9 will do. `make charts` and the tests on a real cluster use it. People with a `helm` of their own need
none of this: the charts are ordinary charts.

`template` renders as `helm template --validate` would: against a cluster. Without one (no KUBECONFIG is read) that is a
small API server in this process, which knows the kinds that --api names and takes whatever Helm sends.
"""

import argparse
import base64
import ctypes
import json
import os
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMESPACE = "hauberk-system"
# group/version: kinds, as the charts use them, with the names of their resources; `*` marks those of no namespace.
KINDS = {
    "v1": "ConfigMap:configmaps Secret:secrets Service:services ServiceAccount:serviceaccounts Namespace:namespaces*",
    "apps/v1": "Deployment:deployments",
    "networking.k8s.io/v1": "NetworkPolicy:networkpolicies",
    "rbac.authorization.k8s.io/v1": "ClusterRole:clusterroles* ClusterRoleBinding:clusterrolebindings* Role:roles "
    "RoleBinding:rolebindings",
    "admissionregistration.k8s.io/v1": "MutatingWebhookConfiguration:mutatingwebhookconfigurations* "
    "ValidatingWebhookConfiguration:validatingwebhookconfigurations*",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition:customresourcedefinitions*",
    "policy/v1": "PodDisruptionBudget:poddisruptionbudgets",
    "policy/v1beta1": "PodDisruptionBudget:poddisruptionbudgets",
    "monitoring.coreos.com/v1": "PodMonitor:podmonitors",
    "hauberk.dev/v1alpha1": "VirtualService:virtualservices DestinationRule:destinationrules "
    "PeerAuthentication:peerauthentications",
}
# What a cluster has before anything is added to it.
USUAL = [api for api in KINDS if api.split("/")[0] not in ("monitoring.coreos.com", "hauberk.dev") and "beta" not in api]


class Failure(Exception):
    """What went wrong, for people."""


class Helm:
    """The library, for one namespace of one cluster. Its errors belong to a thread: everything happens in this one."""

    def __init__(self, library, namespace, kubeconfig, context):
        self.library = ctypes.CDLL(library)
        for name in ("last_error", "version_string"):
            getattr(self.library, f"helm_sdkpy_{name}").restype = ctypes.c_char_p
        self.library.helm_sdkpy_free.argtypes = [ctypes.c_void_p]
        self.library.helm_sdkpy_free.restype = None
        self.handle = ctypes.c_ulonglong()
        self._check(
            self.library.helm_sdkpy_config_create(
                _text(namespace), _text(kubeconfig), _text(context), _text("{}"), ctypes.byref(self.handle)
            )
        )

    def call(self, name, *args):
        """Calls one action, and gives what it answers, read as JSON."""
        out = ctypes.c_void_p()
        args = [_text(arg) if isinstance(arg, str) else ctypes.c_int(arg) for arg in args]
        self._check(getattr(self.library, f"helm_sdkpy_{name}")(self.handle, *args, ctypes.byref(out)))
        try:
            return json.loads(ctypes.string_at(out.value) or b"null") if out.value else None
        finally:
            if out.value:
                self.library.helm_sdkpy_free(out)

    def _check(self, code):
        if code != 0:
            raise Failure((self.library.helm_sdkpy_last_error() or b"Helm gives no reason").decode())


def _text(value):
    return None if value is None else ctypes.c_char_p(value.encode())


class Cluster(ThreadingHTTPServer):
    """An API server for rendering: discovery, nothing found unless it was given, everything taken as it comes."""

    daemon_threads = True

    def __init__(self, version, apis):
        super().__init__(("127.0.0.1", 0), Answer)
        self.version = version
        self.apis = apis

    def kubeconfig(self):
        """The contents of a file that leads here."""
        address = f"http://127.0.0.1:{self.server_address[1]}"
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
                "clusters": [{"name": "here", "cluster": {"server": address}}],
                "users": [{"name": "here", "user": {}}],
            }
        )


class Answer(BaseHTTPRequestHandler):
    """One request to that API server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        apis = self.server.apis
        if path == "version":
            major, minor = re.match(r"v?(\d+)\.(\d+)", self.server.version).groups()
            return self._say({"major": major, "minor": minor, "gitVersion": self.server.version})
        if path == "api":
            return self._say({"kind": "APIVersions", "versions": ["v1"]})
        if path == "apis":
            groups = {}
            for api in apis:
                if "/" in api:
                    group, version = api.split("/")
                    groups.setdefault(group, []).append({"groupVersion": api, "version": version})
            groups = [{"name": g, "versions": v, "preferredVersion": v[0]} for g, v in groups.items()]
            return self._say({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        api = path.split("/", 1)[1] if "/" in path else ""
        if api in apis:
            return self._say({"kind": "APIResourceList", "groupVersion": api, "resources": list(_resources(api))})
        return self._say({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}, 404)

    def do_POST(self):
        return self._say(json.loads(self._body()), 201)

    do_PUT = do_POST

    def do_PATCH(self):
        self._body()
        return self._say({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}, 404)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, answer, code=200):
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def _resources(api):
    for pair in KINDS[api].split():
        kind, name = pair.split(":")
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        yield {
            "name": name.rstrip("*"),
            "singularName": kind.lower(),
            "namespaced": not name.endswith("*"),
            "kind": kind,
            "verbs": verbs,
        }


def values(args):
    """All --set-json and --values, the later over the earlier; objects are merged."""
    merged = {}
    for path in args.values:
        with open(path, encoding="utf-8") as file:
            _merge(merged, json.load(file))
    for pair in args.set_json:
        path, sep, text = pair.partition("=")
        if not sep:
            raise Failure(f"--set-json {pair}: write path=JSON, such as image.registry='\"registry.example.com\"'")
        try:
            value = json.loads(text)
        except ValueError as error:
            raise Failure(f"--set-json {path}: {text} is not JSON: {error}") from error
        for part in reversed(path.split(".")):
            value = {part: value}
        _merge(merged, value)
    return json.dumps(merged)


def _merge(into, new):
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def lint(args, helm):
    bad = 0
    for message in helm.call("lint", args.chart)["Messages"]:
        # 1 is a hint, 2 a warning, 3 an error. The library says where, and keeps what to itself.
        if message["Severity"] > 1:
            bad += 1
            print(f"{args.chart}/{message['Path']}: Helm's lint objects; `template` says to what", file=sys.stderr)
    if bad:
        raise Failure(f"{args.chart}: lint found {bad} mistakes")
    print(f"{args.chart}: lint found nothing")


def template(args, library):
    apis = USUAL + args.api
    for api in apis + args.without_api:
        if api not in KINDS:
            raise Failure(f"{api}: this small API server knows {', '.join(KINDS)}")
    # Releases are kept in memory. The library knows only the environment that the process began with.
    if os.environ.get("HELM_DRIVER") != "memory":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "HELM_DRIVER": "memory"})
    with Cluster(args.kubernetes, [api for api in apis if api not in args.without_api]) as cluster:
        threading.Thread(target=cluster.serve_forever, daemon=True).start()
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(cluster.kubeconfig())
            file.flush()
            helm = Helm(library, args.namespace, file.name, None)
            options = {"wait": False, "timeout_seconds": 30, "server_side_apply": "false"}
            release = helm.call("install", args.release, args.chart, values(args), "", json.dumps(options))
        cluster.shutdown()
    print(release["info"]["notes"] if args.notes else release["manifest"])


def install(args, helm):
    options = {"create_namespace": True, **_options(args)}
    helm.call("install", args.release, args.chart, values(args), "", json.dumps(options))
    status(args, helm)


def upgrade(args, helm):
    # "auto" keeps to how the release was installed; for a new one it means client-side here, and server-side in the command.
    options = {"install": args.install, "create_namespace": args.install, "max_history": 10, **_options(args)}
    helm.call("upgrade", args.release, args.chart, values(args), "", json.dumps(options))
    status(args, helm)


def _options(args):
    return {
        "wait": args.wait,
        "timeout_seconds": args.timeout,
        "server_side_apply": args.server_side,
        "disable_openapi_validation": args.disable_openapi_validation,
    }


def rollback(args, helm):
    """The chart and the values of an earlier revision become a new one, which is what a rollback is.

    It goes the way of an upgrade: the library's own rollback stops before its end, as nothing can tell it how to wait.
    """
    history = sorted(helm.call("history", args.release), key=lambda release: release["version"])
    if args.revision:
        wanted = [release for release in history if release["version"] == args.revision]
    else:
        good = ("deployed", "superseded")
        wanted = [release for release in history[:-1] if release["info"]["status"] in good]
    if not wanted:
        raise Failure(f"{args.release}: there is no such revision to go back to")
    release = wanted[-1]
    chart = release["chart"]
    with tempfile.TemporaryDirectory() as folder:

        def write(name, content):
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)

        write("Chart.yaml", json.dumps(chart["metadata"]).encode())
        write("values.yaml", json.dumps(chart.get("values") or {}).encode())
        if chart.get("schema"):
            write("values.schema.json", base64.b64decode(chart["schema"]))
        for file in (chart.get("templates") or []) + (chart.get("files") or []):
            write(file["name"], base64.b64decode(file["data"]))
        options = {"reset_values": True, "max_history": 10, **_options(args)}
        config = json.dumps(release.get("config") or {})
        helm.call("upgrade", args.release, folder, config, "", json.dumps(options))
    status(args, helm)


def uninstall(args, helm):
    helm.call("uninstall", args.release, int(args.wait), args.timeout)
    print(f"{args.release}: uninstalled")


def status(args, helm):
    print(json.dumps(helm.call("status", args.release)))


def command_line():
    parser = argparse.ArgumentParser(prog="helm.py", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--library", required=True, help="Helm's shared library; scripts/helm.sh fills it in")
    parser.add_argument("--namespace", "-n", default=NAMESPACE)
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--context")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(run, *parts):
        sub = commands.add_parser(run.__name__)
        sub.set_defaults(run=run)
        if "release" in parts:
            sub.add_argument("release")
        if "chart" in parts:
            sub.add_argument("chart")
        if "values" in parts:
            sub.add_argument("--values", action="append", default=[], metavar="FILE", help="a file of values, as JSON")
            sub.add_argument("--set-json", action="append", default=[], metavar="PATH=JSON")
        if "wait" in parts:
            sub.add_argument("--wait", action="store_true", help="until everything is ready, or gone")
            sub.add_argument("--timeout", type=int, default=300, metavar="SECONDS")
        return sub

    command(lint, "chart")
    sub = command(template, "release", "chart", "values")
    sub.add_argument("--kubernetes", default="v1.33.0", metavar="VERSION", help="of the cluster to render for")
    sub.add_argument("--api", action="append", default=[], help="an API that the cluster has beside the usual ones")
    sub.add_argument("--without-api", action="append", default=[], help="a usual API that the cluster lacks")
    sub.add_argument("--notes", action="store_true", help="print the notes instead of the manifests")
    for run, parts in ((install, ["chart", "values"]), (upgrade, ["chart", "values"]), (rollback, [])):
        sub = command(run, "release", *parts, "wait")
        sub.add_argument("--server-side", choices=["auto", "true", "false"], default="true" if run is install else "auto")
        sub.add_argument(
            "--disable-openapi-validation", action="store_true", help="for servers older than what the chart describes"
        )
        if run is upgrade:
            sub.add_argument("--install", action="store_true", help="install where there is nothing to upgrade")
        if run is rollback:
            sub.add_argument("revision", type=int, nargs="?", default=0, help="otherwise the one before")
    command(uninstall, "release", "wait")
    command(status, "release")
    return parser


def main():
    args = command_line().parse_args()
    try:
        if args.run is template:
            template(args, args.library)
        else:
            args.run(args, Helm(args.library, args.namespace, args.kubeconfig, args.context))
    except (Failure, OSError) as error:
        sys.exit(f"helm: {error}")


if __name__ == "__main__":
    main()
