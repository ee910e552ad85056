#!/usr/bin/env python3
"""asyncio: queries that come one by one, each a call of its own, while a stream of documents goes on.

    many_at_once.py [--server HOST:PORT]
"""
import argparse
import asyncio
import time

from quiver_client import AsyncClient


async def embed_documents(client, count):
    async for result in client.stream(f"Document number {i} is about nothing." for i in range(count)):
        if result.error:
            raise RuntimeError(f"document {result.index}: {result.error}")
    print(f"{count} documents embedded")


async def ask(client, number):
    begin = time.perf_counter()
    await client.embed([f"What is document {number} about?"], timeout=30)
    return time.perf_counter() - begin


async def main():
    parser = argparse.ArgumentParser(description="Embeds queries while documents are embedded.")
    parser.add_argument("--server", default="localhost:50051")
    async with AsyncClient(parser.parse_args().server) as client:
        documents = asyncio.create_task(embed_documents(client, 500))
        seconds = await asyncio.gather(*(ask(client, number) for number in range(20)))
        # Queries go to the interactive lane, the stream to the bulk lane: they overtake it.
        print(f"20 queries answered, the slowest after {max(seconds) * 1000:.0f} ms")
        await documents


if __name__ == "__main__":
    asyncio.run(main())
