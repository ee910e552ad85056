#!/usr/bin/env python3
"""Embeds JSONL files, or a folder of them, into Parquet with Spark: by spark-submit on a cluster, else on this machine.

    spark_frames.py [--server HOST:PORT] [--partitions N] DOCUMENTS.jsonl VECTORS

Each line has a "text"; its other fields are kept. A document that fails says why in the column "error".
"""
import argparse

from pyspark.sql import SparkSession
from quiver_client.spark import with_embeddings


def main():
    parser = argparse.ArgumentParser(description="Embeds documents with Spark.")
    parser.add_argument("--server", default="localhost:50051")
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("documents")
    parser.add_argument("vectors")
    arguments = parser.parse_args()
    spark = SparkSession.builder.appName("quiver").getOrCreate()
    # What is lost when a partition fails is all of it: docs/distributed-indexing.md has their size.
    documents = spark.read.json(arguments.documents).repartition(arguments.partitions)
    with_embeddings(documents, arguments.server, truncate="right").write.parquet(arguments.vectors)
    spark.stop()


if __name__ == "__main__":
    main()
