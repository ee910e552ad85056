"""A collector of traces that holds what it gets to OTLP's schema, and fails as it is told to."""
import base64
import http.server
import json
import ssl
import threading
import time

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE = 60


def with_base64_ids(message):
    """OTLP writes ids in hexadecimal where protobuf's JSON has base64."""
    for resource in message["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return message


def attributes(holder):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in holder.attributes}


class Span:
    def __init__(self, proto):
        self.trace, self.id, self.parent = (i.hex() for i in (proto.trace_id, proto.span_id, proto.parent_span_id))
        self.name, self.kind, self.flags, self.state, self.status = (proto.name, proto.kind, proto.flags, proto.trace_state,
                                                                     proto.status.code)
        self.begin, self.end = proto.start_time_unix_nano, proto.end_time_unix_nano
        self.attributes = attributes(proto)

    def __repr__(self):
        return f"{self.name} {self.trace}/{self.id} below {self.parent or None}, {self.end - self.begin} ns, {self.attributes}"


class Collector:
    """Listens on 127.0.0.1 at `url`, through TLS if there is a certificate. `answer` is called for each message and gives status, headers and body."""

    def __init__(self, certificate=None, key=None):
        self.lock = threading.Lock()
        self.spans, self.errors, self.requests = [], [], []
        self.resource = None
        self.answer = lambda: (200, {}, {})
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, answer = collector.answer()
                collector.take(self.path, dict(self.headers), body, status)
                text = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": len(text), **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            # Each connection shakes hands in a thread of its own.
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def take(self, path, headers, body, status):
        with self.lock:
            self.requests.append((path, headers))
            if status != 200:
                return
            try:
                message = json_format.ParseDict(with_base64_ids(json.loads(body)), ExportTraceServiceRequest())
            except Exception as error:
                self.errors.append(f"{error}: {body[:2000]}")
                return
            for resource in message.resource_spans:
                self.resource = attributes(resource.resource)
                for scope in resource.scope_spans:
                    self.spans.extend(map(Span, scope.spans))

    def of_trace(self, trace, roots=1):
        """The spans of a trace, once those of so many requests have come, which do so together."""
        return self.await_spans(lambda span: span.trace == trace, roots)

    def await_spans(self, wanted, roots=1):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with self.lock:
                assert not self.errors, self.errors
                found = [span for span in self.spans if wanted(span)]
            if sum(span.kind == 2 for span in found) >= roots:
                return found
            time.sleep(0.02)
        raise TimeoutError(f"{len(found)} spans came: {found}")
