"""The adapter to Spark on a local cluster of two executors: the index of `quiver index`, whatever is killed on the way.

Usage: see cluster_testing.py.
"""
import os
import pathlib
import shutil
import sys
import unittest

import cluster_testing
from cluster_failures import fail_after

cluster_testing.prepare("pyspark")
if shutil.which("java") is None:
    print("skipped: java is not installed")
    sys.exit(cluster_testing.SKIPPED)
import pandas as pd  # noqa: E402
from pyspark import cloudpickle  # noqa: E402
from pyspark.errors import PythonException  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402
from quiver_client.spark import embed_frames, embed_udf, with_embeddings  # noqa: E402

# Of each executor.
MEMORY_MB = 600


class SparkTest(cluster_testing.ClusterTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.environ.update(PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1", SPARK_WORKER_DIR=str(cls.work / "spark"))
        cls.spark = (
            SparkSession.builder.master(f"local-cluster[2,1,{MEMORY_MB}]").config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.executor.memory", f"{MEMORY_MB}m").config("spark.driver.memory", "600m")
            .config("spark.executorEnv.QUIVER_API_KEY", cluster_testing.KEY)
            .config("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"]).getOrCreate())
        cls.addClassCleanup(cls.spark.stop)
        cls.spark.sparkContext.setLogLevel("OFF")

    def frame(self):
        return self.spark.createDataFrame(list(self.documents.items()), "name string, text string").repartition(4, "name")

    def test_map_in_pandas_gives_every_document_the_vector_of_quiver_index(self):
        rows = with_embeddings(self.frame(), self.server.grpc, truncate="right", batch_size=100).collect()
        self.assertEqual(rows[0].__fields__, ["name", "text", "embedding", "error"])
        self.assertEqual({row.name: row.text for row in rows}, self.documents)
        self.expect_index([(row.name, row.embedding, row.error) for row in rows])

    def test_the_udf_gives_it_too_and_asks_once(self):
        embed = embed_udf(self.server.grpc, truncate="right")
        before = self.asked()
        rows = self.frame().select("name", embed("text").alias("v")).select("name", "v.embedding", "v.error").collect()
        self.assertEqual(self.asked() - before, len(self.documents))
        self.expect_index(rows)

    def asked(self):
        lines = self.server.get("/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("quiver_items_total"))

    def test_the_example_writes_it_to_parquet(self):
        self.expect_example("spark_frames.py")

    def test_a_killed_executor_and_a_killed_server_cost_no_document_and_double_none(self):
        embed, work = embed_frames(self.server.grpc, truncate="right", batch_size=50), str(self.work)

        def mortal(frames):
            for batches, frame in enumerate(embed(frames), 1):
                # Python's daemon is its child, and this process the daemon's.
                executor = int(pathlib.Path(f"/proc/{os.getppid()}/stat").read_text().split()[3])
                fail_after(batches, work, executor)
                yield frame

        restarted = self.restart_server()
        frame = self.frame()
        rows = frame.mapInPandas(mortal, with_embeddings(frame, self.server.grpc).schema).collect()
        self.assertTrue((self.work / "worker-killed").exists())
        self.assertTrue((self.work / "server-killed").exists())
        restarted.join()
        self.expect_index([(row.name, row.embedding, row.error) for row in rows])

    def test_a_bad_document_fails_the_work_where_asked_to(self):
        with self.assertRaisesRegex(PythonException, "text: must not be empty"):
            with_embeddings(self.frame(), self.server.grpc, truncate="right", raise_errors=True).collect()

    def test_a_long_partition_is_not_held(self):
        read = 0

        def frames():
            nonlocal read
            for begin in range(0, 2000, 100):
                read += 1
                yield pd.DataFrame({"text": [f"number {i}" for i in range(begin, begin + 100)]})

        embed = embed_frames(self.server.grpc, batch_size=50)
        for taken, part in enumerate(embed(frames()), 1):
            self.assertEqual((len(part), read), (50, (taken + 1) // 2))
        self.assertEqual(read, 20)

    def test_columns_of_these_names_are_replaced(self):
        frame = self.spark.createDataFrame([(1, "old", "a"), (2, "old", "b")], "id long, embedding string, text string")
        rows = with_embeddings(frame, self.server.grpc, output_type="float16").collect()
        self.assertEqual([(row.id, row.text, len(row.embedding), row.error) for row in rows],
                         [(1, "a", 384, None), (2, "b", 384, None)])

    def test_the_key_does_not_travel(self):
        self.assertNotIn(cluster_testing.KEY.encode(), cloudpickle.dumps(embed_frames(self.server.grpc)))

    def test_wrong_options_name_themselves_before_work_is_handed_out(self):
        frame = self.frame()
        for options, said in (({"output_type": "binary"}, "output_type"), ({"timeout": 0}, "timeout"),
                              ({"batch_size": 0}, "batch_size"), ({"column": "body"}, "column must be one of name, text")):
            with self.assertRaisesRegex(ValueError, said):
                with_embeddings(frame, self.server.grpc, **options)
        with self.assertRaisesRegex(TypeError, "unknown option 'colour'"):
            embed_udf(self.server.grpc, colour=1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
