#!/usr/bin/env python3
"""nDCG@10 of a model through sentence-transformers in float32: what retrieval.py must find through a server.

    reference.py --model DIR --query-prompt query DATA [DATA ...]

Same texts, same cut, same ranking as retrieval.py. Needs numpy, torch, sentence-transformers.
"""
import argparse
import pathlib

import sentence_transformers
import torch

from retrieval_set import RetrievalSet, print_head, print_score


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face directory")
    parser.add_argument("--query-prompt", help="the queries' prompt, by name (default: none)")
    parser.add_argument("--batch", type=int, default=16, help="texts run at a time (default %(default)s)")
    parser.add_argument("data", nargs="+", type=pathlib.Path, help="folders of retrieval sets")
    args = parser.parse_args()

    model = sentence_transformers.SentenceTransformer(args.model, device="cpu", model_kwargs={"dtype": torch.float32})

    def embed(texts, **prompt):
        return model.encode(texts, batch_size=args.batch, normalize_embeddings=True, convert_to_numpy=True, **prompt)

    print(f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}, float32")
    print_head()
    for data in map(RetrievalSet, args.data):
        # An empty prompt keeps a model's default one away.
        documents = embed(data.documents, prompt="")
        queries = embed(data.queries, **({"prompt_name": args.query_prompt} if args.query_prompt else {"prompt": ""}))
        print_score(data, data.ndcg(documents, queries))


if __name__ == "__main__":
    main()
