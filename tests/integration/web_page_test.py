#!/usr/bin/env python3
"""The page at / in a real browser, and /openapi.json against what the server takes and gives.

Usage: web_page_test.py QUIVER_SERVER MAKE_TINY_MODEL [FOLDER]
FOLDER gets pictures of the page, wide and narrow.
"""
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

import jsonschema
import numpy as np
import openapi_spec_validator
import referencing
import referencing.jsonschema
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

import running_server

SERVER, MAKE_TINY_MODEL = sys.argv[1:3]
PICTURES = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
KEY = "a-key-for-the-page"
WAIT_SECONDS = 60
WIDE, NARROW = 1280, 390


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class WithServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.work = pathlib.Path(folder.name)
        cls.model = cls.work / "model"
        subprocess.run([MAKE_TINY_MODEL, cls.model, "--fixtures", running_server.ROOT / "tests/fixtures"], check=True)
        cls.server = running_server.RestartableServer(SERVER, "page", cls.model, cls.work).start()
        cls.addClassCleanup(cls.server.kill)
        cls.url = f"http://{cls.server.http}"


class Page(WithServer):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        cls.browser = webdriver.Chrome(options, service)
        cls.addClassCleanup(cls.browser.quit)

    def setUp(self):
        self.browser.set_window_size(WIDE, 900)

    def text(self, element):
        return self.browser.find_element(By.ID, element).text

    def await_that(self, claim, what):
        WebDriverWait(self.browser, WAIT_SECONDS).until(lambda _: claim(), what)

    def open(self, url):
        self.browser.get(url)
        self.browser.get_log("browser")
        self.await_that(lambda: self.text("state") == "healthy", "the page does not come to life")

    def check_console(self):
        self.assertEqual([entry["message"] for entry in self.browser.get_log("browser")], [])

    def fill(self, element, value):
        self.browser.execute_script("arguments[0].value = arguments[1]", self.browser.find_element(By.ID, element), value)

    def results(self):
        rows = self.browser.find_elements(By.CSS_SELECTOR, "#results .row")
        return [[part.text for part in row.find_elements(By.TAG_NAME, "span")] for row in rows]

    def compare(self, query, texts, prompt=""):
        self.fill("query", query)
        self.fill("texts", "\n".join(texts))
        Select(self.browser.find_element(By.ID, "prompt")).select_by_value(prompt)
        self.browser.find_element(By.ID, "compare").click()

    def test_model_limits_and_live_figures(self):
        self.open(self.url)
        self.await_that(lambda: self.text("model") == "m", "no model")
        with urllib.request.urlopen(f"{self.url}/info", timeout=WAIT_SECONDS) as reply:
            info = json.load(reply)
        table = self.text("limits")
        for value in (info["architecture"], info["vector_space"], f"{info['max_input_length']:,} tokens"):
            self.assertIn(value, table)
        self.await_that(lambda: self.text("memory").endswith("MB"), "no memory")
        for _ in range(3):
            post(f"{self.url}/v1/embeddings", {"input": ["some work"], "priority": "bulk"})
        self.await_that(lambda: self.text("p95-bulk").endswith("ms"), "no latency")
        self.check_console()

    def test_texts_are_compared_as_the_api_would(self):
        self.open(self.url)
        self.await_that(lambda: self.text("model") == "m", "no model")
        query, texts = "a cat", ["the dog runs", "a cat", "<b>人工智能正在改变世界。</b>"]
        self.compare(query, texts, "query")
        self.await_that(lambda: len(self.results()) == len(texts), "no results")

        def vectors(inputs, **options):
            return np.array([item["embedding"] for item in post(f"{self.url}/v1/embeddings",
                                                                {"input": inputs, **options})[1]["data"]])
        similarity = vectors(texts) @ vectors([query], prompt_name="query")[0]
        order = np.argsort(-similarity, kind="stable")
        got = self.results()
        self.assertEqual([text for text, _ in got], [texts[i] for i in order])
        for (_, value), i in zip(got, order, strict=True):
            self.assertAlmostEqual(float(value), similarity[i], delta=0.0011)
        self.assertIn("norm 1.000", self.text("cost"))
        self.check_console()

    def test_errors_are_shown(self):
        self.open(self.url)
        self.await_that(lambda: self.text("model") == "m", "no model")
        self.compare(" ", ["text"])
        self.await_that(lambda: "there must be a query" in self.text("try-error"), "no error")
        self.compare("long " * 5000, ["text"])
        self.await_that(lambda: "tokens" in self.text("try-error"), "no error of the server")

    def test_narrow_page_does_not_scroll_sideways(self):
        for width in (WIDE, NARROW):
            self.browser.set_window_size(width, 900)
            self.open(self.url)
            self.await_that(lambda: self.text("limits"), "no limits")
            self.compare("a cat", ["the dog runs", "a cat", "w" * 300], "query")
            self.await_that(lambda: len(self.results()) == 3, "no results")
            overflow = self.browser.execute_script(
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            self.assertEqual(overflow, 0, f"{width} px")
            if PICTURES:
                height = self.browser.execute_script("return document.documentElement.scrollHeight")
                self.browser.set_window_size(width, height + 160)
                self.browser.save_screenshot(str(PICTURES / f"page-{width}.png"))

    def test_key_is_asked_for_and_used(self):
        keys = self.work / "keys"
        keys.write_text(hashlib.sha256(KEY.encode()).hexdigest() + "\n")
        server = running_server.RestartableServer(SERVER, "keys", self.model, self.work, "--api-keys", str(keys)).start()
        self.addCleanup(server.kill)
        self.browser.get(f"http://{server.http}")
        card = self.browser.find_element(By.ID, "key-card")
        for key in ("wrong", KEY):
            self.await_that(card.is_displayed, "no key is asked for")
            self.fill("key", key)
            card.find_element(By.TAG_NAME, "button").click()
        self.await_that(lambda: self.text("model") == "m", "the key does not open the door")
        self.assertFalse(card.is_displayed())

    def test_server_that_ends_and_comes_back_is_seen(self):
        server = running_server.RestartableServer(SERVER, "restarted", self.model, self.work).start()
        self.addCleanup(server.kill)
        self.open(f"http://{server.http}")
        server.stop()
        self.await_that(lambda: self.text("state") == "no answer", "its end is not seen")
        server.start()
        self.await_that(lambda: self.text("state") == "healthy", "its return is not seen")


class Description(WithServer):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with urllib.request.urlopen(f"{cls.url}/openapi.json", timeout=WAIT_SECONDS) as reply:
            cls.all = json.load(reply)

    def errors(self, schema, value):
        resource = referencing.Resource.from_contents(self.all, referencing.jsonschema.DRAFT202012)
        registry = referencing.Registry().with_resource("urn:all", resource)
        validator = jsonschema.Draft202012Validator({"$ref": f"urn:all#/components/schemas/{schema}"}, registry=registry)
        return [error.message for error in validator.iter_errors(value)]

    def test_is_openapi(self):
        openapi_spec_validator.validate(self.all)

    def test_server_takes_what_it_describes_and_nothing_else(self):
        for body, good in (
                ({"input": "a"}, True),
                ({"input": ["a", "b"], "encoding_format": "base64", "user": None}, True),
                ({"input": [1, 2]}, True),
                ({"input": [[1, 2], [3]], "dimensions": self.all["components"]["schemas"]["Dimensions"]["maximum"]}, True),
                ({"input": "a", "truncate": True, "truncation_direction": "Left", "normalize": False}, True),
                ({"input": "a", "prompt_name": "query", "priority": "bulk"}, True),
                ({"input": "a", "of_no_meaning": {}}, True),
                ({}, False), ({"input": None}, False), ({"input": []}, False), ({"input": ""}, False), ({"input": ["a", 1]}, False),
                ({"input": [[1], "a"]}, False), ({"input": [-1]}, False), ({"input": [10**9]}, False),
                ({"input": "a", "dimensions": 0}, False), ({"input": "a", "dimensions": 10**6}, False),
                ({"input": "a", "encoding_format": "int8"}, False), ({"input": "a", "prompt_name": "unknown"}, False),
                ({"input": "a", "priority": "high"}, False), ({"input": "a", "truncate": "both"}, False)):
            with self.subTest(body=body):
                status, reply = post(f"{self.url}/v1/embeddings", body)
                self.assertEqual(status == 200, good, reply)
                self.assertEqual(self.errors("EmbeddingsRequest", body) == [], good)
                self.assertEqual(self.errors("EmbeddingsResponse" if good else "Error", reply), [])

    def test_other_replies_are_as_described(self):
        for path, schema in (("v1/models", "ModelList"), ("v1/models/m", "Model"), ("info", "Info")):
            with urllib.request.urlopen(f"{self.url}/{path}", timeout=WAIT_SECONDS) as reply:
                self.assertEqual(self.errors(schema, json.load(reply)), [], path)
        self.assertEqual(self.errors("EmbedError", post(f"{self.url}/embed", {"inputs": ""})[1]), [])
        status, vectors = post(f"{self.url}/embed", {"inputs": ["a", "b"]})
        self.assertEqual((status, len(vectors)), (200, 2))
        self.assertEqual(self.errors("Vector", vectors[0]), [])


if __name__ == "__main__":
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        print("skipped: the page needs chromium and chromedriver")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
