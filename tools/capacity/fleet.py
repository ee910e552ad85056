"""Servers behind a balancer, and the autoscaler that sets their number."""
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Scaling:
    """As Kubernetes' HorizontalPodAutoscaler with deploy/k8s' metrics has it."""
    least: int = 1
    most: int = 1
    # Part of what a card can do; 95th percentile of the wait before the device.
    load_target: float = 0.7
    wait_target_ms: float = 50
    # The time that the device is busy in place of its load.
    by_busy: bool = False
    # From the decision until a new server serves: a node, an image, the model.
    start_seconds: float = 90
    # The number at most doubles in so long.
    double_seconds: float = 30
    # How long the larger number is kept.
    down_seconds: float = 600
    tolerance: float = 0.1


@dataclasses.dataclass(frozen=True)
class State:
    """Of one step."""
    seconds: float
    servers: int
    starting: int
    queries_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    # Queries a second that got no answer within the deadline.
    lost_per_second: float
    waiting_queries: float
    bulk_documents: float


class Fleet:
    """Runs a trace. Every server gets the same share, as a balancer by least requests gives it."""

    def __init__(self, server, scaling, step_seconds=15, deadline_ms=2000):
        self.server = server
        self.scaling = scaling
        self.step = step_seconds
        self.deadline = deadline_ms / 1e3
        self.ready = scaling.least
        # Times at which servers begin to serve.
        self.starting = []
        # (time, number asked for), of the last down_seconds; (time, number there and starting), of the last double_seconds.
        self.asked = []
        self.had = []
        self.waiting = 0.0
        self.bulk = 0.0

    def run(self, moments):
        return [self._step(moment) for moment in moments]

    def _step(self, moment):
        now = moment.seconds
        self.ready += sum(1 for at in self.starting if at <= now)
        self.starting = [at for at in self.starting if at > now]
        self.bulk += moment.bulk_documents
        load, offered, delay, lost = self._serve(moment.queries_per_second)
        state = State(now, self.ready, len(self.starting), moment.queries_per_second, load.percentile_ms(0.5) + delay,
                      load.percentile_ms(0.95) + delay, load.percentile_ms(0.99) + delay, lost, self.waiting, self.bulk)
        self._scale(now, load, offered, delay)
        return state

    def _serve(self, rate):
        """Moves time on by a step. The load of a server, its queries a second, the delay by what
        waits (ms), and queries lost a second."""
        bulk = self.bulk > 0
        most = self.server.queries_per_second * ((1 - self.server.bulk_share) if bulk else 1) * self.ready
        wanted = rate + self.waiting / self.step
        done = min(wanted, most)
        left = (wanted - done) * self.step
        # The balancer refuses what would wait for longer than anybody does.
        kept = min(left, most * self.deadline)
        lost = (left - kept) / self.step
        self.waiting = kept
        # Just below its limit a server's queue has no end: what waits is counted above.
        offered = min(done, 0.98 * most) / self.ready
        # A thousandth of the limit tells no two loads apart.
        grain = self.server.queries_per_second / 1000
        load = self.server.run(round(offered / grain) * grain, bulk)
        if bulk:
            self.bulk = max(0.0, self.bulk - self.ready * self.server.bulk_per_second * load.bulk_busy * self.step)
        return load, offered, 1e3 * self.waiting / most, lost

    def _scale(self, now, load, rate, delay):
        s = self.scaling
        busy = load.query_busy if s.by_busy else rate / self.server.queries_per_second
        busy = min(1.0, busy + load.bulk_busy)
        own = (self.server.outside_us + self.server.cost.pass_us(1, self.server.query_tokens)) / 1e3
        wait = max(0.0, load.percentile_ms(0.95) + delay - own)
        ratio = max(busy / s.load_target, wait / s.wait_target_ms)
        wanted = self.ready if abs(ratio - 1) <= s.tolerance else math.ceil(self.ready * ratio)
        wanted = min(s.most, max(s.least, wanted))
        self.asked = [(at, n) for at, n in self.asked if at > now - s.down_seconds] + [(now, wanted)]
        wanted = max(n for _, n in self.asked)
        have = self.ready + len(self.starting)
        self.had = [(at, n) for at, n in self.had if at > now - s.double_seconds] + [(now, have)]
        wanted = min(wanted, 2 * min(n for _, n in self.had))
        if wanted > have:
            self.starting += [now + s.start_seconds] * (wanted - have)
        elif wanted < self.ready:
            self.ready = wanted
            self.starting = []
