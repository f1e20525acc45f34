// JSON and Protobuf clients in one channel, and payloads that only one of them can be sent.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Centrifuge as CentrifugeJson } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';
import Redis from 'ioredis';
import WebSocket from 'ws';
import { Line, clientUrl, event, ingestPort, numbers, subscribed } from './support.mjs';

const text = (value) => new TextEncoder().encode(JSON.stringify(value));

test('both encodings hear the same publications of one channel', async (t) => {
  const json = await connected(t, CentrifugeJson);
  const protobuf = await connected(t, CentrifugeProtobuf);
  const clients = [json, protobuf, await connected(t, CentrifugeProtobuf), await connected(t, CentrifugeJson)];
  const received = await Promise.all(clients.map(async (client) => (await subscribed(client, 'open:both')).received));
  for (const number of numbers(100)) {
    await json.publish('open:both', { by: 'json', number });
    await protobuf.publish('open:both', text({ by: 'protobuf', number }));
  }
  const expected = numbers(100).flatMap((number) => [{ by: 'json', number }, { by: 'protobuf', number }]);
  await Promise.all(received.map((each) => each.count(200)));
  received.forEach((each) => assert.deepEqual(each.data, expected));
  const publishers = received.map((each) => each.publications.slice(0, 2).map(({ info }) => info.client));
  assert.equal(new Set(publishers[0]).size, 2);
  publishers.forEach((each) => assert.deepEqual(each, publishers[0]));
});

test('tags and offsets are told in Protobuf too', async (t) => {
  const { received, context } = await subscribed(await connected(t, CentrifugeProtobuf), 'kept:tags');
  assert.equal(context.recoverable, true);
  const tags = { name: 'ü', empty: '' };
  await producer(t).call('TG.PUBLISH', 'kept:tags', '[1,\n2]', 'TAGS', JSON.stringify(tags));
  await received.count(1);
  const [publication] = received.publications;
  assert.deepEqual([publication.offset, { ...publication.tags }, received.data], [1, tags, [[1, 2]]]);
});

test('the ways of choosing Protobuf by the address', async (t) => {
  for (const query of ['cf_protocol=protobuf', 'format=protobuf']) {
    const socket = new WebSocket(`${clientUrl}?${query}`);
    t.after(() => socket.close());
    await new Promise((resolve) => socket.once('open', resolve));
    assert.equal(socket.protocol, '');
    // A connect command with the id 1, and nothing in it.
    socket.send(Uint8Array.of(4, 0x08, 1, 0x22, 0));
    const [reply, isBinary] = await new Promise((resolve) => socket.once('message', (...message) => resolve(message)));
    assert.equal(isBinary, true);
    assert.deepEqual([...reply.subarray(0, 4)], [reply.length - 1, 0x08, 1, 0x2a]);
  }
});

test('a client that offers both subprotocols is given JSON', async (t) => {
  const socket = new WebSocket(clientUrl, ['centrifuge-protobuf', 'centrifuge-json']);
  t.after(() => socket.close());
  await new Promise((resolve) => socket.once('open', resolve));
  assert.equal(socket.protocol, 'centrifuge-json');
});

test('bytes reach who speaks Protobuf, and part with who speaks JSON', async (t) => {
  const protobuf = await connected(t, CentrifugeProtobuf);
  const other = await connected(t, CentrifugeProtobuf);
  const json = await connected(t, CentrifugeJson);
  const { received } = await subscribed(other, 'blobs:a');
  const { received: receivedByJson } = await subscribed(json, 'blobs:a');
  await protobuf.publish('blobs:a', text({ a: 'text' }));
  await receivedByJson.count(1);
  assert.deepEqual(receivedByJson.data, [{ a: 'text' }]);

  const disconnected = event(json, 'disconnected');
  const bytes = Uint8Array.of(0, 255, 10, 13, 0x80);
  await protobuf.publish('blobs:a', bytes);
  const { code, reason } = await disconnected;
  assert.deepEqual([code, reason], [3506, 'inappropriate protocol']);
  await received.count(2);
  assert.deepEqual([...received.publications[1].data], [...bytes]);
  await assert.rejects(protobuf.publish('blobs:a', new Uint8Array()), { code: 107 });
});

test('bytes in a history part with who speaks JSON and asks for it', async (t) => {
  const protobuf = await connected(t, CentrifugeProtobuf);
  const bytes = numbers(200).map((number) => number + 56);
  await protobuf.publish('blobs:history', Uint8Array.from(bytes));
  const { publications } = await protobuf.history('blobs:history', { limit: 10 });
  assert.deepEqual(publications.map(({ data }) => [...data]), [bytes]);

  const asking = await connected(t, CentrifugeJson);
  const asked = event(asking, 'disconnected');
  await assert.rejects(asking.history('blobs:history', { limit: 10 }));
  assert.equal((await asked).code, 3506);

  const recovering = await connected(t, CentrifugeJson);
  const subscription = recovering.newSubscription('blobs:history', { since: { offset: 0, epoch: '' } });
  const parted = event(recovering, 'disconnected');
  subscription.subscribe();
  assert.equal((await parted).code, 3506);
});

test('bytes that are no JSON are refused where JSON is due', async (t) => {
  const protobuf = await connected(t, CentrifugeProtobuf);
  for (const bytes of [Uint8Array.of(0xff), new TextEncoder().encode('{'), new Uint8Array()]) {
    await assert.rejects(protobuf.publish('open:text', bytes), { code: 107 });
  }
  const { received } = await subscribed(await connected(t, CentrifugeJson), 'open:text');
  await protobuf.publish('open:text', new TextEncoder().encode('{\n"a": 1\n}'));
  await received.count(1);
  assert.deepEqual(received.data, [{ a: 1 }]);
});

test('bytes that were published during a cut are recovered in Protobuf', async (t) => {
  const publisher = await connected(t, CentrifugeProtobuf);
  const line = await Line.open(t);
  const client = await connected(t, CentrifugeProtobuf, line.url);
  const { subscription, received } = await subscribed(client, 'blobs:cut');
  const payloads = numbers(60).map((number) => Uint8Array.of(0xff, number, 0));
  for (const payload of payloads.slice(0, 10)) {
    await publisher.publish('blobs:cut', payload);
  }
  await received.count(10);
  const lost = event(subscription, 'subscribing');
  line.cut();
  await lost;
  for (const payload of payloads.slice(10, 50)) {
    await publisher.publish('blobs:cut', payload);
  }
  const back = event(subscription, 'subscribed');
  line.mend();
  assert.equal((await back).recovered, true);
  for (const payload of payloads.slice(50)) {
    await publisher.publish('blobs:cut', payload);
  }
  await received.count(60);
  assert.deepEqual(received.publications.map(({ data }) => [...data]), payloads.map((payload) => [...payload]));
  assert.deepEqual(received.publications.map(({ offset }) => offset), numbers(60, 1));
});

async function connected(t, Library, url = clientUrl) {
  const client = new Library(url, { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 300 });
  t.after(() => client.disconnect());
  const connected = event(client, 'connected');
  client.connect();
  await connected;
  return client;
}

function producer(t) {
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  return redis;
}
