// What a client missed while it was away: recovered where the channel keeps history, known to be lost where it cannot be.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { Line, askTest, connectedClient, event, ingestPort, numbers, subscribed } from './support.mjs';

test('what was published during a cut is recovered, in order and once', async (t) => {
  const redis = producer(t);
  const line = await Line.open(t);
  const client = await connectedClient(t, { url: line.url });
  const { subscription, received, context } = await subscribed(client, 'kept:cut');
  assert.equal(context.recoverable, true);

  for (const number of numbers(10)) {
    await redis.publish('kept:cut', String(number));
  }
  await received.count(10);
  const lost = event(subscription, 'subscribing');
  line.cut();
  await lost;
  for (const number of numbers(100, 10)) {
    await redis.publish('kept:cut', String(number));
  }
  const back = event(subscription, 'subscribed');
  line.mend();
  const { wasRecovering, recovered } = await back;
  assert.deepEqual({ wasRecovering, recovered }, { wasRecovering: true, recovered: true });
  for (const number of numbers(10, 110)) {
    await redis.publish('kept:cut', String(number));
  }
  await received.count(120);
  assert.deepEqual(received.data, numbers(120));
  assert.deepEqual(received.publications.map((publication) => publication.offset), numbers(120, 1));
});

test('a restart sends clients back, and says that history is lost', async (t) => {
  const client = await connectedClient(t);
  const { subscription, received } = await subscribed(client, 'kept:restart');
  const before = producer(t);
  await before.publish('kept:restart', '"before"');
  await received.count(1);

  const connecting = event(client, 'connecting');
  const back = new Promise((resolve) => subscription.once('subscribed', resolve));
  await askTest('restart');
  assert.deepEqual(pick(await connecting, 'code', 'reason'), { code: 3001, reason: 'shutdown' });
  const context = await back;
  assert.deepEqual(pick(context, 'wasRecovering', 'recovered'), { wasRecovering: true, recovered: false });

  await producer(t).publish('kept:restart', '"after"');
  await received.count(2);
  assert.deepEqual(received.data, ['before', 'after']);
});

const pick = (object, ...names) => Object.fromEntries(names.map((name) => [name, object[name]]));

function producer(t) {
  const redis = new Redis(ingestPort, '127.0.0.1');
  // While the server restarts there is nobody to talk to; the test makes a new producer then.
  redis.on('error', () => {});
  t.after(() => redis.disconnect());
  return redis;
}
