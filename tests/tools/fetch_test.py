"""`quiver fetch` and `--model NAME` against a fake hub that redirects, cuts, refuses and lies."""
import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

QUIVER, SERVER, MAKE_TINY_MODEL, FIXTURES = sys.argv[1:5]
COMMIT = "1234567890abcdef1234567890abcdef12345678"
OTHER = "abcdef1234567890abcdef1234567890abcdef12"
TOKEN = "hf_secret"


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class QuietServer(http.server.ThreadingHTTPServer):
    """On a free port. Clients that go away are no news."""
    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Storage(QuietServer):
    """A second host, to which the hub sends those who ask for large files; it must not see the token."""

    def __init__(self, hub):
        super().__init__(StorageHandler)
        self.hub = hub
        self.authorizations = []
        self.ranges = []


class StorageHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.authorizations.append(self.headers.get("Authorization"))
        self.server.hub.send_file(self, self.server.hub.files[self.path.lstrip("/")])


class Hub(QuietServer):
    """The model `org/tiny`: small files by git's digests, weights by SHA-256 from the storage. Faults are set by tests."""

    def __init__(self, model):
        super().__init__(HubHandler)
        self.files = {str(p.relative_to(model)): p.read_bytes() for p in sorted(model.rglob("*")) if p.is_file()}
        self.files["README.md"] = b"of no use"
        self.files["onnx/model.onnx"] = b"of no use either"
        self.storage = Storage(self)
        self.reset()

    def reset(self):
        self.requests = []
        self.failures = {}  # path: codes still to be answered
        self.cut_after = None  # bytes of each response for weights
        self.cuts = 0
        self.wrong_bytes = False
        self.too_long = False
        self.private = False
        self.gated = False
        self.commit = COMMIT
        self.no_ranges = False
        self.storage.authorizations.clear()
        self.storage.ranges.clear()

    def endpoint(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def send_file(self, handler, data):
        begin = 0
        wanted = handler.headers.get("Range")
        self.storage.ranges.append(wanted)
        if wanted and not self.no_ranges:
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
            if begin >= len(data):
                handler.send_response(416)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        body = data[begin:]
        if self.wrong_bytes:
            body = bytes(255 - b for b in body)
        if self.too_long:
            body += b"more"
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if self.cut_after is not None and self.cuts > 0 and len(body) > self.cut_after:
            self.cuts -= 1
            handler.wfile.write(body[:self.cut_after])
            handler.wfile.flush()
            handler.close_connection = True
            handler.connection.shutdown(2)
            return
        handler.wfile.write(body)


class HubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server
        hub.requests.append((self.command, self.path))
        for fragment, codes in hub.failures.items():
            if fragment in self.path and codes:
                code = codes.pop(0)
                self.answer(code, b"busy", **({"Retry_After": "0"} if code == 429 else {}))
                return
        if hub.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, X_Error_Code="RepoNotFound")
        elif hub.gated:
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access to model org/tiny is restricted")
        elif self.path.startswith("/api/models/org/tiny/revision/"):
            revision = self.path.rsplit("/", 1)[1]
            if revision not in ("main", "v1", "pr%2F1", COMMIT, OTHER):
                self.answer(404, X_Error_Code="RevisionNotFound")
            else:
                siblings = [{"rfilename": name} for name in hub.files]
                self.answer(200, json.dumps({"id": "org/tiny", "sha": hub.commit, "siblings": siblings}).encode())
        elif self.path.startswith(f"/api/models/org/tiny/tree/{hub.commit}"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)} for name, data in hub.files.items()]
            self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif self.path.startswith("/old/tiny/resolve/") or self.path.startswith("/api/models/old/tiny"):
            self.answer(307, Location=self.path.replace("/old/", "/org/", 1))
        elif self.path.startswith(f"/org/tiny/resolve/{hub.commit}/"):
            name = self.path.removeprefix(f"/org/tiny/resolve/{hub.commit}/")
            data = hub.files.get(name)
            if data is None:
                self.answer(404, X_Error_Code="EntryNotFound")
            elif name.endswith(".safetensors"):
                port = hub.storage.server_address[1]
                self.answer(302, Location=f"http://127.0.0.1:{port}/{name}", X_Repo_Commit=hub.commit,
                            X_Linked_Etag=f'"{hashlib.sha256(data).hexdigest()}"', X_Linked_Size=str(len(data)))
            else:
                self.answer(200, data, ETag=f'W/"{git_sha1(data)}"', X_Repo_Commit=hub.commit)
        else:
            self.answer(404, X_Error_Code="RepoNotFound")


class CircleHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET


class FetchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(work.cleanup)
        cls.work = pathlib.Path(work.name)
        cls.model = cls.work / "tiny"
        subprocess.run([MAKE_TINY_MODEL, cls.model, "--fixtures", FIXTURES], check=True, stdout=subprocess.DEVNULL)
        cls.hub = Hub(cls.model)
        for server in cls.hub, cls.hub.storage:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            cls.addClassCleanup(server.shutdown)

    def setUp(self):
        self.hub.reset()
        home = tempfile.TemporaryDirectory(dir=self.work)
        self.addCleanup(home.cleanup)
        self.home = pathlib.Path(home.name)
        self.cache = self.home / "hub"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        self.env |= {"HF_ENDPOINT": self.hub.endpoint(), "HF_HOME": str(self.home)}

    def fetch(self, *arguments, **env):
        return subprocess.run([QUIVER, "fetch", *map(str, arguments)], env=self.env | env, capture_output=True, text=True,
                              timeout=120)

    def fails(self, code, text, *arguments, **env):
        run = self.fetch(*arguments, **env)
        self.assertEqual(run.returncode, code, run.stderr)
        self.assertIn(text, run.stderr)
        self.assertNotIn(TOKEN, run.stderr)
        self.assertEqual(run.stdout, "")
        self.expect_no_half_files()
        return run

    def expect_no_half_files(self):
        """Every blob that has its name, and every file of a snapshot, is whole."""
        for blob in self.cache.glob("models--*/blobs/*"):
            if blob.suffix != ".incomplete":
                data = blob.read_bytes()
                self.assertIn(blob.name, (git_sha1(data), hashlib.sha256(data).hexdigest()))
        for link in self.cache.glob("models--*/snapshots/*/**/*"):
            if not link.is_dir():
                self.assertTrue(link.is_symlink() and link.exists(), link)
                self.assertFalse(os.path.isabs(os.readlink(link)))

    def expect_whole(self, run):
        self.assertEqual(run.returncode, 0, run.stderr)
        snapshot = pathlib.Path(run.stdout.strip())
        self.assertEqual(snapshot, self.cache / "models--org--tiny" / "snapshots" / self.hub.commit)
        for name in "config.json", "tokenizer.json", "model.safetensors":
            self.assertEqual((snapshot / name).read_bytes(), self.hub.files[name], name)
        self.assertFalse((snapshot / "README.md").exists())
        self.assertFalse((snapshot / "onnx").exists())
        self.assertEqual(list(self.cache.glob("models--*/blobs/*.incomplete")), [])
        self.expect_no_half_files()
        return snapshot

    def test_fetches_what_serving_takes_into_the_hubs_own_layout(self):
        snapshot = self.expect_whole(self.fetch("org/tiny"))
        self.assertEqual((self.cache / "models--org--tiny/refs/main").read_text(), COMMIT)
        # And is there without asking anybody.
        self.hub.requests.clear()
        again = self.fetch("org/tiny")
        self.assertEqual(again.stdout, f"{snapshot}\n")
        self.assertEqual(self.hub.requests, [])
        offline = self.fetch("org/tiny", "--json", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:1")
        self.assertEqual(json.loads(offline.stdout),
                         {"dir": str(snapshot), "model": "org/tiny", "revision": "main", "commit": COMMIT})

    def test_finds_what_the_hubs_own_tool_fetched_and_the_reverse(self):
        try:
            import huggingface_hub
        except ImportError:
            self.skipTest("huggingface_hub is not there")
        code = ("import huggingface_hub, sys; print(huggingface_hub.snapshot_download('org/tiny', "
                "allow_patterns=['*.json', '*.safetensors', '1_Pooling/*'], **eval(sys.argv[1])))")
        run = subprocess.run([sys.executable, "-c", code, "{}"], env=self.env | {"HF_HUB_DISABLE_XET": "1"}, capture_output=True,
                             text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        theirs = run.stdout
        self.hub.requests.clear()
        ours = self.expect_whole(self.fetch("org/tiny"))
        self.assertEqual(f"{ours}\n", theirs)
        self.assertFalse([path for _, path in self.hub.requests if "safetensors" in path], "it was there already")
        with tempfile.TemporaryDirectory(dir=self.work) as other:
            env = self.env | {"HF_HOME": other}
            mine = subprocess.run([QUIVER, "fetch", "org/tiny"], env=env, check=True, capture_output=True, text=True).stdout
            found = subprocess.run([sys.executable, "-c", code, "{'local_files_only': True}"], env=env, check=True,
                                   capture_output=True, text=True).stdout
            self.assertEqual(found, mine)

    def test_the_token_goes_to_the_hub_and_not_where_it_sends_for_weights(self):
        self.hub.private = True
        self.fails(1, "no token was sent", "org/tiny")
        self.expect_whole(self.fetch("org/tiny", HF_TOKEN=TOKEN))
        self.assertEqual(set(self.hub.storage.authorizations), {None})

    def test_the_token_comes_from_a_file_too(self):
        self.hub.private = True
        token = self.home / "a-token"
        token.write_text(TOKEN + "\n")
        self.expect_whole(self.fetch("org/tiny", "--token-file", token))
        self.fails(2, "--token-file", "org/tiny", "--update", "--token-file", self.home / "none")

    def test_a_gated_model_is_told_with_the_hubs_words(self):
        self.hub.gated = True
        self.fails(1, "Access to model org/tiny is restricted", "org/tiny")

    def test_what_the_hub_does_not_have_is_told(self):
        self.fails(1, "does not exist", "org/none")
        self.fails(1, "no such revision", "org/tiny@v9")
        self.fails(2, "ORGANIZATION/NAME", "tiny")
        self.fails(2, "--revision", "org/tiny", "--revision", "../x")
        self.fails(2, "--endpoint", "org/tiny", "--endpoint", "ftp://x")
        self.fails(2, "cannot be read", "org/tiny", "--token-file", self.work)
        self.fails(2, "already says 'v1'", "org/tiny@v1", "--revision", "main")
        self.fails(2, "HF_HUB_OFFLINE", "org/tiny", "--update", HF_HUB_OFFLINE="1")

    def test_another_name_of_what_is_there_needs_no_room_in_the_cache(self):
        self.expect_whole(self.fetch("org/tiny"))
        # Where the name would be noted.
        (self.cache / "models--org--tiny/refs/v1").mkdir()
        self.expect_whole(self.fetch("org/tiny@v1"))

    def test_a_hub_that_redirects_in_a_circle_is_given_up(self):
        circle = QuietServer(CircleHandler)
        threading.Thread(target=circle.serve_forever, daemon=True).start()
        self.addCleanup(circle.shutdown)
        self.fails(1, "redirects", "org/tiny", HF_ENDPOINT=f"http://127.0.0.1:{circle.server_address[1]}")

    def test_a_model_without_what_serving_takes_is_refused(self):
        data = self.hub.files.pop("tokenizer.json")
        self.addCleanup(self.hub.files.__setitem__, "tokenizer.json", data)
        self.fails(1, "tokenizer.json", "org/tiny")

    def test_a_hub_that_is_busy_is_asked_again(self):
        self.hub.failures = {"/revision/": [429, 503], "tokenizer.json": [500], "model.safetensors": [429]}
        self.expect_whole(self.fetch("org/tiny"))

    def test_a_hub_that_stays_busy_is_given_up(self):
        self.hub.failures = {"config.json": [429] * 100}
        self.fails(1, "429", "org/tiny")

    def test_a_hub_that_is_not_there_is_told(self):
        self.fails(1, "127.0.0.1:1", "org/tiny", "--endpoint", "http://127.0.0.1:1")

    def test_cut_connections_are_taken_up_where_they_were_cut(self):
        self.hub.cut_after, self.hub.cuts = 10000, 7
        self.expect_whole(self.fetch("org/tiny"))
        self.assertIn("bytes=20000-", self.hub.storage.ranges)

    def test_a_server_without_ranges_begins_anew(self):
        self.hub.cut_after, self.hub.cuts, self.hub.no_ranges = 10000, 2, True
        self.expect_whole(self.fetch("org/tiny"))

    def test_a_run_that_ended_is_taken_up_by_the_next(self):
        self.hub.cut_after, self.hub.cuts = 1, 1000
        self.hub.failures = {}
        # Each try gets one byte further: ended from outside.
        process = subprocess.Popen([QUIVER, "fetch", "org/tiny"], env=self.env, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        partial = self.cache / "models--org--tiny/blobs" / (
            hashlib.sha256(self.hub.files["model.safetensors"]).hexdigest() + ".incomplete")
        while not (partial.exists() and partial.stat().st_size > 0):
            self.assertIsNone(process.poll())
        process.kill()
        process.wait()
        self.expect_no_half_files()
        self.hub.reset()
        self.expect_whole(self.fetch("org/tiny"))
        self.assertTrue([r for r in self.hub.storage.ranges if r], "it did not go on where it was")

    def test_other_bytes_than_the_hub_told_are_not_kept(self):
        self.hub.wrong_bytes = True
        self.fails(1, "digest", "org/tiny")
        self.hub.reset()
        self.hub.too_long = True
        self.fails(1, "more than the", "org/tiny")
        self.hub.reset()
        self.expect_whole(self.fetch("org/tiny"))

    def test_a_partial_file_that_is_too_long_is_begun_anew(self):
        blobs = self.cache / "models--org--tiny/blobs"
        blobs.mkdir(parents=True)
        data = self.hub.files["model.safetensors"]
        (blobs / (hashlib.sha256(data).hexdigest() + ".incomplete")).write_bytes(data + b"more")
        self.expect_whole(self.fetch("org/tiny"))

    def test_two_at_a_time_do_no_harm(self):
        runs = [subprocess.Popen([QUIVER, "fetch", "org/tiny"], env=self.env, stdout=subprocess.PIPE, text=True)
                for _ in range(3)]
        outputs = {run.communicate(timeout=120)[0] for run in runs}
        self.assertEqual([run.returncode for run in runs], [0, 0, 0])
        self.assertEqual(len(outputs), 1)
        self.expect_no_half_files()

    def test_redirects_within_the_hub_are_followed(self):
        run = self.fetch("old/tiny")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("models--old--tiny", run.stdout)

    def test_an_update_brings_the_new_commit_and_shares_its_files(self):
        self.expect_whole(self.fetch("org/tiny"))
        self.hub.commit = OTHER
        self.assertIn(COMMIT, self.fetch("org/tiny").stdout)
        self.hub.storage.ranges.clear()
        self.expect_whole(self.fetch("org/tiny", "--update"))
        self.assertEqual(self.hub.storage.ranges, [], "the weights were there already")
        self.assertIn(COMMIT, self.fetch(f"org/tiny@{COMMIT}", "--offline").stdout)

    def test_a_cache_that_cannot_be_written_is_told(self):
        self.cache.write_text("a file, not a folder")
        self.fails(1, str(self.cache), "org/tiny")

    def test_a_full_disk_is_told_and_room_lets_the_next_run_go_on(self):
        # As a full disk does, a limit on files' sizes lets a write end early; its signal stays ignored.
        limit = 20000
        self.assertGreater(len(self.hub.files["model.safetensors"]), limit)
        run = subprocess.run(["prlimit", f"--fsize={limit}", QUIVER, "fetch", "org/tiny"], env=self.env, capture_output=True,
                             text=True, timeout=120, restore_signals=False)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("File too large", run.stderr)
        self.assertIn(str(self.cache), run.stderr)
        self.expect_no_half_files()
        self.hub.storage.ranges.clear()
        self.expect_whole(self.fetch("org/tiny"))
        self.assertIn(f"bytes={limit}-", self.hub.storage.ranges)

    def test_directories_are_taken_as_they_are(self):
        for name in str(self.model), f"file://{self.model}":
            run = self.fetch(name)
            self.assertEqual((run.returncode, run.stdout), (0, f"{self.model}\n"))
        self.assertEqual(self.hub.requests, [])

    def test_the_tools_and_the_server_take_a_models_name(self):
        ports = self.home / "ports"
        server = subprocess.Popen([SERVER, "--model", "org/tiny", "--device", "cpu", "--grpc-port", "0", "--http-port", "0",
                                   "--port-file", ports], env=self.env, stderr=subprocess.PIPE, text=True)
        self.addCleanup(server.kill)
        while not ports.exists():
            self.assertIsNone(server.poll())
        address = dict(line.split("=") for line in ports.read_text().splitlines())["grpc"]
        info = subprocess.run([QUIVER, "info", "--server", address, "--wait", "60", "--json"], capture_output=True, text=True)
        self.assertEqual(json.loads(info.stdout)["model"], "org/tiny", info.stderr)
        server.terminate()
        _, log = server.communicate(timeout=60)
        self.assertEqual(server.returncode, 0, log)
        self.assertIn("fetching the model", log)

        embed = subprocess.run([QUIVER, "embed", "--model", "org/tiny@v1", "a text"], env=self.env, capture_output=True, text=True)
        self.assertEqual(embed.returncode, 0, embed.stderr)
        info = subprocess.run([QUIVER, "info", "--model", "org/tiny@v1", "--json"], env=self.env, capture_output=True, text=True)
        self.assertEqual(json.loads(info.stdout)["model"], "org/tiny", info.stderr)
        same = subprocess.run([QUIVER, "embed", "--model", self.model, "a text"], capture_output=True, text=True)
        self.assertEqual(embed.stdout, same.stdout)

    def test_a_server_whose_model_is_nowhere_says_so(self):
        run = subprocess.run([SERVER, "--model", "org/none", "--grpc-port", "0", "--http-port", "0"], env=self.env,
                             capture_output=True, text=True, timeout=120)
        self.assertEqual(run.returncode, 1)
        self.assertIn("org/none", run.stderr)
        self.assertIn("does not exist", run.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[5:], verbosity=2)
