// How the official client connects, stays connected, and is told to go.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connectedClient, event, newClient, nowS, token } from './support.mjs';

test('connects without a token', async (t) => {
  const client = newClient(t);
  const connected = event(client, 'connected');
  client.connect();
  const context = await connected;
  assert.match(context.client, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(client.state, 'connected');
});

test('connects with a token and gets its personal channel', async (t) => {
  const client = newClient(t, { token: token({ sub: 'alice' }) });
  const subscribed = event(client, 'subscribed');
  client.connect();
  assert.equal((await subscribed).channel, '#alice');
});

test('gets the channels that its token names', async (t) => {
  const client = newClient(t, { token: token({ sub: 'bob', channels: ['open:news'] }) });
  const channels = new Set();
  client.on('subscribed', (context) => channels.add(context.channel));
  const connected = event(client, 'connected');
  client.connect();
  await connected;
  assert.deepEqual([...channels].sort(), ['#bob', 'open:news']);
});

test('an invalid token is terminal', async (t) => {
  const client = newClient(t, { token: 'not.a.token' });
  const disconnected = event(client, 'disconnected');
  client.connect();
  const context = await disconnected;
  assert.deepEqual([context.code, context.reason], [3500, 'invalid token']);
});

test('an expired token is answered with 109, and the client fetches a new one', async (t) => {
  let fetched = 0;
  const client = newClient(t, {
    token: token({ sub: 'carol', exp: nowS() - 60 }),
    getToken: async () => {
      fetched += 1;
      return token({ sub: 'carol', exp: nowS() + 3600 });
    },
  });
  const error = event(client, 'error');
  const connected = event(client, 'connected');
  client.connect();
  assert.equal((await error).error.code, 109);
  await connected;
  assert.equal(fetched, 1);
});

test('a token that runs out sends its client back for a new one', async (t) => {
  let fetched = 0;
  const client = newClient(t, {
    getToken: async () => {
      fetched += 1;
      if (fetched === 2) {
        throw new Error('no token to refresh the connection with');
      }
      return token({ sub: 'dave', exp: nowS() + (fetched === 1 ? 2 : 3600) });
    },
  });
  client.connect();
  await event(client, 'connected');
  const context = await event(client, 'connecting');
  assert.deepEqual([context.code, context.reason], [3005, 'connection expired']);
  await event(client, 'connected');
  assert.equal(fetched, 3);
});

test('a connection outlives many pings', async (t) => {
  const client = await connectedClient(t);
  let left = false;
  client.on('connecting', () => (left = true));
  await new Promise((resolve) => setTimeout(resolve, 3_500));
  assert.equal(left, false);
  assert.equal(client.state, 'connected');
});

test('a client that answers no ping is sent away and comes back', async (t) => {
  const client = await connectedClient(t);
  // What the connect reply set; the library has no switch for it.
  client._sendPong = false;
  const context = await event(client, 'connecting');
  assert.deepEqual([context.code, context.reason], [3012, 'no pong']);
  await event(client, 'connected');
});
