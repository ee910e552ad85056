"""TLS and API keys at both doors, with real clients, and the CLI's flags for them.

Usage: tls_test.py QUIVER_SERVER QUIVER MAKE_TINY_MODEL
"""
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest

from running_server import ROOT, Server, generate_stubs

SERVER, QUIVER, MAKE_TINY_MODEL = sys.argv[1:4]
KEY = "a-key-of-the-test"


def openssl(*arguments, check=True):
    return subprocess.run(["openssl", *arguments], check=check, capture_output=True, text=True, stdin=subprocess.DEVNULL)


class TlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.exit = contextlib.ExitStack()
        work = cls.work = pathlib.Path(cls.exit.enter_context(tempfile.TemporaryDirectory()))
        generate_stubs(work / "stubs")
        subprocess.run([MAKE_TINY_MODEL, str(work / "model"), "--fixtures", f"{ROOT}/tests/fixtures"], check=True)
        for name in ("ca", "other"):
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    f"/CN={name}", "-keyout", str(work / f"{name}.key"), "-out", str(work / f"{name}.pem"))
        (work / "names").write_text("subjectAltName=DNS:quiver.test,IP:127.0.0.1")
        cls.make_certificate("server", "2")
        keys = work / "keys"
        keys.write_text(hashlib.sha256(KEY.encode()).hexdigest() + " test\n")
        (work / "run").mkdir()
        cls.server = cls.exit.enter_context(Server(
            SERVER, work / "model", work / "run", "--device", "cpu", "--tls-certificate", str(work / "server.pem"), "--tls-key",
            str(work / "server.key"), "--api-keys", str(keys), "--http-read-timeout", "2s"))
        cls.http = cls.server.await_address("http")
        cls.trusted = ssl.create_default_context(cafile=str(work / "ca.pem"))
        end = time.monotonic() + 60
        while cls.get("/readyz").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)

    @classmethod
    def tearDownClass(cls):
        cls.exit.close()

    @classmethod
    def make_certificate(cls, name, days):
        path = str(cls.work / name)
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=server", "-keyout",
                f"{path}.key", "-out", f"{path}.csr")
        openssl("x509", "-req", "-in", f"{path}.csr", "-CA", str(cls.work / "ca.pem"), "-CAkey", str(cls.work / "ca.key"),
                "-CAcreateserial", "-days", days, "-extfile", str(cls.work / "names"), "-out", f"{path}.pem")

    @classmethod
    def get(cls, path, context=None):
        connection = http.client.HTTPSConnection(cls.http, context=context or cls.trusted, timeout=30)
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.text = reply.read().decode()
        connection.close()
        return reply

    def embed(self, key=KEY, text="a cat"):
        connection = http.client.HTTPSConnection(self.http, context=self.trusted, timeout=30)
        connection.request("POST", "/v1/embeddings", json.dumps({"model": "model", "input": text}),
                           {"Content-Type": "application/json", "Authorization": f"Bearer {key}"})
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        connection.close()
        return reply.status, answer

    def test_both_doors_give_the_same_vectors_through_tls(self):
        import grpc
        import numpy as np
        from quiver.v1 import embed_pb2, embed_pb2_grpc
        credentials = grpc.ssl_channel_credentials((self.work / "ca.pem").read_bytes())
        with grpc.secure_channel(self.server.grpc, credentials) as channel:
            stub = embed_pb2_grpc.EmbedServiceStub(channel)
            request = embed_pb2.EmbedRequest(inputs=[embed_pb2.Input(text="a cat")])
            reply = stub.Embed(request, metadata=[("authorization", f"Bearer {KEY}")])
            with self.assertRaises(grpc.RpcError) as raised:
                stub.Embed(request)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
        status, answer = self.embed()
        self.assertEqual(status, 200)
        np.testing.assert_array_equal(np.float32(answer["data"][0]["embedding"]),
                                      np.frombuffer(reply.results[0].embedding.data, "<f4"))
        self.assertEqual(self.embed(key="another")[0], 401)

    def test_a_connection_ends_with_tls_own_goodbye(self):
        host, port = self.http.split(":")
        with self.trusted.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host,
                                      suppress_ragged_eofs=False) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            # An end without a goodbye raises.
            while data := connection.recv(4096):
                answer += data
        self.assertTrue(answer.startswith(b"HTTP/1.1 200"), answer)

    def test_nothing_is_answered_in_the_clear(self):
        import grpc
        from quiver.v1 import embed_pb2_grpc
        from quiver.v1 import embed_pb2
        with grpc.insecure_channel(self.server.grpc) as channel, self.assertRaises(grpc.RpcError):
            embed_pb2_grpc.EmbedServiceStub(channel).GetModelInfo(embed_pb2.GetModelInfoRequest(), timeout=5)
        host, port = self.http.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = plain.recv(100)
        self.assertNotIn(b"HTTP/1.1 200", answer)
        self.assertEqual(self.get("/health").status, 200)

    def test_versions_below_1_2_are_refused_and_http_1_1_is_agreed_on(self):
        def connect(*options):
            return openssl("s_client", "-connect", self.http, "-CAfile", str(self.work / "ca.pem"), *options, check=False)

        for version in ("-tls1_2", "-tls1_3"):
            self.assertIn("Verify return code: 0 (ok)", connect(version).stdout)
        refused = connect("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        self.assertIn("Cipher is (NONE)", refused.stdout)
        self.assertIn("alert protocol version", refused.stderr)
        self.assertIn("ALPN protocol: http/1.1", connect("-alpn", "h2,http/1.1").stdout)

    def test_strangers_are_not_trusted(self):
        stranger = ssl.create_default_context(cafile=str(self.work / "other.pem"))
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.get("/health", stranger)

    def test_clients_that_never_shake_hands_hold_up_nobody(self):
        host, port = self.http.split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(300)]
        half = [socket.create_connection((host, int(port))) for _ in range(50)]
        for connection in half:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        begin = time.monotonic()
        self.assertEqual(self.embed()[0], 200)
        self.assertLess(time.monotonic() - begin, 2)
        # They are closed when their time is over.
        silent[0].settimeout(10)
        self.assertEqual(silent[0].recv(1), b"")
        for connection in silent + half:
            connection.close()

    def test_a_thousand_idle_connections_are_kept(self):
        idle = []
        for _ in range(1000):
            connection = http.client.HTTPSConnection(self.http, context=self.trusted, timeout=30)
            connection.connect()
            idle.append(connection)
        self.assertEqual(self.embed()[0], 200)
        for connection in idle[::100]:
            connection.request("GET", "/health")
            self.assertEqual(connection.getresponse().read(), b'{"status": "healthy"}')
        for connection in idle:
            connection.close()

    def test_a_client_that_goes_away_cancels(self):
        def cancelled():
            return sum(float(value) for value in re.findall(
                r'quiver_dropped_items_total\{code="CANCELLED",[^}]*\} (\S+)', self.get("/metrics").text))

        before = cancelled()
        body = json.dumps({"model": "model", "input": [f"text {i} " + "word " * 100 for i in range(2000)]}).encode()
        host, port = self.http.split(":")
        connection = self.trusted.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host)
        connection.sendall(f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: "
                           f"application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        end = time.monotonic() + 30
        while not re.search(r"quiver_(queue|running)_items\{[^}]*\} [1-9]", self.get("/metrics").text):
            self.assertLess(time.monotonic(), end)
        # With TLS's goodbye before the connection's end.
        with contextlib.suppress(OSError):
            connection.settimeout(0.01)
            connection.unwrap()
        connection.close()
        while cancelled() <= before:
            self.assertLess(time.monotonic(), end, "nothing was cancelled")
            time.sleep(0.02)

    def cli(self, *options, key=None):
        environment = {name: value for name, value in os.environ.items() if name != "QUIVER_API_KEY"}
        if key is not None:
            environment["QUIVER_API_KEY"] = key
        return subprocess.run([QUIVER, "embed", "--server", self.server.grpc, *options, "a cat"], env=environment,
                              capture_output=True, text=True, timeout=60)

    def test_the_cli_speaks_tls_and_sends_its_key(self):
        ca = ("--tls", "--tls-ca", str(self.work / "ca.pem"))
        (self.work / "key").write_text(f"{KEY}\n")
        self.assertEqual(self.cli(*ca, key=KEY).returncode, 0)
        named = self.cli(*ca, "--tls-server-name", "quiver.test", "--api-key-file", str(self.work / "key"))
        self.assertEqual(named.returncode, 0, named.stderr)
        (self.work / "empty").write_text("\n")
        for options, key, words in (
                (ca, None, "an API key is required"), (ca, "another", "API key"), ((), KEY, self.server.grpc),
                (("--tls", "--tls-ca", str(self.work / "other.pem")), KEY, self.server.grpc),
                ((*ca, "--tls-server-name", "else.test"), KEY, self.server.grpc),
                (("--tls", "--tls-ca", "/nowhere"), KEY, "--tls-ca '/nowhere' cannot be read"),
                ((*ca, "--api-key-file", "/nowhere"), None, "--api-key-file '/nowhere' cannot be read"),
                ((*ca, "--api-key-file", str(self.work)), None, "cannot be read or is empty"),
                ((*ca, "--api-key-file", str(self.work / "empty")), None, "must hold a key in its first line"),
                (ca, "tab\tkey", "QUIVER_API_KEY must hold a key of printable ASCII"),
                (("--tls-ca", str(self.work / "ca.pem")), KEY, "--tls")):
            result = self.cli(*options, key=key)
            self.assertNotEqual(result.returncode, 0, options)
            self.assertIn(words, result.stderr, options)

    def test_files_that_cannot_be_used_end_the_start(self):
        certificate, key = str(self.work / "server.pem"), str(self.work / "server.key")
        openssl("ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", str(self.work / "locked.key"))
        self.make_certificate("past", "-1")
        for options, words in (
                (("--tls-certificate", certificate), "--tls-certificate and --tls-key must be given together"),
                (("--tls-certificate", "/nowhere", "--tls-key", key), "--tls-certificate '/nowhere' cannot be read"),
                (("--tls-certificate", str(self.work), "--tls-key", key), "cannot be read or is empty"),
                (("--tls-certificate", key, "--tls-key", key), "must begin with a certificate in PEM"),
                (("--tls-certificate", certificate, "--tls-key", certificate), "must be a private key in PEM"),
                (("--tls-certificate", certificate, "--tls-key", str(self.work / "locked.key")), "that is not encrypted"),
                (("--tls-certificate", certificate, "--tls-key", str(self.work / "ca.key")), "is another's"),
                (("--tls-certificate", str(self.work / "past.pem"), "--tls-key", str(self.work / "past.key")),
                 "must be valid now, is valid from")):
            result = subprocess.run([SERVER, "--model", str(self.work / "model"), "--grpc-port", "0", "--http-port", "0",
                                     *options], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(result.returncode, 0, options)
            self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], verbosity=2)
