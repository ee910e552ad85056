#!/usr/bin/env python3
"""Embeds JSONL files, or a folder of them, into Parquet on a Ray cluster. RAY_ADDRESS names it; without it this machine is one.

    ray_data.py [--server HOST:PORT] [--actors N] DOCUMENTS.jsonl VECTORS

Each line has a "text"; its other fields are kept. A document that fails says why in the column "error".
"""
import argparse

import ray
from quiver_client.ray import Embedder


def main():
    parser = argparse.ArgumentParser(description="Embeds documents with Ray Data.")
    parser.add_argument("--server", default="localhost:50051")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("documents")
    parser.add_argument("vectors")
    arguments = parser.parse_args()
    # Not with lines=True, which makes numbers of ids that look like some: "007" would be 7.
    documents = ray.data.read_json(arguments.documents)
    # Actors wait for servers most of their time: with whole processors of their own they would keep out those that read.
    vectors = documents.map_batches(Embedder, fn_constructor_kwargs={"addresses": arguments.server, "truncate": "right"},
                                    batch_size=1024, compute=ray.data.ActorPoolStrategy(size=arguments.actors), num_cpus=0.1)
    vectors.write_parquet(arguments.vectors)


if __name__ == "__main__":
    main()
