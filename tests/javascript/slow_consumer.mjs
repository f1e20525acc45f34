// The policy `resync`, as the official client lives through it: a reader that stops reading loses nothing in the end.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import WebSocket from 'ws';
import { connectedClient, event, ingestPort, metric, numbers, subscribed, until } from './support.mjs';

test('a client that stopped reading is told to resynchronise, and recovers', async (t) => {
  let socket;
  class Pausable extends WebSocket {
    constructor(...parameters) {
      super(...parameters);
      socket = this;
    }
  }
  const client = await connectedClient(t, { websocket: Pausable });
  const { subscription, received } = await subscribed(client, 'resync:stream');
  const resynchronised = [];
  subscription.on('subscribing', (context) => resynchronised.push(context.code));
  const recovered = [];
  subscription.on('subscribed', (context) => recovered.push(context.recovered));

  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  socket.pause();
  let published = 0;
  await until('the server drops what waits', async () => {
    for (const number of numbers(10, published)) {
      await redis.publish('resync:stream', JSON.stringify({ number, padding: 'x'.repeat(16_000) }));
    }
    published += 10;
    return (await metric('tidegate_slow_consumer_dropped_total', 'policy="resync"')) > 0;
  });
  const back = event(subscription, 'subscribed');
  socket.resume();
  await back;
  await received.count(published);
  assert.deepEqual(received.data.map(({ number }) => number), numbers(published));
  assert.deepEqual(resynchronised, [2500]);
  assert.deepEqual(recovered, [true]);
  assert.equal(client.state, 'connected');
});
