"""One server as its scheduler runs it: batches sealed when the device is free, queries overtaking bulk work between two steps.

The cost of a pass is the scheduler's own model (engine/schedule/cost_model.h): a fixed time, a time a token, and a time a pair of
tokens of one sequence.
"""
import bisect
import dataclasses
import functools
import itertools
import random


@dataclasses.dataclass(frozen=True)
class Cost:
    fixed_us: float
    token_us: float
    pair_us: float

    def pass_us(self, sequences, tokens):
        """`sequences` inputs of `tokens` each, in one pass."""
        return self.fixed_us + sequences * (tokens * self.token_us + tokens * tokens * self.pair_us)

    @staticmethod
    def fit(rows):
        """Through three rows of (sequences, tokens of each, milliseconds); a time that would be negative is 0."""
        matrix = [[1.0, s * t, s * t * t, ms * 1e3] for s, t, ms in rows]
        # Least squares over non-negative coefficients: the best of the fits with some of them left out.
        best = None
        for used in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in (1, 2, 3)):
            solution = _least_squares(matrix, used)
            if solution is None or min(solution) < 0:
                continue
            error = sum(((sum(row[i] * c for i, c in enumerate(solution)) - row[3]) / row[3]) ** 2 for row in matrix)
            if best is None or error < best[0] * (1 - 1e-9):
                best = (error, solution)
        return Cost(*best[1])


def _least_squares(matrix, used):
    """Coefficients that make the relative error small, 0 for those not in `used`; None if there is no one solution."""
    rows = [[row[i] / row[3] for i in used] for row in matrix]
    n = len(used)
    normal = [[sum(r[i] * r[j] for r in rows) for j in range(n)] + [sum(r[i] for r in rows)] for i in range(n)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(normal[k][i]))
        normal[i], normal[pivot] = normal[pivot], normal[i]
        if abs(normal[i][i]) < 1e-30:
            return None
        for k in range(n):
            if k != i:
                factor = normal[k][i] / normal[i][i]
                normal[k] = [a - factor * b for a, b in zip(normal[k], normal[i])]
    solution = [0.0, 0.0, 0.0]
    for place, i in enumerate(used):
        solution[i] = normal[place][n] / normal[place][place]
    return solution


@dataclasses.dataclass(frozen=True)
class Server:
    """What one card does."""
    cost: Cost
    query_tokens: int = 32
    bulk_tokens: int = 512
    # Tokens of a batch.
    batch_tokens: int = 32768
    # Of the device's time while queries wait, too.
    bulk_share: float = 0.1
    # The longest time between two places where a query may overtake, and how many such steps are under way at once.
    step_us: float = 3000
    steps_under_way: int = 2
    # What a request takes beside the device: the network, tokenizing, the reply.
    outside_us: float = 1000

    @property
    def batch_queries(self):
        return max(1, self.batch_tokens // self.query_tokens)

    @property
    def queries_per_second(self):
        """With full batches and nothing else to do."""
        return 1e6 * self.batch_queries / self.cost.pass_us(self.batch_queries, self.query_tokens)

    @property
    def bulk_per_second(self):
        """Documents, with nothing else to do."""
        documents = max(1, self.batch_tokens // self.bulk_tokens)
        return 1e6 * documents / self.cost.pass_us(documents, self.bulk_tokens)

    @functools.lru_cache(maxsize=4096)
    def run(self, rate, bulk, queries=4000, seed=1):
        """A stationary load of `rate` queries a second, Poisson, with or without a bulk backlog: a Load."""
        if rate <= 0:
            return Load([self.outside_us + self.cost.pass_us(1, self.query_tokens)], 0.0, float(bulk))
        arrivals, time = [], 0.0
        source = random.Random(seed)
        for _ in range(queries):
            time += source.expovariate(rate) * 1e6
            arrivals.append(time)
        latencies, first, now = [], 0, 0.0
        query_us = bulk_us = debt_us = 0.0
        while first < len(arrivals):
            if not bulk:
                now = max(now, arrivals[first])
            waiting = bisect.bisect_right(arrivals, now, first) - first
            if waiting and not (bulk and debt_us >= self.step_us):
                taken = min(waiting, self.batch_queries)
                took = self.cost.pass_us(taken, self.query_tokens)
                now += took
                query_us += took
                debt_us += took * self.bulk_share / (1 - self.bulk_share)
                latencies += [now - arrivals[first + i] + self.outside_us for i in range(taken)]
                first += taken
                continue
            # Bulk steps until there is a query; those under way when it comes end first.
            if waiting:
                until = now + self.step_us
            else:
                steps = int((arrivals[first] - now) // self.step_us)
                until = now + (steps + self.steps_under_way) * self.step_us
            bulk_us += until - now
            debt_us = max(0.0, debt_us - (until - now)) if waiting else 0.0
            now = until
        return Load(sorted(latencies), query_us / now, bulk_us / now)


@dataclasses.dataclass(frozen=True)
class Load:
    # Microseconds from arrival to answer, ascending.
    latencies: list
    # Parts of the device's time.
    query_busy: float
    bulk_busy: float

    def percentile_ms(self, part):
        return self.latencies[min(len(self.latencies) - 1, int(part * len(self.latencies)))] / 1e3
