"""The adapter to Ray Data on a local cluster of two workers: the index of `quiver index`, whatever is killed on the way.

Usage: see cluster_testing.py.
"""
import os
import sys
import unittest
import unittest.mock

import numpy as np

import cluster_testing
from cluster_failures import fail_after

cluster_testing.prepare("ray")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray  # noqa: E402
import ray.cloudpickle  # noqa: E402
from quiver_client import CallError, EmbedError, VectorSpaceError  # noqa: E402
from quiver_client.ray import Embedder  # noqa: E402


class Mortal(Embedder):
    """Dies once, and once takes the server with it."""

    def __init__(self, *arguments, work, **more):
        super().__init__(*arguments, **more)
        self._work, self._batches = work, 0

    def __call__(self, batch):
        result = super().__call__(batch)
        self._batches += 1
        fail_after(self._batches, self._work)
        return result


class RayTest(cluster_testing.ClusterTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=200 << 20)
        cls.addClassCleanup(ray.shutdown)
        ray.data.DataContext.get_current().enable_progress_bars = False

    def embed(self, embedder, batch_size=100, **options):
        rows = ray.data.from_items([{"name": i, "text": t} for i, t in self.documents.items()], override_num_blocks=4)
        return rows.map_batches(embedder, fn_constructor_kwargs={"addresses": self.server.grpc, "truncate": "right", **options},
                                batch_size=batch_size, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.1)

    def expect_whole(self, dataset):
        self.expect_index([(row["name"], row["embedding"], row["error"]) for row in dataset.iter_rows()])

    def test_every_document_has_the_vector_that_quiver_index_gives(self):
        self.expect_whole(self.embed(Embedder))

    def test_the_example_writes_it_to_parquet(self):
        self.expect_example("ray_data.py", RAY_ADDRESS=ray.get_runtime_context().gcs_address)

    def test_a_killed_actor_and_a_killed_server_cost_no_document_and_double_none(self):
        restarted = self.restart_server()
        self.expect_whole(self.embed(Mortal, batch_size=50, work=str(self.work)))
        self.assertTrue((self.work / "worker-killed").exists())
        self.assertTrue((self.work / "server-killed").exists())
        restarted.join()

    def test_a_bad_document_fails_the_work_where_asked_to(self):
        with self.assertRaises(ray.exceptions.RayTaskError) as caught:
            self.embed(Embedder, raise_errors=True).materialize()
        self.assertIn("text: must not be empty", str(caught.exception))

    def batch(self, texts, **options):
        """As an actor does it, without one."""
        return Embedder(self.server.grpc, **options)({"text": np.array(texts, object), "n": np.arange(len(texts))})

    def test_a_row_that_failed_says_why_and_keeps_its_place(self):
        batch = self.batch(["a", "", None, "b"], output_type="float16")
        self.assertEqual(batch["n"].tolist(), [0, 1, 2, 3])
        self.assertEqual(batch["embedding"].dtype, np.float16)
        self.assertEqual(np.isnan(batch["embedding"]).any(axis=1).tolist(), [False, True, True, False])
        self.assertEqual(batch["error"].tolist(), ["", "INVALID_ARGUMENT: text: must not be empty", "INVALID_ARGUMENT: must be a "
                                                   "text or token ids, not NoneType", ""])

    def test_errors_survive_the_way_between_processes(self):
        with self.assertRaises(EmbedError) as caught:
            self.batch(["a", ""], raise_errors=True)
        copy = ray.cloudpickle.loads(ray.cloudpickle.dumps(caught.exception))
        self.assertEqual((str(copy), copy.errors), (str(caught.exception), caught.exception.errors))
        with self.assertRaises(CallError) as caught:
            self.batch(["a"], model="another")
        copy = ray.cloudpickle.loads(ray.cloudpickle.dumps(caught.exception))
        self.assertEqual((str(copy), copy.code), (str(caught.exception), caught.exception.code))

    def test_vectors_of_another_space_are_refused(self):
        self.batch(["a"], vector_space=self.space)
        with self.assertRaisesRegex(VectorSpaceError, "must be of the space another, but the server has"):
            self.batch(["a"], vector_space="another")

    def test_wrong_options_name_themselves(self):
        for options, said in (({"output_type": "int8"}, "output_type"), ({"timeout": 0}, "timeout"), ({"retry_for": -1}, "retry_for"),
                              ({"column": "body"}, "column must be one of text, n"), ({"truncate": "up"}, "truncate")):
            with self.assertRaisesRegex(ValueError, said):
                self.batch(["a"], **options)
        with self.assertRaisesRegex(TypeError, "unknown option 'colour'"):
            self.batch(["a"], colour=1)

    def test_the_key_is_that_of_the_workers_environment(self):
        with unittest.mock.patch.dict(os.environ, QUIVER_API_KEY="another"), self.assertRaisesRegex(CallError, "UNAUTHENTICATED"):
            self.batch(["a"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
