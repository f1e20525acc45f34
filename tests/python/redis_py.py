"""redis-py as a producer."""

import json
import os

import redis

PASSWORD = os.environ.get("TEST_INGEST_PASSWORD") or None


def main():
    port = int(os.environ["TEST_INGEST_PORT"])
    check("TCP", redis.Redis(host="127.0.0.1", port=port, password=PASSWORD, decode_responses=True))
    socket = os.environ["TEST_INGEST_SOCKET"]
    check("the Unix socket", redis.Redis(unix_socket_path=socket, password=PASSWORD, decode_responses=True))
    if PASSWORD is None:
        old = redis.Redis(host="127.0.0.1", port=port, protocol=2, decode_responses=True)
        expect(old.pubsub_numsub("open:producer"), [("open:producer", 1)])


def check(where, client):
    expect(client.ping(), True)
    expect(client.publish("open:producer", payload(0)), 1)

    with client.pipeline(transaction=False) as pipeline:
        for number in range(1, 51):
            pipeline.publish("open:producer", payload(number))
        expect(pipeline.execute(), [1] * 50)

    with client.pipeline() as transaction:
        for number in range(51, 101):
            transaction.publish("open:producer", payload(number))
        expect(transaction.execute(), [1] * 50)

    publish = ("TG.PUBLISH", "kept:producer", '{"once":true}', "ID", f"key over {where}")
    first = client.execute_command(*publish)
    expect(client.execute_command(*publish), first)

    expect(client.execute_command("TG.SEND", "user", '{"personal":true}'), 1)
    expect(client.execute_command("TG.BROADCAST", '{"broadcast":true}'), 1)

    expect(client.pubsub_numsub("open:producer", "open:nobody"), [("open:producer", 1), ("open:nobody", 0)])
    expect(client.pubsub_channels("open:prod*"), ["open:producer"])

    refused(lambda: client.publish("open:producer", "not JSON"), "JSON")
    refused(lambda: client.get("key"), "unknown command")
    print(f"ok: {where}")


def payload(number):
    return json.dumps({"number": number})


def expect(actual, expected):
    assert actual == expected, f"expected {expected!r}, got {actual!r}"


def refused(call, text):
    try:
        answer = call()
    except redis.ResponseError as error:
        assert text in str(error), f"{text!r} is not in {error!s}"
    else:
        raise AssertionError(f"not refused, but answered {answer!r}")


main()
