"""A retrieval set in BEIR's form (corpus.jsonl, queries.jsonl, qrels.tsv) and its nDCG@10, for the scripts here. Needs numpy."""
import json

import numpy as np

TOP = 10
# Scores that differ by less are taken as equal.
TOLERANCE = 0.001


def _read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _read_qrels(path):
    """{query id: {document id: grade}}, grades above 0 only."""
    qrels = {}
    with open(path, encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, document, grade = line.rstrip("\n").split("\t")
            if int(grade) > 0:
                qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def _ndcg(ranked, grades):
    """Discounted cumulative gain at TOP over that of the ideal ranking; `grades` is {document: grade}."""
    gain = sum(grades.get(d, 0) / np.log2(rank + 2) for rank, d in enumerate(ranked[:TOP]))
    ideal = sum(g / np.log2(rank + 2) for rank, g in enumerate(sorted(grades.values(), reverse=True)[:TOP]))
    return gain / ideal


class RetrievalSet:
    """`documents` and `queries` are texts. Documents without text and queries without a relevant document are left out."""

    def __init__(self, folder):
        self.name = folder.name
        corpus = [d for d in _read_jsonl(folder / "corpus.jsonl") if d["text"].strip()]
        self._qrels = _read_qrels(folder / "qrels.tsv")
        queries = [q for q in _read_jsonl(folder / "queries.jsonl") if q["_id"] in self._qrels]
        self.documents = [d["text"] for d in corpus]
        self.queries = [q["text"] for q in queries]
        self._document_ids = [d["_id"] for d in corpus]
        self._query_ids = [q["_id"] for q in queries]

    def ndcg(self, document_vectors, query_vectors):
        """The queries' mean, each ranked against every document by the dot product of their rows."""
        similarity = query_vectors @ document_vectors.T
        # A stable order: equal similarities rank in the corpus' order.
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :TOP]
        return self._mean_ndcg({q: [self._document_ids[d] for d in row] for q, row in zip(self._query_ids, best)})

    def ndcg_of_run(self, lines):
        """The same of a TREC run (QUERY Q0 DOCUMENT RANK SCORE NAME), whose lines stand in the order of the ranks."""
        ranked = {query: [] for query in self._query_ids}
        for line in lines:
            query, _, document, _, _, _ = line.split()
            # A run may answer queries that nothing is relevant to.
            if query in ranked:
                ranked[query].append(document)
        return self._mean_ndcg(ranked)

    def _mean_ndcg(self, ranked):
        return float(np.mean([_ndcg(ranked[q], self._qrels[q]) for q in self._query_ids]))


def print_head():
    print(f"{'set':<16}{'documents':>10}{'queries':>9}{'nDCG@10':>10}")


def print_score(data, value):
    print(f"{data.name:<16}{len(data.documents):>10}{len(data.queries):>9}{value:>10.4f}", flush=True)
