"""What became of a fleet: a summary, and a picture of the day."""
import html
import math

PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP, GAP = 900, 150, 90, 40, 55


def summary(states, server, scaling, step_seconds, slo_ms, price):
    """Names and values, in the order to show them."""
    queries = sum(s.queries_per_second for s in states) * step_seconds
    lost = sum(s.lost_per_second for s in states) * step_seconds
    within = sum(s.queries_per_second for s in states if s.p95_ms <= slo_ms) * step_seconds
    gpu_hours = sum(s.servers + s.starting for s in states) * step_seconds / 3600
    hours = len(states) * step_seconds / 3600
    ranked = sorted(s.p95_ms for s in states)
    cleared = next((s.seconds for i, s in enumerate(states) if s.bulk_documents == 0 and any(
        b.bulk_documents > 0 for b in states[:i]) and all(b.bulk_documents == 0 for b in states[i:])), None)
    result = {
        "a card alone, queries/s": server.queries_per_second,
        "a card alone, bulk documents/s": server.bulk_per_second,
        "hours": hours,
        "queries": queries,
        "queries lost": lost,
        "queries lost, part": lost / queries if queries else 0.0,
        "P95 ms, median of the steps": ranked[len(ranked) // 2],
        "P95 ms, worst step": ranked[-1],
        f"queries in steps with P95 <= {slo_ms:g} ms, part": within / queries if queries else 1.0,
        "servers, least and most": f"{min(s.servers for s in states)} to {max(s.servers for s in states)} (limit {scaling.most})",
        "bulk documents left at the end": states[-1].bulk_documents,
        "bulk done after, hours": cleared / 3600 if cleared is not None else None,
        "GPU-hours": gpu_hours,
        "a million queries take, GPU-hours": gpu_hours / queries * 1e6 if queries else None,
    }
    if price is not None:
        result["cost"] = gpu_hours * price
    return result


def table(values):
    def show(value):
        if value is None:
            return "-"
        return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else (
            f"{value:,.0f}" if isinstance(value, float) else str(value))
    width = max(len(name) for name in values)
    return "\n".join(f"{name:<{width}}  {show(value)}" for name, value in values.items())


def _short(value):
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= power:
            return f"{value / power:.3g} {letter}"
    return f"{value:.3g}"


def _panel(top, title, unit, times, series, limit=None):
    """With a limit, times that lie far apart: on a scale of powers of ten."""
    values = [v for _, of_one, _ in series for v in of_one] + ([limit] if limit else [])
    hours = max(times[-1], 1e-9) / 3600

    def x(time):
        return LEFT + PANEL_WIDTH * time / 3600 / hours

    if limit:
        first, last = math.floor(math.log10(max(1e-3, min(values)))), math.ceil(math.log10(max(values)))
        ticks = [10.0 ** power for power in range(first, last + 1)]

        def y(value):
            return top + PANEL_HEIGHT * (1 - (math.log10(max(value, ticks[0])) - first) / max(1, last - first))
    else:
        highest = 1.05 * max(values + [1e-9])
        ticks = [0, highest / 2, highest]

        def y(value):
            return top + PANEL_HEIGHT * (1 - value / highest)
    out = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{html.escape(title)}</text>']
    for value in ticks:
        out.append(f'<line x1="{LEFT}" x2="{LEFT + PANEL_WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{_short(value)}{unit}</text>')
    for i in range(9):
        hour = hours * i / 8
        out.append(f'<text x="{x(hour * 3600):.1f}" y="{top + PANEL_HEIGHT + 16}" text-anchor="middle">{hour:.3g} h</text>')
    if limit:
        out.append(f'<line x1="{LEFT}" x2="{LEFT + PANEL_WIDTH}" y1="{y(limit):.1f}" y2="{y(limit):.1f}" stroke="#b3261e" '
                   'stroke-dasharray="5 4"/>')
    for place, (name, of_one, colour) in enumerate(series):
        # One point a pixel is enough; the highest of those that fall on it.
        columns = {}
        for time, value in zip(times, of_one):
            column = round(x(time))
            columns[column] = max(columns.get(column, 0), value)
        points = " ".join(f"{column},{y(value):.1f}" for column, value in columns.items())
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
                   f'<text x="{LEFT + PANEL_WIDTH - 170 * place}" y="{top - 8}" text-anchor="end" fill="{colour}">{html.escape(name)}</text>')
    return "\n".join(out)


def picture(states, slo_ms):
    """SVG: the load and the servers, P95 beside its target, what waits, over time."""
    times = [s.seconds for s in states]
    panels = [
        ("Queries a second", "", [("asked", [s.queries_per_second for s in states], "#2f6fde"),
                                    ("lost", [s.lost_per_second for s in states], "#b3261e")], None),
        ("Servers", "", [("serving", [s.servers for s in states], "#1e7f4f"),
                         ("starting", [s.starting for s in states], "#c77700")], None),
        (f"P95 of queries (dashed: {slo_ms:g} ms)", " ms", [("P95", [s.p95_ms for s in states], "#2f6fde")], slo_ms),
        ("Bulk documents that wait", "", [("backlog", [s.bulk_documents for s in states], "#7a3fb0")], None),
    ]
    height = TOP + len(panels) * (PANEL_HEIGHT + GAP)
    body = "\n".join(_panel(TOP + i * (PANEL_HEIGHT + GAP), title, unit, times, series, limit)
                     for i, (title, unit, series, limit) in enumerate(panels))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + PANEL_WIDTH + 40}" height="{height}" '
            f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n')
