// Deltas: patches where they are shorter, beside subscribers without them and in both encodings.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Centrifuge as CentrifugeJson } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';
import Redis from 'ioredis';
import WebSocket from 'ws';
import { Line, clientUrl, event, ingestPort, numbers, subscribed } from './support.mjs';

const libraries = [CentrifugeJson, CentrifugeProtobuf];

/** A payload of which little changes, and not always in the same place. */
const payload = (number) => ({
  before: 'text that stays, with ä and "quotes" '.repeat(1 + (number % 3)),
  number,
  behind: `${'more of it, '.repeat(5)}${['ä', 'ö', 'o'][number % 3]} to the end`,
});

test('who wants deltas and who does not hear the same, in both encodings', async (t) => {
  const listeners = [];
  for (const Library of libraries) {
    for (const options of [{ delta: 'fossil' }, {}, { delta: 'fossil' }]) {
      const client = await connected(t, Library);
      const { subscription, received } = await subscribed(client, 'delta:mixed', options);
      // In JSON a patch is a text, so what would cut a character comes whole.
      const counts = Library === CentrifugeJson ? [35, 165] : [1, 199];
      listeners.push({ subscription, received, counts: options.delta ? counts : [0, 0] });
    }
  }
  const producer = redis(t);
  const expected = numbers(200).map(payload);
  // What comes in the same turn as a subscriber's first is whole for it.
  await producer.publish('delta:mixed', JSON.stringify(expected[0]));
  await Promise.all(listeners.map(({ received }) => received.count(1)));
  // Many in one turn, and each in its own.
  await Promise.all(expected.slice(1, 100).map((data) => producer.publish('delta:mixed', JSON.stringify(data))));
  for (const data of expected.slice(100)) {
    await producer.publish('delta:mixed', JSON.stringify(data));
  }
  for (const { subscription, received, counts } of listeners) {
    await received.count(200);
    assert.deepEqual(received.data, expected);
    const { numFullPayloads, numDeltaPayloads } = subscription.deltaStats();
    assert.deepEqual([numFullPayloads, numDeltaPayloads], counts);
  }
});

test('deltas go on after a cut', async (t) => {
  for (const Library of libraries) {
    const channel = `delta:cut-${libraries.indexOf(Library)}`;
    const line = await Line.open(t);
    const client = await connected(t, Library, line.url);
    const { subscription, received } = await subscribed(client, channel, { delta: 'fossil' });
    const producer = redis(t);
    const expected = numbers(90).map(payload);
    const publish = async (from, to) => {
      for (const data of expected.slice(from, to)) {
        await producer.publish(channel, JSON.stringify(data));
      }
    };
    await publish(0, 30);
    await received.count(30);
    // Once something is missed, once nothing.
    for (const [from, to] of [[30, 60], [60, 60]]) {
      const lost = event(subscription, 'subscribing');
      line.cut();
      await lost;
      await publish(from, to);
      const back = event(subscription, 'subscribed');
      line.mend();
      assert.equal((await back).recovered, true);
      await received.count(to);
    }
    await publish(60, 90);
    await received.count(90);
    assert.deepEqual(received.data, expected);
    assert.deepEqual(received.publications.map(({ offset }) => offset), numbers(90, 1));
  }
});

test('a producer says which publications may be patches', async (t) => {
  const { subscription, received } = await subscribed(await connected(t, CentrifugeJson), 'asked:a', { delta: 'fossil' });
  const producer = redis(t);
  for (const number of numbers(4)) {
    const options = number % 2 === 1 ? ['DELTA'] : [];
    await producer.call('TG.PUBLISH', 'asked:a', JSON.stringify(payload(0)), ...options);
    await received.count(number + 1);
  }
  assert.deepEqual(received.data, Array(4).fill(payload(0)));
  assert.equal(subscription.deltaStats().numDeltaPayloads, 2);
});

test('where deltas are not allowed, publications come as ever', async (t) => {
  const { subscription, received } = await subscribed(await connected(t, CentrifugeJson), 'kept:a', { delta: 'fossil' });
  await redis(t).publish('kept:a', '{"a":1}');
  await received.count(1);
  assert.deepEqual([received.data, subscription.deltaStats().numPublications], [[{ a: 1 }], 0]);
});

async function connected(t, Library, url = clientUrl) {
  const client = new Library(url, { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 300 });
  t.after(() => client.disconnect());
  const connected = event(client, 'connected');
  client.connect();
  await connected;
  return client;
}

function redis(t) {
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  return redis;
}
