// Subscriptions that the server makes, as the official library lives with them: they come with the connection, recover
// by themselves, and go when the server says so.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Line, adminUrl, connectedClient, decoded, event, newClient, nowS, numbers, token, until } from './support.mjs';

const key = process.env.TEST_API_KEY;

/** The result of a call of the server API. */
async function call(method, params) {
  const init = { method: 'POST', headers: { 'X-API-Key': key }, body: JSON.stringify(params) };
  const { result, error } = await (await fetch(`${adminUrl}/api/${method}`, init)).json();
  assert.equal(error, undefined, JSON.stringify(error));
  return result;
}

/** What a client hears in its channels from the server's side, from its beginning on. */
function listen(client) {
  const heard = { publications: [], joins: [], leaves: [], subscribed: [], subscribing: [], unsubscribed: [] };
  client.on('publication', ({ channel, data, offset }) => heard.publications.push([channel, decoded(data), offset]));
  client.on('join', ({ channel, info }) => heard.joins.push([channel, info.user]));
  client.on('leave', ({ channel, info }) => heard.leaves.push([channel, info.user]));
  for (const name of ['subscribed', 'subscribing', 'unsubscribed']) {
    client.on(name, (context) => heard[name].push(context));
  }
  return heard;
}

async function connect(client) {
  const connected = event(client, 'connected');
  client.connect();
  await connected;
}

const claims = (sub, channel) => token({ sub, subs: { [channel]: { data: { for: sub } } } });

test('what was missed is recovered when the client is back, in order and once', async (t) => {
  const channel = 'stream:recovered';
  const line = await Line.open(t);
  const client = newClient(t, { url: line.url, token: claims('ann', channel) });
  const heard = listen(client);
  await connect(client);
  assert.equal(heard.subscribed.length, 1);
  const [first] = heard.subscribed;
  assert.deepEqual([first.channel, first.recoverable, first.positioned, decoded(first.data)], [channel, true, true, { for: 'ann' }]);
  const publish = async (from, to) => {
    for (const n of numbers(to - from, from)) {
      await call('publish', { channel, data: { n } });
    }
  };
  await publish(0, 10);
  await until('the first are there', () => heard.publications.length === 10);
  // Once something is missed, once nothing.
  for (const [from, to] of [[10, 60], [60, 60]]) {
    const lost = event(client, 'connecting');
    line.cut();
    await lost;
    await publish(from, to);
    const back = event(client, 'connected');
    line.mend();
    await back;
    const { wasRecovering, recovered } = heard.subscribed.at(-1);
    assert.deepEqual([wasRecovering, recovered], [true, true]);
    await until('what was missed is there', () => heard.publications.length >= to);
  }
  await publish(60, 70);
  await until('all are there', () => heard.publications.length >= 70);
  assert.deepEqual(heard.publications, numbers(70).map((n) => [channel, { n }, n + 1]));
});

test('a client learns that what it missed is gone', async (t) => {
  const channel = 'short:gone';
  const line = await Line.open(t);
  const client = newClient(t, { url: line.url, token: claims('ben', channel) });
  const heard = listen(client);
  await connect(client);
  await call('publish', { channel, data: 0 });
  await until('the first is there', () => heard.publications.length === 1);
  const lost = event(client, 'connecting');
  line.cut();
  await lost;
  for (const n of numbers(5, 1)) {
    await call('publish', { channel, data: n });
  }
  const back = event(client, 'connected');
  line.mend();
  await back;
  const { wasRecovering, recovered, streamPosition } = heard.subscribed.at(-1);
  assert.deepEqual([wasRecovering, recovered, streamPosition.offset], [true, false, 6]);
  await call('publish', { channel, data: 6 });
  await until('the next is there', () => heard.publications.length === 2);
  assert.deepEqual(heard.publications[1], [channel, 6, 7]);
});

test('a subscription that the next token does not have ends with the connection', async (t) => {
  let fetched = 0;
  const channels = ['stream:first', 'stream:second'];
  const client = newClient(t, { getToken: async () => claims('cem', channels[fetched++ % 2]) });
  const heard = listen(client);
  await connect(client);
  const back = event(client, 'connected');
  // Its token and all that it knows are to be forgotten.
  await call('disconnect', { user: 'cem', disconnect: { code: 3014, reason: 'state invalidated' } });
  await back;
  assert.deepEqual(heard.subscribed.map(({ channel }) => channel), channels);
  assert.deepEqual(heard.unsubscribed.map(({ channel }) => channel), [channels[0]]);
});

test('they come, hear who is there, and go while the client is connected', async (t) => {
  const channel = 'stream:live';
  const client = newClient(t, { token: token({ sub: 'dan' }) });
  const heard = listen(client);
  await connect(client);
  await call('publish', { channel, data: 'before' });
  await call('subscribe', { user: 'dan', channel, data: { hello: 1 } });
  await until('the subscription is there', () => heard.subscribed.length === 1);
  assert.deepEqual([heard.subscribed[0].channel, decoded(heard.subscribed[0].data)], [channel, { hello: 1 }]);
  const other = await connectedClient(t, { token: token({ sub: 'eva', subs: { [channel]: {} } }) });
  await until('both joins are heard', () => heard.joins.length === 2);
  assert.deepEqual(heard.joins, [[channel, 'dan'], [channel, 'eva']]);
  await call('publish', { channel, data: 'now' });
  other.disconnect();
  await until('the leave is heard', () => heard.leaves.length === 1);
  assert.deepEqual([heard.leaves, heard.publications], [[[channel, 'eva']], [[channel, 'now', 2]]]);
  await call('unsubscribe', { user: 'dan', channel });
  await until('the end is heard', () => heard.unsubscribed.length === 1);
  assert.equal(heard.unsubscribed[0].channel, channel);
  await call('publish', { channel, data: 'behind' });
  await call('publish', { channel: 'stream:sentinel', data: 1 });
  await call('subscribe', { user: 'dan', channel: 'stream:sentinel', recover_since: { offset: 0, epoch: '' } });
  await until('something else is heard', () => heard.publications.length === 2);
  assert.equal(heard.publications[1][0], 'stream:sentinel');
});

test('where deltas are published they come whole, for the library keeps no base for them', async (t) => {
  const channel = 'delta:whole';
  const client = newClient(t, { token: claims('fay', channel) });
  const heard = listen(client);
  await connect(client);
  const payloads = numbers(5).map((n) => ({ n, same: 'as ever '.repeat(20) }));
  for (const data of payloads) {
    await call('publish', { channel, data, delta: true });
  }
  await until('all are there', () => heard.publications.length === 5);
  assert.deepEqual(heard.publications.map(([, data]) => data), payloads);
});

test('one that expires takes its client back for a new token', async (t) => {
  let fetched = 0;
  const channel = 'stream:lease';
  const client = newClient(t, {
    getToken: async () => {
      fetched += 1;
      return token({ sub: 'gus', subs: { [channel]: { expire_at: fetched === 1 ? nowS() + 1 : 0 } } });
    },
  });
  const heard = listen(client);
  await connect(client);
  const { code } = await event(client, 'connecting');
  assert.equal(code, 3006);
  await event(client, 'connected');
  assert.equal(heard.subscribed.length, 2);
});
