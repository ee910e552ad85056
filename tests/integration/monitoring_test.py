"""A real Prometheus over real servers: the metrics' form, the rules, the dashboards, and every alert by a real fault.

Usage: monitoring_test.py QUIVER_SERVER QUIVER MAKE_TINY_MODEL FAKE_NVML_DIR

Minutes in the rules (their windows and what they wait for) are made seconds, so that faults need not last for minutes.
"""
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request

from running_server import ROOT, RestartableServer, free_port, generate_stubs

SERVER, QUIVER, MAKE_TINY_MODEL, FAKE_NVML = sys.argv[1:5]
MONITORING = ROOT / "deploy/k8s/monitoring"
PATIENCE = 120
SCRAPE = "250ms"
NUMBERS = itertools.count()


def find(program):
    return shutil.which(program, path=os.environ.get("QUIVER_PROMETHEUS", "") + os.pathsep + os.environ["PATH"])


def await_true(what, condition, patience=PATIENCE):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"no {what() if callable(what) else what} after {patience} s"
        time.sleep(0.1)


class Prometheus:
    def __init__(self, work, instances, rules):
        self.port = free_port()
        config = {
            "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
            "rule_files": [str(rule) for rule in rules],
            "scrape_configs": [{"job_name": "quiver", "static_configs": [
                {"targets": [i.http], "labels": {"server": i.name}} for i in instances]}],
        }
        # JSON is YAML.
        (work / "prometheus.yml").write_text(json.dumps(config))
        self.log = open(work / "prometheus.log", "w")
        self.process = subprocess.Popen(
            [find("prometheus"), f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=self.log, stderr=self.log)
        await_true("Prometheus", self.ready)

    def ready(self):
        assert self.process.poll() is None, pathlib.Path(self.log.name).read_text()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def api(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as reply:
            return json.load(reply)["data"]

    def query(self, expr):
        return self.api("query", query=expr)["result"]

    def firing(self):
        """Names of alerts that fire, by server; "" for those of no server of their own."""
        alerts = self.query('ALERTS{alertstate="firing"}')
        return {(a["metric"]["alertname"], a["metric"].get("server", a["metric"].get("instance", ""))) for a in alerts}

    def stop(self):
        self.process.kill()
        self.process.wait()


def shorten(rule_file, out):
    """The rules with every minute a second."""
    text = rule_file.read_text()
    text = re.sub(r"\[(\d+)m\]", r"[\1s]", text)
    text, waits = re.subn(r"(\bfor: \d+)m\b", r"\1s", text)
    (out / rule_file.name).write_text(text)
    return out / rule_file.name


def distinct(count, words):
    """Texts of so many words, no two equal: equal ones would be computed once."""
    return [f"{next(NUMBERS)} " + "word " * words for _ in range(count)]


def poison(model):
    """Makes the embedding of token 5 NaN, in the checkpoint's file."""
    path = next(pathlib.Path(model).glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    name = next(n for n in header if n.endswith("embed_tokens.weight"))
    size = {"F32": 4, "F16": 2, "BF16": 2}[header[name]["dtype"]]
    row = header[name]["shape"][1] * size
    begin = 8 + length + header[name]["data_offsets"][0] + 5 * row
    data[begin:begin + row] = b"\xff" * row
    path.write_bytes(data)


class MonitoringTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.exit = contextlib.ExitStack()
        work = cls.work = pathlib.Path(cls.exit.enter_context(tempfile.TemporaryDirectory()))
        generate_stubs(work / "stubs")
        tiny, poisoned = work / "tiny", work / "poisoned"
        for model in (tiny, poisoned):
            subprocess.run([MAKE_TINY_MODEL, str(model), "--fixtures", f"{ROOT}/tests/fixtures"], check=True,
                           stdout=subprocess.DEVNULL)
        poison(poisoned)
        slow = os.environ.get("QUIVER_DEFAULT_MODEL")
        assert slow, "QUIVER_DEFAULT_MODEL is not set: a model slow enough to be overloaded"
        cls.card = work / "card"
        cls.set_card(free_share=0.5, celsius=40)
        gpu = {"LD_LIBRARY_PATH": FAKE_NVML, "FAKE_NVML_STATE": str(cls.card)}

        def make(name, model, *flags, **options):
            return RestartableServer(SERVER, name, model, work, *flags, **options)

        cls.servers = {i.name: i for i in (
            make("calm", tiny),
            make("killed", tiny),
            make("restarting", tiny),
            make("draining", slow, "--drain-timeout", "10m"),
            make("poisoned", poisoned),
            make("overloaded", slow, "--bulk-share", "0", "--max-queued-tokens", "8000"),
            make("stalling", slow),
            make("with_card", tiny, env=gpu),
            make("few_descriptors", tiny, limit_fds=96))}
        for server in cls.servers.values():
            cls.exit.callback(server.kill)
            server.start()
        rules = [shorten(rule, work) for rule in sorted((MONITORING / "rules").glob("*.yaml"))]
        cls.prometheus = Prometheus(work, cls.servers.values(), rules)
        cls.exit.callback(cls.prometheus.stop)

        import grpc
        from quiver.v1 import embed_pb2, embed_pb2_grpc
        cls.pb, cls.grpc = embed_pb2, grpc
        cls.stubs = {name: embed_pb2_grpc.EmbedServiceStub(cls.exit.enter_context(grpc.insecure_channel(s.grpc)))
                     for name, s in cls.servers.items()}

    @classmethod
    def tearDownClass(cls):
        cls.exit.close()

    @classmethod
    def set_card(cls, free_share, celsius):
        total = 80 * 2**30
        draft = cls.card.with_suffix(".tmp")
        draft.write_text(f"{total} {int(total * (1 - free_share))} 50 300000 {celsius}")
        draft.rename(cls.card)

    def embed(self, name, texts, lane="interactive", timeout=60):
        """The reply, or None where the RPC failed."""
        request = self.pb.EmbedRequest(inputs=[self.pb.Input(text=text) for text in texts])
        request.options.lane = self.pb.Lane.Value(f"LANE_{lane.upper()}")
        try:
            return self.stubs[name].Embed(request, timeout=timeout)
        except self.grpc.RpcError:
            return None

    # Faults. Each begins when entered and is undone when left.

    @contextlib.contextmanager
    def repeating(self, *works):
        """Does each of `works` over and over on a thread of its own."""
        stop = threading.Event()

        def loop(work):
            while not stop.is_set():
                work(stop)

        threads = [threading.Thread(target=loop, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    @contextlib.contextmanager
    def traffic(self):
        """What users would send, on the servers whose fault is not in it."""
        def send(stop):
            for name in ("calm", "with_card", "few_descriptors"):
                self.embed(name, ["a cat", "a kitten"])
                self.embed(name, ["a dog"] * 4, "bulk")
            stop.wait(0.02)

        with self.repeating(send):
            yield

    @contextlib.contextmanager
    def killed(self):
        self.servers["killed"].kill()
        yield
        self.servers["killed"].start()

    @contextlib.contextmanager
    def restarting(self):
        for _ in range(4):
            self.servers["restarting"].kill()
            self.servers["restarting"].start()
            # Each start is to be seen.
            time.sleep(0.6)
        yield

    @contextlib.contextmanager
    def draining(self):
        """SIGTERM, while a request of minutes is under way."""
        server = self.servers["draining"]
        thread = threading.Thread(target=self.embed, args=("draining", distinct(4000, 250), "bulk", 300))
        thread.start()
        await_true("work", lambda: "quiver_running_items" in server.get("/metrics") and
                   re.search(r'quiver_running_items\{lane="bulk"\} [1-9]', server.get("/metrics")))
        server.process.send_signal(signal.SIGTERM)
        yield
        server.kill()
        thread.join()
        server.start()

    @contextlib.contextmanager
    def poisoned(self):
        def send(stop):
            request = self.pb.EmbedRequest()
            request.inputs.add().token_ids.ids.append(5)
            reply = self.stubs["poisoned"].Embed(request, timeout=60)
            assert reply.results[0].error.code == 13, reply
            stop.wait(0.1)

        with self.repeating(send):
            yield

    @contextlib.contextmanager
    def overloaded(self):
        """More than it can do in both lanes, of which bulk is given no share; some with deadlines."""
        def flood(stop):
            if self.embed("overloaded", distinct(8, 200)) is None:
                stop.wait(0.01)

        def hurry(stop):
            self.embed("overloaded", distinct(8, 100), timeout=0.2)
            stop.wait(0.05)

        def bulk(stop):
            self.embed("overloaded", distinct(8, 100), "bulk", timeout=5)

        with self.repeating(*[flood] * 16, hurry, bulk):
            yield

    @contextlib.contextmanager
    def stalling(self):
        """A process that stands still most of the time."""
        process = self.servers["stalling"].process

        def stall(stop):
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.8)
            process.send_signal(signal.SIGCONT)
            stop.wait(0.3)

        def send(_):
            self.embed("stalling", distinct(1, 60))

        with self.repeating(stall, send, send):
            yield

    @contextlib.contextmanager
    def full_hot_card(self):
        self.set_card(free_share=0.005, celsius=90)
        yield
        self.set_card(free_share=0.5, celsius=40)

    @contextlib.contextmanager
    def few_descriptors(self):
        host, port = self.servers["few_descriptors"].http.split(":")
        connections = [socket.create_connection((host, int(port))) for _ in range(70)]
        # Reconnected, as the server closes idle ones.
        yield
        for connection in connections:
            connection.close()

    # What they make fire.
    FAULTS = {
        "killed": [("QuiverServerDown", "killed")],
        "restarting": [("QuiverServerRestarts", "restarting")],
        "draining": [("QuiverDrainStuck", "draining")],
        "poisoned": [("QuiverFaults", "poisoned"), ("QuiverUnusableVectors", "poisoned")],
        "overloaded": [("QuiverOverloaded", "overloaded"), ("QuiverDeadlinesMissed", "overloaded"),
                       ("QuiverQueueOld", "overloaded"), ("QuiverBulkStarved", "overloaded"), ("QuiverSlow", "overloaded")],
        "stalling": [("QuiverPredictionsOff", "stalling")],
        "full_hot_card": [("QuiverGpuMemoryNearlyFull", "with_card"), ("QuiverGpuHot", "with_card")],
        "few_descriptors": [("QuiverDescriptorsNearlyOut", "few_descriptors")],
    }

    def test_each_alert_fires_by_a_fault_and_clears(self):
        names = {rule["alert"] for rule in self.alerts()}
        self.assertEqual({alert for alerts in self.FAULTS.values() for alert, _ in alerts}, names)
        servers = {s.http: name for name, s in self.servers.items()}

        def firing():
            return {(alert, servers.get(server, server)) for alert, server in self.prometheus.firing()}

        with self.traffic():
            for fault, alerts in self.FAULTS.items():
                begin = time.monotonic()
                with getattr(self, fault)():
                    await_true(lambda: f"{alerts}; firing: {firing()}", lambda: set(alerts) <= firing())
                    seen = firing()
                fired = time.monotonic() - begin
                self.assertFalse([alert for alert in seen if alert[1] == "calm"], "the healthy server is well")
                await_true(f"end of {alerts}", lambda: not set(alerts) & firing())
                print(f"{fault}: {', '.join(a for a, _ in alerts)} fired in {fired:.1f} s, all were over after "
                      f"{time.monotonic() - begin:.1f} s", flush=True)

    def test_metrics_are_in_good_form(self):
        with self.traffic():
            time.sleep(1)
            for name in ("calm", "with_card"):
                scrape = self.servers[name].get("/metrics")
                check = subprocess.run([find("promtool"), "check", "metrics"], input=scrape, text=True, capture_output=True)
                self.assertEqual((check.returncode, check.stderr), (0, ""), name)

    def test_rules_hold_what_they_say(self):
        for command in (["check", "rules", *map(str, sorted((MONITORING / "rules").glob("*.yaml")))],
                        ["test", "rules", str(ROOT / "tests/integration/alert_rules.yaml")]):
            check = subprocess.run([find("promtool"), *command], text=True, capture_output=True)
            self.assertEqual(check.returncode, 0, check.stdout + check.stderr)

    def test_every_alert_has_its_page(self):
        for rule in self.alerts():
            page = ROOT / rule["annotations"]["runbook"]
            self.assertIn(rule["alert"], page.read_text().splitlines()[0])

    @staticmethod
    def alerts():
        import yaml
        rules = yaml.safe_load((MONITORING / "rules/quiver-alerts.yaml").read_text())
        return [rule for group in rules["groups"] for rule in group["rules"]]

    def test_every_panel_has_data(self):
        panels = [panel for path in sorted((MONITORING / "dashboards").glob("*.json"))
                  for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]
        self.assertGreater(len(panels), 30)

        def without_data():
            missing = []
            for panel in panels:
                # Of a CUDA device's server alone.
                if panel["quiverEmptyIsFine"]:
                    continue
                for target in panel["targets"]:
                    expr = target["expr"].replace("$__rate_interval", "5s").replace("$job", ".*").replace("$instance", ".*")
                    values = [float(series["value"][1]) for series in self.prometheus.query(expr)]
                    if not any(value == value for value in values):
                        missing.append(f"{panel['title']}: {expr}")
            return missing

        with self.traffic():
            end = time.monotonic() + PATIENCE
            while missing := without_data():
                self.assertLess(time.monotonic(), end, missing)
                time.sleep(0.5)

    def test_percentiles_agree_with_the_load_generator(self):
        """Those of the histogram and of the window within one bucket of the client's, on a server that was just started."""
        server, report = self.servers["draining"], self.work / "report.json"
        server.kill()
        server.start()
        before = server.get("/metrics")
        subprocess.run([QUIVER, "bench", "serve", "--server", server.grpc, "--workload", "name=query,rate=30,tokens=64",
                        "--seconds", "8", "--warm-up", "0", "--json", str(report)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        after = server.get("/metrics")
        client = json.loads(report.read_text())["runs"][0]["workloads"][0]["latency_ms"]["p95"] / 1e3

        labels = {"lane": "interactive", "rpc": "Embed"}
        buckets = [(le, count - count_before) for (le, count), (_, count_before) in
                   zip(self.buckets(after, labels), self.buckets(before, labels))]
        total = buckets[-1][1]
        self.assertGreater(total, 100)
        bounds = [le for le, _ in buckets]
        histogram = next(i for i, (_, count) in enumerate(buckets) if count >= 0.95 * total)
        gauge = float(re.search(r'quiver_request_duration_window_seconds\{lane="interactive",percentile="95",rpc="Embed"\} (\S+)',
                                after).group(1))
        print(f"P95: client {client * 1e3:.2f} ms, gauge {gauge * 1e3:.2f} ms, histogram's bucket up to "
              f"{bounds[histogram] * 1e3:g} ms")
        at_client = next(i for i, le in enumerate(bounds) if client <= le)
        at_gauge = next(i for i, le in enumerate(bounds) if gauge <= le)
        self.assertLessEqual(abs(at_client - histogram), 1)
        self.assertLessEqual(abs(at_client - at_gauge), 1)

    @staticmethod
    def buckets(scrape, labels):
        """Pairs of upper bound and cumulative count."""
        found = []
        for line in scrape.splitlines():
            if not line.startswith("quiver_request_duration_seconds_bucket{"):
                continue
            of = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if all(of[name] == value for name, value in labels.items()):
                found.append((float(of["le"]), float(line.rsplit(" ", 1)[1])))
        return found

    def test_scraping_costs_little(self):
        server = self.servers["calm"]

        def cpu():
            return float(re.search(r"^process_cpu_seconds_total (\S+)", server.get("/metrics"), re.MULTILINE).group(1))

        scrapes, before = 100, cpu()
        for _ in range(scrapes):
            server.get("/metrics")
        each = (cpu() - before) / (scrapes + 1)
        print(f"a scrape costs {each * 1e3:.2f} ms of a core: {each / 15 * 100:.4f} % of one at every 15 s")
        self.assertLess(each / 15, 0.01)


if __name__ == "__main__":
    if find("prometheus") is None or find("promtool") is None:
        print("skipped: there is no prometheus and promtool in PATH or QUIVER_PROMETHEUS")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2)
