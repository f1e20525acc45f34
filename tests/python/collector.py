"""A collector of traces for tests: takes OTLP over HTTP, read by OpenTelemetry's own messages.

Prints its port and serves until its standard input ends. `GET /spans` gives all spans that it has taken, `GET /figures`
how many they are. `POST /answers` takes a list of [status, header fields] that the next requests are answered with;
afterwards all are taken.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

lock = threading.Lock()
spans, requests, answers = [], [], []


def value_of(value):
    return getattr(value, value.WhichOneof("value"))


def attributes_of(message):
    attributes = {attribute.key: value_of(attribute.value) for attribute in message.attributes}
    assert len(attributes) == len(message.attributes), "each key once"
    return attributes


def has_unknown_fields(message):
    """Whether bytes of a message are none of its fields: what is known, written again, would be shorter."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


def take(body):
    request = ExportTraceServiceRequest.FromString(body)
    assert not has_unknown_fields(request), request
    for of_resource in request.resource_spans:
        resource = attributes_of(of_resource.resource)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                spans.append({
                    "resource": resource,
                    "scope": of_scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": span.kind,
                    "begin": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "flags": span.flags,
                    "attributes": attributes_of(span),
                })


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with lock:
            figures = {"requests": requests, "spans": len(spans), "traces": len({span["trace"] for span in spans})}
            self.answer(200, json.dumps(spans if self.path == "/spans" else figures).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with lock:
            if self.path == "/answers":
                answers.extend(json.loads(body))
                return self.answer(200)
            fields = {name.lower(): value for name, value in self.headers.items()}
            requests.append({"path": self.path, "fields": fields})
            status, own_fields = answers.pop(0) if answers else (200, {})
            if status == 200:
                take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.answer(status, answer, own_fields | {"Content-Type": "application/x-protobuf"})

    def answer(self, status, body=b"", fields={}):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
