"""The Kubernetes manifests: every overlay, every component on one, and every job, built, valid, and held to policies and to the
programs' flags.

Usage: manifests_test.py QUIVER_SERVER QUIVER

Kubernetes' own kinds are checked against its published schemas. Those of operators have none in the packages at hand:
crd_schemas.json describes the fields used here, from their public references.
"""
import copy
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import jsonschema
import kubernetes_validate
import yaml

SERVER, QUIVER = sys.argv[1:3]
ROOT = pathlib.Path(__file__).parents[2]
K8S = ROOT / "deploy/k8s"
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
CRDS = json.loads((pathlib.Path(__file__).parent / "crd_schemas.json").read_text())
KUBERNETES = "1.37.0"


def build(folder):
    result = subprocess.run([KUBECTL, "kustomize", str(folder)], capture_output=True, text=True)
    assert result.returncode == 0, f"{folder}: {result.stderr}"
    return [item for item in yaml.safe_load_all(result.stdout) if item]


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def argument(container, flag):
    """The value of a flag, given as one word or two."""
    args = container["args"]
    for i, arg in enumerate(args):
        if arg == flag:
            return args[i + 1]
        if arg.startswith(f"{flag}="):
            return arg.split("=", 1)[1]
    return None


def violations(items):
    """What a cluster's owner would refuse, as "KIND/NAME: what"."""
    found = []
    budgets = [i["spec"]["selector"]["matchLabels"] for i in items if i["kind"] == "PodDisruptionBudget"]
    policies = [i["spec"]["podSelector"]["matchLabels"] for i in items if i["kind"] == "NetworkPolicy"]
    for item in items:
        if item["kind"] not in ("Deployment", "Job"):
            continue
        pod = item["spec"]["template"]["spec"]
        labels = item["spec"]["template"]["metadata"]["labels"]

        def say(what):
            found.append(f"{item['kind']}/{item['metadata']['name']}: {what}")

        security = pod.get("securityContext", {})
        if not security.get("runAsNonRoot") or security.get("runAsUser", 0) == 0:
            say("may run as root")
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            say("has no seccomp profile")
        if pod.get("automountServiceAccountToken", True):
            say("is given a token of the cluster's API")
        if pod.get("hostNetwork") or pod.get("hostPID") or pod.get("hostIPC"):
            say("shares the host's namespaces")
        if any("hostPath" in volume for volume in pod.get("volumes", [])):
            say("mounts the host's files")
        if not any(selector.items() <= labels.items() for selector in policies):
            say("has no network policy")
        if not pod.get("topologySpreadConstraints"):
            say("may stand on one node")
        for container in pod["containers"] + pod.get("initContainers", []):
            name = container["name"]
            context = container.get("securityContext", {})
            if not context.get("readOnlyRootFilesystem"):
                say(f"{name} may write its root file system")
            if context.get("allowPrivilegeEscalation", True) or context.get("privileged"):
                say(f"{name} may gain privileges")
            if context.get("capabilities", {}).get("drop") != ["ALL"]:
                say(f"{name} keeps capabilities")
            resources = container.get("resources", {})
            if "memory" not in resources.get("limits", {}):
                say(f"{name} has no limit of memory")
            if resources.get("limits", {}).get("memory") != resources.get("requests", {}).get("memory"):
                say(f"{name}'s memory is overcommitted")
            if "cpu" not in resources.get("requests", {}):
                say(f"{name} requests no cpu")
            tag = container["image"].rpartition(":")[2] if ":" in container["image"] else "latest"
            if tag == "latest":
                say(f"{name}'s image has no version")
        if item["kind"] == "Job":
            found += ending_violations(item)
            continue
        if not any(selector.items() <= labels.items() for selector in budgets):
            say("has no disruption budget")
        for container in pod["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if "grpc" not in container.get(probe, {}):
                    say(f"{container['name']} has no {probe} by gRPC")
            pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if pause < 1:
                say(f"{container['name']} ends before balancers know")
            if pod.get("terminationGracePeriodSeconds", 30) < pause + seconds(argument(container, "--drain-timeout")) + 5:
                say(f"{container['name']} is killed before it has drained")
    return found


def ending_violations(job):
    """What of a job, whose pods end and are tried again, would go wrong then."""
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    rules = spec.get("podFailurePolicy", {}).get("rules", [])
    claims = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
    writable = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    checks = {
        "restarts its pods in place": pod["restartPolicy"] == "Never",
        "fails as a whole where a part fails": spec.get("completionMode") == "Indexed" and spec.get("backoffLimitPerIndex", 0) > 0,
        "counts a drained node as a failure": any(rule["action"] == "Ignore" and rule.get("onPodConditions") for rule in rules),
        "may run one part twice at a time": spec.get("podReplacementPolicy") == "Failed",
        "loses what it wrote with its pod": writable <= claims,
    }
    return [f"Job/{job['metadata']['name']}: {what}" for what, holds in checks.items() if not holds]


class ManifestsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.built = {folder.name: build(folder) for folder in sorted((K8S / "overlays").iterdir())}
        cls.jobs = {folder.name: build(folder) for folder in sorted((K8S / "jobs").iterdir())}
        # Each component that no overlay has, on one that has a model.
        cls.folder = tempfile.TemporaryDirectory()
        tree = pathlib.Path(cls.folder.name) / "k8s"
        shutil.copytree(K8S, tree)
        for component in sorted((K8S / "components").iterdir()):
            extra = tree / "overlays" / f"with-{component.name}"
            extra.mkdir()
            models = [] if component.name.startswith("model-") else ["../../components/model-image"]
            (extra / "kustomization.yaml").write_text(yaml.safe_dump({
                "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "quiver",
                "resources": ["../../base"], "components": [*models, f"../../components/{component.name}"]}))
            cls.built[extra.name] = build(extra)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def each(self, *kinds):
        for overlay, items in self.built.items():
            for item in items:
                if not kinds or item["kind"] in kinds:
                    yield overlay, item

    def test_every_object_is_valid(self):
        core, custom = 0, 0
        jobs = [(name, item) for name, items in self.jobs.items() for item in items]
        for overlay, item in [*self.each(), *jobs]:
            with self.subTest(f"{overlay}: {item['kind']}/{item['metadata']['name']}"):
                if item["kind"] in CRDS:
                    custom += 1
                    jsonschema.Draft7Validator({**CRDS, "$ref": f"#/{item['kind']}"}).validate(item["spec"])
                else:
                    core += 1
                    kubernetes_validate.validate(item, KUBERNETES, strict=True)
        self.assertGreater(core, 60)
        self.assertGreater(custom, 15)

    def test_no_overlay_and_no_job_breaks_a_policy(self):
        for overlay, items in [*self.built.items(), *self.jobs.items()]:
            self.assertEqual(violations(items), [], overlay)

    def test_each_policy_can_be_broken(self):
        def container(pod):
            return pod["containers"][0]

        breaches = {
            "may run as root": lambda pod: pod["securityContext"].update(runAsUser=0),
            "has no seccomp": lambda pod: pod["securityContext"].pop("seccompProfile"),
            "token": lambda pod: pod.pop("automountServiceAccountToken"),
            "namespaces": lambda pod: pod.update(hostNetwork=True),
            "host's files": lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
            "one node": lambda pod: pod.pop("topologySpreadConstraints"),
            "write its root": lambda pod: container(pod)["securityContext"].pop("readOnlyRootFilesystem"),
            "gain privileges": lambda pod: container(pod)["securityContext"].update(privileged=True),
            "keeps capabilities": lambda pod: container(pod)["securityContext"].update(capabilities={}),
            "no limit of memory": lambda pod: container(pod)["resources"]["limits"].pop("memory"),
            "overcommitted": lambda pod: container(pod)["resources"]["requests"].update(memory="1Gi"),
            "requests no cpu": lambda pod: container(pod)["resources"]["requests"].pop("cpu"),
            "no version": lambda pod: container(pod).update(image="quiver"),
            "livenessProbe": lambda pod: container(pod).pop("livenessProbe"),
            "before balancers": lambda pod: container(pod).pop("lifecycle"),
            "before it has drained": lambda pod: pod.update(terminationGracePeriodSeconds=30),
        }
        for words, breach in breaches.items():
            with self.subTest(words):
                items = copy.deepcopy(self.built["gpu-h200"])
                breach(next(i for i in items if i["kind"] == "Deployment")["spec"]["template"]["spec"])
                self.assertTrue(any(words in line for line in violations(items)), violations(items))
        job_breaches = {
            "restarts its pods": lambda spec: spec["template"]["spec"].update(restartPolicy="OnFailure"),
            "fails as a whole": lambda spec: spec.pop("backoffLimitPerIndex"),
            "drained node": lambda spec: spec.pop("podFailurePolicy"),
            "twice at a time": lambda spec: spec.update(podReplacementPolicy="TerminatingOrFailed"),
            "loses what it wrote": lambda spec: spec["template"]["spec"]["volumes"].__setitem__(1, {"name": "index", "emptyDir": {}}),
            "may run as root": lambda spec: spec["template"]["spec"]["securityContext"].update(runAsUser=0),
            "write its root": lambda spec: container(spec["template"]["spec"])["securityContext"].pop("readOnlyRootFilesystem"),
        }
        for words, breach in job_breaches.items():
            with self.subTest(words):
                items = copy.deepcopy(self.jobs["index"])
                breach(next(i for i in items if i["kind"] == "Job")["spec"])
                self.assertTrue(any(words in line for line in violations(items)), violations(items))
        for kind, words in (("PodDisruptionBudget", "no disruption budget"), ("NetworkPolicy", "no network policy")):
            items = [i for i in self.built["gpu-h200"] if i["kind"] != kind]
            self.assertTrue(any(words in line for line in violations(items)))

    def test_servers_are_started_with_flags_that_they_have(self):
        page = subprocess.run([SERVER, "--help"], capture_output=True, text=True, check=True).stdout
        known = set(re.findall(r"^\s+(--[a-z-]+)", page, re.MULTILINE))
        for overlay, item in self.each("Deployment"):
            for container in item["spec"]["template"]["spec"]["containers"]:
                flags = {arg.split("=")[0] for arg in container["args"] if arg.startswith("--")}
                self.assertLessEqual(flags, known, overlay)
                self.assertEqual({port["name"]: port["containerPort"] for port in container["ports"]},
                                 {"grpc": 50051, "http": 30000})
                self.assertIn("(default: 50051)", page)
                self.assertIn("(default: 30000)", page)

    def test_the_job_takes_every_part_once_by_flags_that_quiver_has(self):
        job = next(i for i in self.jobs["index"] if i["kind"] == "Job")
        container = job["spec"]["template"]["spec"]["containers"][0]
        page = subprocess.run([QUIVER, "index", "--help"], capture_output=True, text=True, check=True).stdout
        self.assertEqual((container["command"], container["args"][0]), (["quiver"], "index"))
        self.assertLessEqual({arg.split("=")[0] for arg in container["args"][1:]}, set(re.findall(r"^\s+(--[a-z-]+)", page, re.MULTILINE)))
        self.assertEqual(argument(container, "--shard"), f"$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}")
        self.assertIn("$(JOB_COMPLETION_INDEX)", argument(container, "--output"))
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        self.assertTrue(argument(container, "--input").startswith(mounts["documents"] + "/"))
        self.assertTrue(argument(container, "--output").startswith(mounts["index"] + "/"))

    def test_the_job_reaches_servers_that_let_it_in(self):
        job = next(i for i in self.jobs["index"] if i["kind"] == "Job")
        allowed = next(i for i in self.jobs["index"] if i["kind"] == "NetworkPolicy")["spec"]
        servers = {i["kind"]: i for i in self.built["cpu"] if i["metadata"]["name"] in ("quiver", "quiver-headless")}
        self.assertEqual(job["metadata"]["namespace"], servers["Deployment"]["metadata"]["namespace"])
        labels = job["spec"]["template"]["metadata"]["labels"]
        let_in = servers["NetworkPolicy"]["spec"]["ingress"][0]["from"][0]["podSelector"]["matchExpressions"][0]
        self.assertIn(labels[let_in["key"]], let_in["values"])
        self.assertLessEqual(allowed["podSelector"]["matchLabels"].items(), labels.items())
        to = allowed["egress"][0]
        self.assertLessEqual(to["to"][0]["podSelector"]["matchLabels"].items(),
                             servers["Deployment"]["spec"]["template"]["metadata"]["labels"].items())
        host, port = argument(job["spec"]["template"]["spec"]["containers"][0], "--server").split(":")
        names = {i["metadata"]["name"] for i in self.built["cpu"] if i["kind"] == "Service"}
        self.assertIn(host, names)
        self.assertEqual(to["ports"], [{"port": int(port), "protocol": "TCP"}])

    def test_every_server_has_a_model_and_what_it_mounts(self):
        for overlay, item in self.each("Deployment"):
            pod = item["spec"]["template"]["spec"]
            mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
            self.assertEqual({volume["name"] for volume in pod["volumes"]}, set(mounts), overlay)
            model = argument(pod["containers"][0], "--model")
            if model.startswith("/"):
                self.assertEqual(mounts.get("model"), model, overlay)
                continue
            # By its name: the server finds, without the network, what the init container fetched.
            fetch = pod["initContainers"][0]
            self.assertEqual((fetch["command"], fetch["args"][:2]), (["quiver"], ["fetch", model]))
            self.assertEqual(argument(fetch, "--cache-dir"), fetch["volumeMounts"][0]["mountPath"])
            env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
            self.assertEqual(env["HF_HUB_CACHE"], mounts[fetch["volumeMounts"][0]["name"]], overlay)
            self.assertEqual(env["HF_HUB_OFFLINE"], "1")

    def test_selectors_find_their_pods_and_no_others(self):
        for overlay, items in self.built.items():
            pods = {i["metadata"]["name"]: i["spec"]["template"]["metadata"]["labels"] for i in items if i["kind"] == "Deployment"}
            for item in items:
                if item["kind"] == "Service":
                    selector, pool = item["spec"]["selector"], item["metadata"]["name"].replace("-headless", "")
                elif item["kind"] == "PodDisruptionBudget":
                    selector, pool = item["spec"]["selector"]["matchLabels"], item["metadata"]["name"]
                elif item["kind"] == "NetworkPolicy":
                    selector, pool = item["spec"]["podSelector"]["matchLabels"], item["metadata"]["name"]
                    clients = item["spec"]["ingress"][0].get("from", [{"podSelector": {}}])[0]["podSelector"]
                    self.assertNotIn("matchLabels", clients, "a client need not be a server")
                else:
                    continue
                self.assertEqual([name for name, labels in pods.items() if selector.items() <= labels.items()], [pool], overlay)

    def test_the_gateways_proxies_are_let_in(self):
        policy = next(item for item in self.built["with-gateway"] if item["kind"] == "NetworkPolicy")
        spaces = [peer["namespaceSelector"]["matchLabels"] for rule in policy["spec"]["ingress"]
                  if {"port": "grpc", "protocol": "TCP"} in rule["ports"] for peer in rule["from"] if "namespaceSelector" in peer]
        self.assertIn({"kubernetes.io/metadata.name": "envoy-gateway-system"}, spaces)

    def test_autoscalers_scale_what_is_there_by_metrics_that_are_there(self):
        source = "".join(path.read_text() for path in (ROOT / "server").glob("*.cc"))
        adapter = yaml.safe_load((K8S / "components/autoscale-prometheus-adapter/adapter-values.yaml").read_text())
        served = {rule["name"]["as"] for rule in adapter["rules"]["custom"]}
        queries = [rule["seriesQuery"] for rule in adapter["rules"]["custom"]]
        count = 0
        for overlay, item in self.each("HorizontalPodAutoscaler", "ScaledObject"):
            count += 1
            deployments = {i["metadata"]["name"]: i for i in self.built[overlay] if i["kind"] == "Deployment"}
            self.assertIn(item["spec"]["scaleTargetRef"]["name"], deployments, overlay)
            # Else each apply would undo what the autoscaler did.
            self.assertNotIn("replicas", deployments[item["spec"]["scaleTargetRef"]["name"]]["spec"], overlay)
            if item["kind"] == "ScaledObject":
                queries += [trigger["metadata"]["query"] for trigger in item["spec"]["triggers"]]
            else:
                self.assertLessEqual({metric["pods"]["metric"]["name"] for metric in item["spec"]["metrics"]}, served)
        self.assertGreaterEqual(count, 6)
        for overlay, item in self.each("ScaledObject"):
            for trigger in item["spec"]["triggers"]:
                # Servers that are not scraped are not idle, and another namespace's are not these.
                self.assertEqual(trigger["metadata"]["ignoreNullValues"], "false", overlay)
                self.assertIn('namespace="quiver"', trigger["metadata"]["query"], overlay)
        for query in queries:
            for metric in re.findall(r"quiver_[a-z_]+", query):
                self.assertIn(f'"{metric}"', source, query)

    def test_prometheus_rules_are_those_of_the_files(self):
        subprocess.run([K8S / "monitoring/make-prometheus-rules", "--check"], check=True)
        groups = [group for path in sorted((K8S / "monitoring/rules").glob("*.yaml"))
                  for group in yaml.safe_load(path.read_text())["groups"]]
        in_cluster = [group for item in self.built["gpu-h200"] if item["kind"] == "PrometheusRule" for group in item["spec"]["groups"]]
        self.assertEqual(in_cluster, groups)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
