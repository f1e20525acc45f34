// Tokens as the official library uses them: fetched, refreshed, for connections and for subscriptions, by published keys.

import assert from 'node:assert/strict';
import { generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { once } from 'node:events';
import { test } from 'node:test';
import { connectedClient, event, newClient, nowS, subscribed, token, until } from './support.mjs';

// The publisher of keys that the server was told of.
const publisher = { keys: [], isDown: false, fetches: 0 };
const read = (name) => readFileSync(new URL(`../keys/${name}`, import.meta.url));
const web = createServer({ cert: read('loopback.pem'), key: read('loopback.private.pem') }, (request, response) => {
  publisher.fetches += 1;
  response.statusCode = publisher.isDown ? 503 : 200;
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({ keys: publisher.keys }));
});
test.before(async () => {
  web.listen(Number(process.env.TEST_KEYS_PORT), '127.0.0.1');
  await once(web, 'listening');
});
test.after(() => web.close());

const kinds = {
  RS256: ['rsa', { modulusLength: 2048 }, 'sha256'],
  ES256: ['ec', { namedCurve: 'P-256' }, 'sha256'],
  ES512: ['ec', { namedCurve: 'P-521' }, 'sha512'],
  EdDSA: ['ed25519', {}, null],
};

/** A new key: how it is published, and how it signs. */
function newKey(kid, alg) {
  const [kind, options, hash] = kinds[alg];
  const { publicKey, privateKey } = generateKeyPairSync(kind, options);
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return {
    published: { kid, use: 'sig', ...publicKey.export({ format: 'jwk' }) },
    sign(claims) {
      const message = `${encode({ alg, kid })}.${encode(claims)}`;
      const signature = signBytes(hash, Buffer.from(message), { key: privateKey, dsaEncoding: 'ieee-p1363' });
      return `${message}.${signature.toString('base64url')}`;
    },
  };
}

test('a connection is refreshed before its token expires, and stays', async (t) => {
  let fetched = 0;
  const client = await connectedClient(t, {
    getToken: async () => {
      fetched += 1;
      return token({ sub: 'refreshed', exp: nowS() + 2 });
    },
  });
  let lost = 0;
  client.on('connecting', () => (lost += 1));
  await until('the token was fetched again and again', () => fetched >= 4);
  assert.equal(lost, 0);
});

test('a subscription is refreshed before its token expires, and stays', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'subscriber' }) });
  let fetched = 0;
  const { subscription, context } = await subscribed(client, '$users:plans', {
    getToken: async ({ channel }) => {
      fetched += 1;
      return token({ sub: 'subscriber', channel, exp: nowS() + 2, data: { plan: 'gold' }, info: { role: 'admin' } });
    },
  });
  assert.deepEqual(context.data, { plan: 'gold' });
  let lost = 0;
  subscription.on('subscribing', () => (lost += 1));
  await until('the token was fetched again and again', () => fetched >= 3);
  assert.equal(lost, 0);
});

test('a private channel is closed without a token, or with that of somebody else', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'curious' }) });
  const subscription = client.newSubscription('$users:secrets');
  const unsubscribed = event(subscription, 'unsubscribed');
  subscription.subscribe();
  assert.equal((await unsubscribed).code, 103);

  const disconnected = event(client, 'disconnected');
  client.newSubscription('$users:others', { token: token({ sub: 'somebody', channel: '$users:others' }) }).subscribe();
  assert.deepEqual(await disconnected, { code: 3500, reason: 'invalid token' });
});

test('an unrefreshed subscription is taken up anew with a new token', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'late' }) });
  // The library believes in an hour; the server knows better.
  const tokens = [token({ sub: 'late', channel: '$users:late', exp: nowS() + 1 })];
  const subscription = client.newSubscription('$users:late', {
    getToken: async () => tokens.pop() ?? new Promise(() => {}),
  });
  const answered = event(subscription, 'subscribed');
  subscription.subscribe();
  await answered;
  const { code, reason } = await event(subscription, 'subscribing');
  assert.deepEqual([code, reason], [2501, 'subscription expired']);
});

test('published keys verify tokens of every kind', async (t) => {
  const keys = Object.keys(kinds).map((alg) => newKey(`one-${alg}`, alg));
  publisher.keys = keys.map((key) => key.published);
  for (const key of keys) {
    const client = await connectedClient(t, { token: key.sign({ sub: 'published' }) });
    client.disconnect();
  }
});

test('keys are rotated without a restart, and an outage of their publisher is survived', async (t) => {
  const [old, next, last] = ['old', 'next', 'last'].map((kid) => newKey(kid, 'EdDSA'));
  publisher.keys = [old.published];
  await connectedClient(t, { token: old.sign({ sub: 'rotating' }) });

  publisher.keys = [old.published, next.published];
  await connectedClient(t, { token: next.sign({ sub: 'rotating' }) });

  publisher.isDown = true;
  await connectedClient(t, { token: old.sign({ sub: 'rotating' }) });
  const waiting = newClient(t, { token: last.sign({ sub: 'rotating' }) });
  const connected = event(waiting, 'connected');
  const failures = [];
  waiting.on('error', ({ error }) => failures.push(error.code));
  waiting.connect();
  await until('a temporary error while the keys cannot be fetched', () => failures.includes(100));
  publisher.keys = [next.published, last.published];
  publisher.isDown = false;
  await connected;

  const refused = newClient(t, { token: old.sign({ sub: 'rotating' }) });
  const disconnected = event(refused, 'disconnected');
  refused.connect();
  assert.equal((await disconnected).code, 3500, 'what is published no more is not trusted');
});

test('made-up names of keys do not make the server a burden to the publisher', async (t) => {
  const forged = newKey('x', 'EdDSA');
  const before = publisher.fetches;
  const began = Date.now();
  await Promise.all(
    Array.from({ length: 30 }, async () => {
      const client = newClient(t, { token: forged.sign({ sub: 'forger' }) });
      const disconnected = event(client, 'disconnected');
      client.connect();
      assert.equal((await disconnected).code, 3500);
    }),
  );
  const fetches = publisher.fetches - before;
  assert.ok(fetches <= (Date.now() - began) / 2_000 + 2, `${fetches} fetches`);
});
