// What subscribers receive, and what they are refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { Received, connectedClient, decoded, event, ingestPort, newClient, numbers, subscribed, token, until } from './support.mjs';

test('publications of a client arrive in order, with its identity', async (t) => {
  const publisher = await connectedClient(t);
  const { received } = await subscribed(await connectedClient(t), 'open:order');
  const count = 500;
  for (const number of numbers(count)) {
    await publisher.publish('open:order', { number });
  }
  await received.count(count);
  assert.deepEqual(received.data, numbers(count).map((number) => ({ number })));
  assert.equal(received.publications[0].info.user, '');
  assert.match(received.publications[0].info.client, /^[0-9a-f-]{36}$/);
});

test('a publisher receives its own publication before the answer to it', async (t) => {
  const client = await connectedClient(t);
  const { subscription, received } = await subscribed(client, 'open:own');
  await subscription.publish({ mine: true });
  assert.deepEqual(received.data, [{ mine: true }]);
});

test('nothing arrives after unsubscribing', async (t) => {
  const publisher = await connectedClient(t);
  const { subscription, received } = await subscribed(await connectedClient(t), 'open:left');
  await publisher.publish('open:left', 1);
  await received.count(1);
  const unsubscribed = event(subscription, 'unsubscribed');
  subscription.unsubscribe();
  await unsubscribed;
  // The library sends the command behind our back: the server's own count says when it has been read.
  await subscribers(producer(t), 'open:left', 0);
  await publisher.publish('open:left', 2);

  const again = event(subscription, 'subscribed');
  subscription.subscribe();
  await again;
  await publisher.publish('open:left', 3);
  await received.count(2);
  assert.deepEqual(received.data, [1, 3]);
});

test('what is refused says why', async (t) => {
  const client = await connectedClient(t);
  for (const [channel, code, message] of [
    ['nowhere:a', 102, 'unknown channel'],
    ['closed:a', 103, 'permission denied'],
    ['users:a', 103, 'permission denied'],
  ]) {
    const subscription = client.newSubscription(channel);
    const unsubscribed = event(subscription, 'unsubscribed');
    subscription.subscribe();
    const context = await unsubscribed;
    assert.deepEqual([context.code, context.reason], [code, message], channel);
  }
  await assert.rejects(client.publish('kept:a', {}), { code: 103 });
  await assert.rejects(client.publish('nowhere:a', {}), { code: 102 });
  assert.equal(client.state, 'connected');
});

test('a user may what an anonymous client may not', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'erin' }) });
  const { context } = await subscribed(client, 'users:a');
  assert.equal(context.channel, 'users:a');
});

test('many channels subscribe in one message', async (t) => {
  const client = newClient(t);
  const channels = numbers(100).map((number) => `open:many-${number}`);
  const subscriptions = channels.map((channel) => client.newSubscription(channel));
  const answered = Promise.all(subscriptions.map((subscription) => event(subscription, 'subscribed')));
  const received = subscriptions.map((subscription) => new Received(subscription));
  subscriptions.forEach((subscription) => subscription.subscribe());
  client.connect();
  await answered;
  const redis = producer(t);
  await Promise.all(channels.map((channel, number) => redis.publish(channel, String(number))));
  await Promise.all(received.map((each) => each.count(1)));
  assert.deepEqual(received.map((each) => each.data), numbers(100).map((number) => [number]));
});

test('a user is reached on all its connections, and on no one else’s', async (t) => {
  const clients = await Promise.all(
    ['frank', 'frank', 'grace'].map((sub) => connectedClient(t, { token: token({ sub }) })),
  );
  const received = clients.map((client) => new Received(client));
  const redis = producer(t);
  await subscribers(redis, '#frank', 2);
  assert.equal(await redis.call('TG.SEND', 'frank', '{"for":"frank"}'), 2);
  assert.equal(await redis.call('TG.SEND', 'grace', '{"for":"grace"}'), 1);
  assert.equal(await redis.call('TG.SEND', 'heidi', '{"for":"nobody"}'), 0);
  await Promise.all(received.map((each) => each.count(1)));
  assert.deepEqual(received.map((each) => each.data), [[{ for: 'frank' }], [{ for: 'frank' }], [{ for: 'grace' }]]);
  assert.equal(received[0].publications[0].channel, '#frank');
});

test('a broadcast reaches every connection', async (t) => {
  const clients = await Promise.all(numbers(3).map(() => connectedClient(t)));
  const messages = clients.map((client) => event(client, 'message'));
  const reached = await producer(t).call('TG.BROADCAST', '{"to":"all"}');
  assert.ok(reached >= clients.length, `${reached} connections`);
  assert.deepEqual((await Promise.all(messages)).map((message) => decoded(message.data)), numbers(3).map(() => ({ to: 'all' })));
});

/** Waits until a channel has that many subscribers; the server's count of them may be a little old. */
function subscribers(redis, channel, count) {
  return until(`${count} subscribers of ${channel}`, async () => {
    const [, subscribers] = await redis.pubsub('NUMSUB', channel);
    return subscribers === count;
  });
}

function producer(t) {
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  return redis;
}
