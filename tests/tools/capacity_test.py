#!/usr/bin/env python3
"""tools/capacity against what queueing theory and arithmetic say."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools/capacity"))
from fleet import Fleet, Scaling  # noqa: E402
from server_model import Cost, Server  # noqa: E402
from traffic import Moment, diurnal, read_trace  # noqa: E402

COST = Cost(1000, 20, 0.001)
STEP = 15


def steady(rate, steps, documents=0):
    return [Moment(i * STEP, rate, documents if i == 0 else 0) for i in range(steps)]


class OneServer(unittest.TestCase):
    def test_lone_queries_wait_as_md1_says(self):
        server = Server(COST, query_tokens=32, batch_tokens=32, outside_us=0)
        service = COST.pass_us(1, 32)
        for busy in (0.3, 0.6, 0.8):
            load = server.run(busy * 1e6 / service, False, queries=200_000)
            mean = sum(load.latencies) / len(load.latencies)
            expected = service + busy * service / (2 * (1 - busy))
            self.assertAlmostEqual(mean / expected, 1, delta=0.03)
            self.assertAlmostEqual(load.query_busy, busy, delta=0.02)

    def test_batches_carry_more_than_lone_queries_could(self):
        server = Server(COST)
        alone = 1e6 / COST.pass_us(1, 32)
        load = server.run(1.2 * alone, False)
        self.assertLess(load.percentile_ms(0.95), 20)

    def test_bulk_keeps_its_share_and_no_more_while_queries_saturate(self):
        server = Server(COST, bulk_share=0.1)
        load = server.run(3 * server.queries_per_second, True, queries=20_000)
        self.assertAlmostEqual(load.bulk_busy, 0.1, delta=0.02)

    def test_lone_query_waits_for_the_steps_under_way_and_no_longer(self):
        server = Server(COST, step_us=3000, steps_under_way=2, outside_us=0)
        load = server.run(0.01, True, queries=500)
        own = COST.pass_us(1, 32)
        self.assertLessEqual(load.latencies[-1], own + 2 * 3000 + 1)
        self.assertGreaterEqual(load.latencies[0], own + 3000 - 1)

    def test_fit_finds_the_costs_that_made_the_rows(self):
        rows = [(n, t, COST.pass_us(n, t) / 1e3) for n, t in ((1, 32), (32, 32), (64, 512), (1, 32768))]
        fitted = Cost.fit(rows)
        for got, meant in zip((fitted.fixed_us, fitted.token_us, fitted.pair_us), (1000, 20, 0.001)):
            self.assertAlmostEqual(got / meant, 1, places=6)

    def test_fit_has_no_negative_cost(self):
        fitted = Cost.fit([(1, 32, 1.0), (1, 64, 1.0), (1, 4096, 10.0)])
        self.assertGreaterEqual(min(fitted.fixed_us, fitted.token_us, fitted.pair_us), 0)


class ManyServers(unittest.TestCase):
    def test_backlog_takes_as_long_as_its_documents(self):
        server = Server(COST)
        documents = 10 * server.bulk_per_second * 60
        states = Fleet(server, Scaling(2, 2), STEP).run(steady(0, 40, documents))
        left = [s.bulk_documents for s in states]
        done = next(s.seconds for s in states if s.bulk_documents == 0)
        self.assertAlmostEqual(done, 300, delta=2 * STEP)
        self.assertEqual(left, sorted(left, reverse=True))

    def test_more_servers_are_never_slower(self):
        server = Server(COST)
        rate = 2.5 * server.queries_per_second
        p95 = [Fleet(server, Scaling(n, n), STEP).run(steady(rate, 8))[-1].p95_ms for n in (3, 4, 6, 12)]
        self.assertEqual(p95, sorted(p95, reverse=True))

    def test_overload_loses_the_excess(self):
        server = Server(COST)
        states = Fleet(server, Scaling(1, 1), STEP, deadline_ms=500).run(steady(3 * server.queries_per_second, 20))
        self.assertAlmostEqual(states[-1].lost_per_second / server.queries_per_second, 2, delta=0.01)
        self.assertGreater(states[-1].p95_ms, 490)

    def test_new_servers_serve_when_they_have_started_and_stay_within_the_limit(self):
        server = Server(COST)
        scaling = Scaling(1, 4, start_seconds=60)
        states = Fleet(server, scaling, STEP).run(steady(6 * server.queries_per_second, 40))
        first = next(s.seconds for s in states if s.servers > 1)
        self.assertGreaterEqual(first, 60)
        self.assertEqual(max(s.servers for s in states), 4)

    def test_number_at_most_doubles_in_half_a_minute(self):
        server = Server(COST)
        states = Fleet(server, Scaling(1, 1000, start_seconds=0), STEP).run(steady(500 * server.queries_per_second, 40))
        for before, after in zip(states, states[2:]):
            self.assertLessEqual(after.servers, 2 * before.servers)
        self.assertGreater(states[-1].servers, 500)

    def test_number_goes_down_after_the_wait_alone(self):
        server = Server(COST)
        load = steady(3 * server.queries_per_second, 40) + [Moment(600 + i * STEP, 1, 0) for i in range(60)]
        states = Fleet(server, Scaling(1, 8, start_seconds=30, down_seconds=300), STEP).run(load)
        most = states[39].servers
        self.assertTrue(all(s.servers == most for s in states if 600 <= s.seconds < 870))
        self.assertEqual(states[-1].servers, 1)


class Program(unittest.TestCase):
    def run_it(self, *arguments):
        return subprocess.run([sys.executable, ROOT / "tools/capacity", *arguments], capture_output=True, text=True, check=False)

    def test_day_of_a_fleet_is_told_and_drawn(self):
        with tempfile.TemporaryDirectory() as folder:
            svg, out = pathlib.Path(folder, "day.svg"), pathlib.Path(folder, "day.json")
            done = self.run_it("--cost", "1000,20,0.001", "--queries", "50000", "--servers", "20:200", "--job", "2=1000000",
                               "--svg", str(svg), "--json", str(out), "--price", "2")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("GPU-hours", done.stdout)
            result = json.loads(out.read_text())
            self.assertEqual(len(result["steps"]), 24 * 3600 // STEP)
            self.assertAlmostEqual(result["summary"]["cost"], 2 * result["summary"]["GPU-hours"])
            self.assertEqual(xml.etree.ElementTree.parse(svg).getroot().tag, "{http://www.w3.org/2000/svg}svg")

    def test_trace_is_held_from_line_to_line(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "trace.csv")
            path.write_text("seconds,queries_per_second,bulk_documents\n0,5,100\n60,9,\n")
            moments = read_trace(path, STEP)
        self.assertEqual([m.queries_per_second for m in moments], [5, 5, 5, 5, 9])
        self.assertEqual(sum(m.bulk_documents for m in moments), 100)
        day = diurnal(100, 20, 24, STEP)
        self.assertAlmostEqual(max(m.queries_per_second for m in day), 100, places=3)
        self.assertAlmostEqual(min(m.queries_per_second for m in day), 20, places=3)

    def test_wrong_arguments_are_named(self):
        for arguments, message in (
                (["--cost", "1,2"], "--cost"), (["--row", "1x32"], "--row"), (["--cost", "1,2,3", "--servers", "5:2"], "--servers"),
                (["--cost", "1,2,3", "--trace", "/does/not/exist"], "/does/not/exist"),
                (["--server", "http://localhost:1"], "capacity: "), ([], "--server")):
            done = self.run_it(*arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(message, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
