"""redis-py as a producer that compresses, with python-zstandard."""

import json
import os
import sys

import redis
import zstandard

TICK = {"symbol": "EURUSD", "bid": 1.08342, "ask": 1.08351, "bid_size": 250000, "ask_size": 1200000}


def main(dictionary_path):
    client = redis.Redis(host="127.0.0.1", port=int(os.environ["TEST_INGEST_PORT"]))
    with open(dictionary_path, "rb") as file:
        dictionary = zstandard.ZstdCompressionDict(file.read())

    def publish(number, frame, channel="open:zstd"):
        assert len(frame) < len(payload(number)), "it pays"
        expect(client.execute_command("TG.PUBLISH", channel, frame, "ENCODING", "zstd")[0], 0)

    publish(0, zstandard.ZstdCompressor().compress(payload(0)))
    publish(1, zstandard.ZstdCompressor(level=19, write_checksum=True).compress(payload(1)))
    publish(2, zstandard.ZstdCompressor(write_content_size=False).compress(payload(2)))
    publish(3, streamed(payload(3)))
    publish(4, zstandard.ZstdCompressor(dict_data=dictionary).compress(payload(4)))
    with client.pipeline() as transaction:
        for number in range(5, 10):
            frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(payload(number))
            transaction.execute_command("TG.PUBLISH", "open:zstd", frame, "encoding", "ZSTD", "ID", str(number))
        expect(len(transaction.execute()), 5)

    personal = zstandard.ZstdCompressor().compress(b'{"personal":true}')
    expect(client.execute_command("TG.SEND", "user", personal, "ENCODING", "zstd"), 1)
    everyone = zstandard.ZstdCompressor().compress(b'{"broadcast":true}')
    expect(client.execute_command("TG.BROADCAST", everyone, "ENCODING", "zstd"), 1)
    print("ok")


def payload(number):
    return json.dumps([{**TICK, "number": number, "place": place} for place in range(4)]).encode()


def streamed(data):
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data[:50]) + compressor.compress(data[50:]) + compressor.flush()


def expect(actual, expected):
    assert actual == expected, f"expected {expected!r}, got {actual!r}"


main(sys.argv[1])
