// Filters by tags: each subscription hears what passes its own, also of what it missed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { Line, connectedClient, event, ingestPort, newClient, numbers, subscribed } from './support.mjs';

const ticker = (name) => ({ key: 'ticker', cmp: 'eq', val: name });
const dear = { op: 'and', nodes: [{ key: 'price', cmp: 'gte', val: '50' }, { op: 'not', nodes: [ticker('DOGE')] }] };
const among = { key: 'ticker', cmp: 'in', vals: ['ETH', 'DOGE'] };
const names = ['BTC', 'ETH', 'DOGE'];

const tagsOf = (number) => ({ ticker: names[number % 3], price: String(number) });

test('each hears what passes its filter', async (t) => {
  const passes = [
    [ticker('BTC'), (tags) => tags.ticker === 'BTC'],
    [dear, (tags) => Number(tags.price) >= 50 && tags.ticker !== 'DOGE'],
    [among, (tags) => tags.ticker !== 'BTC'],
    [ticker('BTC'), (tags) => tags.ticker === 'BTC'],
    [null, () => true],
  ];
  const listeners = [];
  for (const [tagsFilter, passed] of passes) {
    const { received } = await subscribed(await connectedClient(t), 'ticker:each', { tagsFilter });
    listeners.push({ received, expected: numbers(100).filter((number) => passed(tagsOf(number))) });
  }
  await publish(t, 'ticker:each', numbers(100));
  for (const { received, expected } of listeners) {
    await received.count(expected.length);
    assert.deepEqual(received.data, expected);
    assert.deepEqual(received.publications.map(({ offset }) => offset), expected.map((number) => number + 1));
  }
});

test('what was missed passes the filter, too', async (t) => {
  const line = await Line.open(t);
  const client = await connectedClient(t, { url: line.url });
  const { subscription, received } = await subscribed(client, 'ticker:cut', { tagsFilter: ticker('ETH') });
  await publish(t, 'ticker:cut', numbers(10));
  await received.count(3);
  // Something that passes, then nothing that does: more in the end than history keeps since the last that passed.
  for (const missed of [numbers(20, 10), [30, 32, 33, 35], numbers(98).map((number) => 36 + 3 * number)]) {
    const lost = event(subscription, 'subscribing');
    line.cut();
    await lost;
    await publish(t, 'ticker:cut', missed);
    const back = event(subscription, 'subscribed');
    line.mend();
    assert.equal((await back).recovered, true);
  }
  await publish(t, 'ticker:cut', [1000]);
  const expected = [1, 4, 7, ...numbers(7).map((number) => 10 + 3 * number), 1000];
  await received.count(expected.length);
  assert.deepEqual(received.data, expected);
});

test('a filter that is not allowed, or that makes no sense, ends the subscription', async (t) => {
  const client = await connectedClient(t);
  for (const [channel, tagsFilter] of [
    ['kept:a', ticker('BTC')],
    ['ticker:a', { key: 'ticker', cmp: 'like', val: 'BTC' }],
    ['ticker:b', { op: 'and', nodes: [] }],
    ['ticker:c', { key: 'ticker', cmp: 'in', vals: numbers(300).map(String) }],
  ]) {
    const subscription = client.newSubscription(channel, { tagsFilter });
    const ended = event(subscription, 'unsubscribed');
    subscription.subscribe();
    assert.equal((await ended).code, 107);
  }
  const { received } = await subscribed(client, 'ticker:d', { tagsFilter: ticker('BTC') });
  await publish(t, 'ticker:d', [0]);
  await received.count(1);
  assert.throws(() => newClient(t).newSubscription('ticker:e', { tagsFilter: among, delta: 'fossil' }));
});

async function publish(t, channel, published) {
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  for (const number of published) {
    await redis.call('TG.PUBLISH', channel, String(number), 'TAGS', JSON.stringify(tagsOf(number)));
  }
}
