"""centrifuge-python as a client, in the encoding that the test names."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
from urllib.parse import urlsplit

from centrifuge import (
    Client,
    ClientEventHandler,
    DeltaType,
    ReplyError,
    StreamPosition,
    SubscriptionEventHandler,
)

URL = os.environ["TEST_CLIENT_URL"]
IS_PROTOBUF = {"json": False, "protobuf": True}[os.environ["TEST_ENCODING"]]
PATIENCE_S = 20


async def main():
    for test in (connects, publishes, reads_history, is_refused, recovers, takes_deltas, sends_bytes):
        print(test.__name__, flush=True)
        await asyncio.wait_for(test(), 2 * PATIENCE_S)


async def connects():
    client, events = await connected(token=token({"sub": "ann", "exp": int(time.time()) + 3600}))
    context = await events.next("connected")
    expect(context.version.startswith("Tidegate "), True)
    expect(len(context.client), 36)
    expect((await events.next("server subscribed")).channel, "#ann")
    await client.disconnect()

    garbled, events = new_client(token="no.token.atall")
    await garbled.connect()
    expect((await events.next("disconnected")).code, 3500)


async def publishes():
    client, _ = await connected()
    other, _ = await connected(is_protobuf=not IS_PROTOBUF)
    events = [await subscribed(one, "open:python") for one in (client, other)]
    for number in range(50):
        await client.publish("open:python", encoded({"number": number}))
    for each in events:
        publications = [(await each.next("publication")).pub for _ in range(50)]
        expect([decoded(publication.data) for publication in publications], [{"number": n} for n in range(50)])
        expect({publication.info.user for publication in publications}, {""})
    await client.disconnect()
    await other.disconnect()


async def reads_history():
    client, _ = await connected()
    for number in range(5):
        await client.publish("blobs:python", encoded(number))
    top = await client.history("blobs:python")
    expect((top.offset, top.publications), (5, []))
    found = await client.history("blobs:python", limit=2, since=StreamPosition(offset=1, epoch=top.epoch))
    expect([(one.offset, decoded(one.data)) for one in found.publications], [(2, 1), (3, 2)])
    found = await client.history("blobs:python", limit=2, reverse=True)
    expect([one.offset for one in found.publications], [5, 4])
    await client.disconnect()


async def is_refused():
    client, _ = await connected()
    for call, code in (
        (client.publish("kept:python", encoded(1)), 103),
        (client.publish("nowhere:python", encoded(1)), 102),
        (client.history("open:python"), 108),
        (client.presence("open:python"), 108),
        (client.rpc("method", encoded({})), 108),
    ):
        try:
            await call
        except ReplyError as error:
            expect(error.code, code)
        else:
            raise AssertionError(f"expected {code}")
    events = SubscriptionEvents()
    await client.new_subscription("closed:python", events=events).subscribe()
    expect((await events.next("unsubscribed")).code, 103)
    await client.disconnect()


async def recovers():
    publisher, _ = await connected()
    line = Line()
    client, events = await connected(url=await line.open())
    received = await subscribed(client, "blobs:cut")
    for number in range(10):
        await publisher.publish("blobs:cut", encoded(number))
    line.cut()
    await events.next("connecting")
    for number in range(10, 60):
        await publisher.publish("blobs:cut", encoded(number))
    await asyncio.sleep(0.5)
    line.is_cut = False
    publications = [(await received.next("publication")).pub for _ in range(60)]
    expect([decoded(publication.data) for publication in publications], list(range(60)))
    expect([publication.offset for publication in publications], list(range(1, 61)))
    expect((await received.next("subscribed")).recovered, False)
    expect((await received.next("subscribed")).recovered, True)
    await client.disconnect()
    await publisher.disconnect()
    line.cut()


async def takes_deltas():
    publisher, _ = await connected(is_protobuf=not IS_PROTOBUF)
    line = Line()
    client, events = await connected(url=await line.open())
    received = await subscribed(client, "blobs:delta", delta=DeltaType.FOSSIL)
    values = [{"text": "what stays, ä and all, " * 5, "number": number} for number in range(40)]

    async def publish(some):
        for value in some:
            await publisher.publish("blobs:delta", value if IS_PROTOBUF else json.dumps(value).encode())

    await publish(values[:20])
    publications = [(await received.next("publication")).pub for _ in range(20)]
    line.cut()
    await events.next("connecting")
    await publish(values[20:30])
    line.is_cut = False
    publications += [(await received.next("publication")).pub for _ in range(10)]
    await publish(values[30:])
    publications += [(await received.next("publication")).pub for _ in range(10)]
    expect([decoded(publication.data) for publication in publications], values)
    patches = [publication.delta for publication in publications]
    # Whole are the first, with what its turn of the server brings besides, and what is recovered.
    expect((patches[0], patches[19], patches[39]), (False, True, True))
    for live in (patches[:20], patches[30:]):
        expect(live, sorted(live))
    expect(patches[20:30], [False] * 10)
    await client.disconnect()
    await publisher.disconnect()
    line.cut()


async def sends_bytes():
    client, events = await connected(is_protobuf=True)
    received = await subscribed(client, "blobs:bytes")
    payload = bytes(range(256))
    await client.publish("blobs:bytes", payload)
    expect((await received.next("publication")).pub.data, payload)
    try:
        await client.publish("open:bytes", payload)
    except ReplyError as error:
        expect(error.code, 107)
    else:
        raise AssertionError("bytes were taken where JSON is due")

    in_json, events = await connected(is_protobuf=False)
    await subscribed(in_json, "blobs:bytes")
    await client.publish("blobs:bytes", payload)
    expect((await events.next("disconnected")).code, 3506)
    await client.disconnect()


class Events:
    """What happened, by name and in order."""

    def __init__(self):
        self.queues = {}

    def happened(self, name, context):
        self.queues.setdefault(name, asyncio.Queue()).put_nowait(context)

    async def next(self, name):
        try:
            return await asyncio.wait_for(self.queues.setdefault(name, asyncio.Queue()).get(), PATIENCE_S)
        except asyncio.TimeoutError:
            raise AssertionError(f"waited in vain for '{name}'") from None


class ClientEvents(Events, ClientEventHandler):
    async def on_connected(self, ctx):
        self.happened("connected", ctx)

    async def on_connecting(self, ctx):
        self.happened("connecting", ctx)

    async def on_disconnected(self, ctx):
        self.happened("disconnected", ctx)

    async def on_subscribed(self, ctx):
        self.happened("server subscribed", ctx)


class SubscriptionEvents(Events, SubscriptionEventHandler):
    async def on_subscribed(self, ctx):
        self.happened("subscribed", ctx)

    async def on_unsubscribed(self, ctx):
        self.happened("unsubscribed", ctx)

    async def on_publication(self, ctx):
        self.happened("publication", ctx)


class Line:
    """A line to the server that can be cut."""

    def __init__(self):
        self.is_cut = False
        self.writers = set()

    async def open(self):
        server = await asyncio.start_server(self.connect, "127.0.0.1", 0)
        return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}{urlsplit(URL).path}"

    async def connect(self, near_reader, near_writer):
        if self.is_cut:
            near_writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(urlsplit(URL).hostname, urlsplit(URL).port)
        self.writers |= {near_writer, far_writer}
        await asyncio.gather(pipe(near_reader, far_writer), pipe(far_reader, near_writer))

    def cut(self):
        self.is_cut = True
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


def new_client(url=URL, is_protobuf=IS_PROTOBUF, **options):
    events = ClientEvents()
    delays = {"min_reconnect_delay": 0.05, "max_reconnect_delay": 0.2}
    return Client(url, events=events, use_protobuf=is_protobuf, proxy=None, **delays, **options), events


async def connected(**options):
    client, events = new_client(**options)
    await client.connect()
    await client.ready(PATIENCE_S)
    if "url" in options:
        # The beginning, so that the next one is a reconnect.
        await events.next("connecting")
    return client, events


async def subscribed(client, channel, **options):
    events = SubscriptionEvents()
    subscription = client.new_subscription(channel, events=events, **options)
    await subscription.subscribe()
    await subscription.ready(PATIENCE_S)
    return events


def encoded(value):
    """A payload as the library wants it: a value in JSON, bytes in Protobuf."""
    return json.dumps(value).encode() if IS_PROTOBUF else value


def decoded(data):
    return json.loads(data) if isinstance(data, bytes) else data


def token(claims):
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    content = b".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    secret = os.environ["TEST_TOKEN_SECRET"].encode()
    return (content + b"." + encode(hmac.new(secret, content, hashlib.sha256).digest())).decode()


def expect(actual, expected):
    if actual != expected:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")


asyncio.run(main())
