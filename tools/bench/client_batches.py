#!/usr/bin/env python3
"""What batches cost a client: short texts a second through one stream, and through batches that each wait for their last vector, as
the adapters to Ray and Spark send them. A server with a tiny model shows the client's own part.

    client_batches.py --server HOST:PORT [--inputs N] [--batches 64,256,1024,4096]
"""
import argparse
import time

from quiver_client import Client
from quiver_client.batches import BatchEmbedder


def main():
    parser = argparse.ArgumentParser(description="Texts a second by the size of batches.")
    parser.add_argument("--server", required=True)
    parser.add_argument("--inputs", type=int, default=40960)
    parser.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=[64, 256, 1024, 4096])
    arguments = parser.parse_args()
    texts = [f"item {i}" for i in range(arguments.inputs)]

    def rate(work):
        begin = time.monotonic()
        work()
        return len(texts) / (time.monotonic() - begin)

    with Client(arguments.server) as client:
        alone = rate(lambda: sum(1 for _ in client.stream(texts)))
    print(f"one stream: {alone:.0f} texts/s")
    for size in arguments.batches:
        embedder = BatchEmbedder(arguments.server, {})
        one_by_one = rate(lambda: [embedder.embed(texts[i:i + size]) for i in range(0, len(texts), size)])
        print(f"batches of {size}: {one_by_one:.0f} texts/s, {one_by_one / alone:.2f} of it")


if __name__ == "__main__":
    main()
