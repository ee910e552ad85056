#!/usr/bin/env python3
"""What a fleet of Quiver servers does under a day's traffic: P95, backlog, GPU-hours, for one card or thousands.

It simulates one server's scheduler with the costs that a real one measured, and a fleet of them behind an autoscaler.

  python3 tools/capacity --server http://localhost:30000 --queries 2000 --servers 1:8
  python3 tools/capacity --row 1x32=3.11 --row 64x512=381.9 --row 1x32768=869.7 --queries 100000 --servers 20:400 \\
    --job 2=200000000 --svg day.svg
"""
import argparse
import dataclasses
import json
import math
import re
import sys
import urllib.request

from fleet import Fleet, Scaling
from report import picture, summary, table
from server_model import Cost, Server
from traffic import diurnal, read_trace


def number(least, most=math.inf, whole=False):
    def parse(text):
        value = int(text) if whole else float(text)
        if not least <= value <= most or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"must be from {least:g} to {most:g}, is {text}")
        return value
    parse.__name__ = "whole number" if whole else "number"
    return parse


def numbers(separator, names):
    """A parser of as many non-negative numbers."""
    def parse(text):
        parts = text.split(separator)
        if len(parts) != len(names) or any(not 0 <= float(p) < math.inf for p in parts):
            raise argparse.ArgumentTypeError(f"must be {separator.join(names)}, is {text}")
        return tuple(float(p) for p in parts)
    parse.__name__ = separator.join(names)
    return parse


def row(text):
    match = re.fullmatch(r"(\d+)x(\d+)=([\d.]+)", text)
    if not match or not float(match[3]) > 0:
        raise argparse.ArgumentTypeError(f"must be BATCHxTOKENS=MILLISECONDS, is {text}")
    return int(match[1]), int(match[2]), float(match[3])


def span(text):
    least, _, most = text.partition(":")
    if not least.isdigit() or (most and not most.isdigit()) or int(least) < 1 or int(most or least) < int(least):
        raise argparse.ArgumentTypeError(f"must be NUMBER or LEAST:MOST, at least 1, is {text}")
    return int(least), int(most or least)


def read_cost(arguments):
    if arguments.server:
        request = urllib.request.Request(f"{arguments.server.rstrip('/')}/debug/scheduler")
        if arguments.api_key:
            request.add_header("Authorization", f"Bearer {arguments.api_key}")
        with urllib.request.urlopen(request, timeout=10) as reply:
            cost = json.load(reply)["cost_model"]
        return Cost(cost["fixed_us"], cost["token_us"], cost["token_pair_us"])
    if arguments.row:
        return Cost.fit(arguments.row)
    return Cost(*arguments.cost)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cost = parser.add_argument_group("the cost of a pass, one of").add_mutually_exclusive_group(required=True)
    cost.add_argument("--server", metavar="URL", help="ask a running server's scheduler, which has measured it")
    cost.add_argument("--row", action="append", type=row, metavar="BxT=MS", help="fit to rows of `quiver bench engine`; three or more tell most")
    cost.add_argument("--cost", type=numbers(",", ("FIXED", "TOKEN", "PAIR")), metavar="US,US,US", help="microseconds: fixed, a token, a pair of tokens")
    parser.add_argument("--api-key", help="for --server")
    load = parser.add_argument_group("traffic")
    load.add_argument("--queries", type=number(0), default=100, metavar="RATE", help="queries a second at the day's peak, 14 h")
    load.add_argument("--trough", type=number(0, 1), default=0.3, metavar="PART", help="part of it at the lowest (default 0.3)")
    load.add_argument("--hours", type=number(0.01, 8760), default=24)
    load.add_argument("--spike", type=numbers(",", ("HOUR", "MINUTES", "FACTOR")), metavar="H,MIN,X", help="times X for so long")
    load.add_argument("--job", action="append", default=[], type=numbers("=", ("HOUR", "DOCUMENTS")), metavar="H=N", help="a bulk job of N documents at hour H")
    load.add_argument("--trace", metavar="CSV", help="in place of these: columns seconds, queries_per_second, bulk_documents")
    load.add_argument("--query-tokens", type=number(1, whole=True), default=32, metavar="N")
    load.add_argument("--bulk-tokens", type=number(1, whole=True), default=512, metavar="N")
    load.add_argument("--deadline", type=number(1), default=2000, metavar="MS", help="nobody waits longer (default 2000)")
    fleet = parser.add_argument_group("servers, a card each")
    fleet.add_argument("--servers", type=span, default=(1, 1), metavar="N|LEAST:MOST")
    fleet.add_argument("--load-target", type=number(0.01, 1), default=0.7, metavar="PART", help="of what a card can do (default 0.7)")
    fleet.add_argument("--by-busy", action="store_true", help="of the time that it is busy instead")
    fleet.add_argument("--wait-target", type=number(0.1), default=50, metavar="MS")
    fleet.add_argument("--start-seconds", type=number(0), default=90, metavar="S", help="until a new server serves (default 90)")
    fleet.add_argument("--down-seconds", type=number(0), default=600, metavar="S", help="before the number goes down (default 600)")
    fleet.add_argument("--batch-tokens", type=number(1, whole=True), default=32768, metavar="N")
    fleet.add_argument("--bulk-share", type=number(0.01, 0.9), default=0.1, metavar="PART")
    fleet.add_argument("--step-ms", type=number(0.01), default=3, metavar="MS", help="between two places where a query may overtake (default 3)")
    fleet.add_argument("--outside-ms", type=number(0), default=1, metavar="MS", help="network, tokenizing, reply (default 1)")
    out = parser.add_argument_group("output")
    out.add_argument("--slo", type=number(0.1), default=50, metavar="MS", help="P95 that is wanted (default 50)")
    out.add_argument("--price", type=number(0), metavar="EACH", help="of a GPU-hour, for the cost")
    out.add_argument("--svg", metavar="FILE", help="a picture of the day")
    out.add_argument("--json", metavar="FILE", help="the summary and every step")
    return parser.parse_args()


STEP_SECONDS = 15


def main():
    arguments = parse_arguments()
    try:
        cost = read_cost(arguments)
        moments = (read_trace(arguments.trace, STEP_SECONDS) if arguments.trace else
                   diurnal(arguments.queries, arguments.queries * arguments.trough, arguments.hours, STEP_SECONDS, arguments.job,
                           arguments.spike))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"capacity: {error}")
    server = Server(cost, arguments.query_tokens, arguments.bulk_tokens, arguments.batch_tokens, arguments.bulk_share,
                    arguments.step_ms * 1e3, outside_us=arguments.outside_ms * 1e3)
    scaling = Scaling(*arguments.servers, load_target=arguments.load_target, wait_target_ms=arguments.wait_target, by_busy=arguments.by_busy,
                      start_seconds=arguments.start_seconds, down_seconds=arguments.down_seconds)
    states = Fleet(server, scaling, STEP_SECONDS, arguments.deadline).run(moments)
    values = summary(states, server, scaling, STEP_SECONDS, arguments.slo, arguments.price)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"cost_us": dataclasses.asdict(cost), "summary": values,
                       "steps": [dataclasses.asdict(s) for s in states]}, file, indent=1)
    if arguments.svg:
        with open(arguments.svg, "w", encoding="utf-8") as file:
            file.write(picture(states, arguments.slo))
    print(table(values))


if __name__ == "__main__":
    main()
