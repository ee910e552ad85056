"""What is asked of a fleet, in steps of time."""
import csv
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Moment:
    """A step: queries a second while it lasts, and documents that bulk jobs bring at its beginning."""
    seconds: float
    queries_per_second: float
    bulk_documents: float


def diurnal(peak, trough, hours, step_seconds, jobs=(), spike=None):
    """A day's curve between `trough` and `peak`, highest at 14 h. `jobs` are (hour, documents); `spike` is (hour, minutes, factor)."""
    moments = []
    steps = int(hours * 3600 / step_seconds)
    for i in range(steps):
        hour = i * step_seconds / 3600
        rate = trough + (peak - trough) * (1 + math.cos((hour - 14) / 24 * 2 * math.pi)) / 2
        if spike and spike[0] <= hour < spike[0] + spike[1] / 60:
            rate *= spike[2]
        documents = sum(count for at, count in jobs if i == int(at * 3600 / step_seconds))
        moments.append(Moment(i * step_seconds, rate, documents))
    return moments


def read_trace(path, step_seconds):
    """CSV with the columns seconds, queries_per_second, bulk_documents; a line holds until the next."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if not lines:
        raise ValueError(f"{path}: there is no line")
    try:
        rows = [(float(r["seconds"]), float(r["queries_per_second"]), float(r.get("bulk_documents") or 0)) for r in lines]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: must have numbers under seconds, queries_per_second and bulk_documents ({error})") from error
    if any(b[0] <= a[0] for a, b in zip(rows, rows[1:])) or any(rate < 0 or count < 0 for _, rate, count in rows):
        raise ValueError(f"{path}: seconds must grow, and nothing may be negative")
    moments, place = [], 0
    end = rows[-1][0] + step_seconds
    time = rows[0][0]
    while time < end:
        documents = 0.0
        while place < len(rows) and rows[place][0] <= time:
            documents += rows[place][2]
            place += 1
        moments.append(Moment(time - rows[0][0], rows[place - 1][1], documents))
        time += step_seconds
    return moments
