"""A producer and a client over TLS, by Python's own library: redis-py with a client certificate, websockets."""

import asyncio
import json
import os
import ssl

import redis
import websockets

authority = os.environ["TEST_AUTHORITY"]


def publish(**certificate):
    producer = redis.Redis(
        host="localhost",
        port=int(os.environ["TEST_INGEST_PORT"]),
        ssl=True,
        ssl_ca_certs=authority,
        **certificate,
    )
    return producer.publish("open:secure", json.dumps({"text": "y" * 100_000}))


async def main():
    context = ssl.create_default_context(cafile=authority)
    async with websockets.connect(os.environ["TEST_SECURE_URL"], ssl=context) as client:
        await client.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"open:secure"}}')
        heard = ""
        while '"subscribe"' not in heard:
            heard += await client.recv()
        receivers = await asyncio.to_thread(
            publish, ssl_certfile=os.environ["TEST_CERTIFICATE"], ssl_keyfile=os.environ["TEST_KEY"]
        )
        assert receivers == 1, receivers
        assert len(await client.recv()) > 100_000
    for stranger in [{}, {"ssl_certfile": os.environ["TEST_STRANGER"], "ssl_keyfile": os.environ["TEST_STRANGER_KEY"]}]:
        try:
            publish(**stranger)
        except redis.exceptions.ConnectionError:
            continue
        raise AssertionError(f"{stranger} was served")


asyncio.run(main())
