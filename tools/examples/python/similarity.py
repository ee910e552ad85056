#!/usr/bin/env python3
"""Which sentences mean the same? Shows the cosine of each to the first.

    similarity.py [--server HOST:PORT] SENTENCE SENTENCE...
"""
import argparse

from quiver_client import Client


def main():
    parser = argparse.ArgumentParser(description="Shows how similar sentences are to the first.")
    parser.add_argument("--server", default="localhost:50051")
    parser.add_argument("sentences", nargs="+")
    arguments = parser.parse_args()
    with Client(arguments.server) as client:
        vectors = client.embed(arguments.sentences)
    # Vectors have length 1, so that their product is the cosine.
    for sentence, cosine in zip(arguments.sentences, vectors @ vectors[0], strict=True):
        print(f"{cosine:+.3f}  {sentence}")


if __name__ == "__main__":
    main()
