// What channels tell beside publications: who is there, who comes and goes, what was before.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { Line, Received, connectedClient, decoded, event, ingestPort, newClient, numbers, subscribed, token, until } from './support.mjs';

test('who is subscribed can be asked, by subscribers only', async (t) => {
  const erin = await connectedClient(t, { token: token({ sub: 'erin', info: { name: 'Erin' } }) });
  const [first, second] = await Promise.all([connectedClient(t), connectedClient(t)]);
  await assert.rejects(first.presence('room:asked'), { code: 103 });
  await assert.rejects(first.presence('open:asked'), { code: 108 });
  await assert.rejects(first.presenceStats('nowhere:asked'), { code: 102 });
  const { subscription } = await subscribed(erin, 'room:asked');
  await subscribed(first, 'room:asked');
  await subscribed(second, 'room:asked');
  const { clients } = await subscription.presence();
  assert.equal(Object.keys(clients).length, 3);
  for (const [client, info] of Object.entries(clients)) {
    assert.equal(info.client, client);
  }
  const [present] = Object.values(clients).filter(({ user }) => user === 'erin');
  assert.deepEqual(decoded(present.connInfo), { name: 'Erin' });
  assert.deepEqual(await subscription.presenceStats(), { numClients: 3, numUsers: 2 });
  second.disconnect();
  await until('the client to be gone', async () => (await subscription.presenceStats()).numClients === 2);
});

test('who comes and goes is heard by those who ask for it, in order', async (t) => {
  const watcher = await connectedClient(t);
  const news = [];
  const subscription = watcher.newSubscription('room:heard', { joinLeave: true });
  subscription.on('join', ({ info }) => news.push(['join', info.user]));
  subscription.on('leave', ({ info }) => news.push(['leave', info.user]));
  const answered = event(subscription, 'subscribed');
  subscription.subscribe();
  await answered;
  const frank = await connectedClient(t, { token: token({ sub: 'frank' }) });
  const { subscription: his } = await subscribed(frank, 'room:heard');
  const heard = [];
  his.on('join', () => heard.push('join')).on('leave', () => heard.push('leave'));
  his.unsubscribe();
  await until('the leave', () => news.length === 3);
  const back = event(his, 'subscribed');
  his.subscribe();
  await back;
  frank.disconnect();
  await until('the second leave', () => news.length === 5);
  assert.deepEqual(news, [['join', ''], ['join', 'frank'], ['leave', 'frank'], ['join', 'frank'], ['leave', 'frank']]);
  assert.deepEqual(heard, [], 'who does not ask hears nothing');
});

test('history is read forwards, backwards, and from a position', async (t) => {
  const client = await connectedClient(t);
  const redis = producer(t);
  for (const number of numbers(10)) {
    await redis.publish('kept:read', String(number));
  }
  const data = ({ publications }) => publications.map((publication) => decoded(publication.data));
  const { offset, epoch, publications } = await client.history('kept:read', { limit: 0 });
  assert.deepEqual([offset, epoch.length, publications], [10, 8, []]);
  assert.deepEqual(data(await client.history('kept:read', { limit: -1 })), numbers(10));
  assert.deepEqual(data(await client.history('kept:read', { limit: 3 })), [0, 1, 2]);
  assert.deepEqual(data(await client.history('kept:read', { limit: 3, reverse: true })), [9, 8, 7]);
  assert.deepEqual(data(await client.history('kept:read', { limit: 2, since: { offset: 4, epoch } })), [4, 5]);
  assert.deepEqual(data(await client.history('kept:read', { limit: 2, since: { offset: 4, epoch }, reverse: true })), [2, 1]);
  assert.deepEqual(data(await client.history('kept:read', { limit: -1, since: { offset: 10, epoch } })), []);
  await assert.rejects(client.history('kept:read', { limit: 1, since: { offset: 4, epoch: 'another' } }), { code: 112 });
  await assert.rejects(client.history('open:read', { limit: 1 }), { code: 108 });
});

test('a cache gives the latest publication at once, and after a cut', async (t) => {
  const redis = producer(t);
  for (const number of numbers(3)) {
    await redis.publish('latest:price', String(number));
  }
  const line = await Line.open(t);
  const client = await connectedClient(t, { url: line.url });
  const { subscription, received, context } = await subscribed(client, 'latest:price');
  assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
  await received.count(1);
  const lost = event(subscription, 'subscribing');
  line.cut();
  await lost;
  for (const number of numbers(5, 3)) {
    await redis.publish('latest:price', String(number));
  }
  const back = event(subscription, 'subscribed');
  line.mend();
  assert.equal((await back).recovered, true);
  await received.count(2);
  await redis.publish('latest:price', '8');
  await received.count(3);
  assert.deepEqual(received.data, [2, 7, 8]);
});

test('what the server subscribes a client to is recovered, too', async (t) => {
  const redis = producer(t);
  const line = await Line.open(t);
  const client = newClient(t, { url: line.url, token: token({ sub: 'grace', channels: ['kept:granted', 'room:granted'] }) });
  const received = new Received(client);
  const granted = new Map();
  client.on('subscribed', (context) => granted.set(context.channel, context));
  const connected = event(client, 'connected');
  client.connect();
  await connected;
  assert.deepEqual([...granted.keys()].sort(), ['#grace', 'kept:granted', 'room:granted']);
  assert.equal(granted.get('kept:granted').recoverable, true);
  await redis.publish('kept:granted', '0');
  await received.count(1);
  const lost = event(client, 'connecting');
  line.cut();
  await lost;
  await redis.publish('kept:granted', '1');
  const back = event(client, 'connected');
  line.mend();
  await back;
  assert.equal(granted.get('kept:granted').recovered, true);
  await redis.publish('kept:granted', '2');
  await received.count(3);
  assert.deepEqual(received.data, [0, 1, 2]);
});

test('a channel may be limited to the users that its name lists, and its name to an expression', async (t) => {
  const [heidi, ivan] = await Promise.all(['heidi', 'ivan'].map((sub) => connectedClient(t, { token: token({ sub }) })));
  await subscribed(heidi, 'room:talk#heidi,judy');
  for (const [client, channel, code] of [
    [ivan, 'room:talk#heidi,judy', 103],
    [ivan, 'latest:NOT-THIS', 107],
  ]) {
    const subscription = client.newSubscription(channel);
    const unsubscribed = event(subscription, 'unsubscribed');
    subscription.subscribe();
    assert.equal((await unsubscribed).code, code, channel);
  }
});

function producer(t) {
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  return redis;
}
