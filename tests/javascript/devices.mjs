// Several devices of one user: listed, told apart, addressed, ended but for some, and not more than there may be.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { adminUrl, connectedClient, decoded, event, ingestPort, newClient, subscribed, token, until } from './support.mjs';

async function api(method, request) {
  const response = await fetch(`${adminUrl}/api/${method}`, {
    method: 'POST',
    headers: { 'X-API-Key': process.env.TEST_API_KEY },
    body: JSON.stringify(request),
  });
  assert.equal(response.status, 200);
  return response.json();
}

function producer(t) {
  const redis = new Redis({ port: ingestPort, lazyConnect: false });
  t.after(() => redis.disconnect());
  return redis;
}

/** A client of the user, and its id. */
async function device(t, user, { meta, ...options } = {}) {
  const client = newClient(t, { token: token({ sub: user, meta }), ...options });
  const connected = event(client, 'connected');
  client.connect();
  return { client, id: (await connected).client };
}

const listed = async (user) => (await api('connections', { user })).result.connections;

test('devices are listed with what they say of themselves and what tokens say of them', async (t) => {
  const phone = await device(t, 'ann', { name: 'phone', version: '1.2', meta: { plan: 'gold' } });
  const tablet = await device(t, 'ann');
  await device(t, 'bob');
  await subscribed(tablet.client, 'open:news');
  const devices = await listed('ann');
  assert.equal(devices.length, 2);
  const [first, second] = [phone, tablet].map(({ id }) => devices.find((one) => one.client === id));
  const protocol = process.env.TEST_ENCODING;
  const expected = { transport: 'websocket', protocol, name: 'phone', version: '1.2', attributes: { plan: 'gold' }, channels: ['#ann'] };
  assert.deepEqual(first, { client: phone.id, ...expected });
  assert.deepEqual([second.name, second.attributes, second.channels], ['js', undefined, ['#ann', 'open:news']]);
  const reply = await producer(t).call('TG.CONNECTIONS', 'ann');
  const clients = reply.map((pairs) => pairs[pairs.indexOf('client') + 1]);
  assert.deepEqual(clients.toSorted(), [phone.id, tablet.id].toSorted());
  assert.deepEqual(await listed('nobody'), []);
});

test('attributes are changed by the back end and bounded', async (t) => {
  const devices = [await device(t, 'carl', { meta: { a: 1 } }), await device(t, 'carl')];
  const attributes = async () => {
    const found = await listed('carl');
    return devices.map(({ id }) => found.find((one) => one.client === id).attributes);
  };
  const updated = await api('update_attributes', { user: 'carl', attributes: { b: 2 } });
  assert.deepEqual(updated, { result: { updated: 2, refused: 0 } });
  assert.deepEqual(await attributes(), [{ a: 1, b: 2 }, { b: 2 }]);
  const redis = producer(t);
  assert.equal(await redis.call('TG.ATTRIBUTES', 'carl', devices[0].id, '{"a":null,"c":{"d":3}}'), 1);
  assert.deepEqual(await attributes(), [{ b: 2, c: { d: 3 } }, { b: 2 }]);
  assert.equal(await redis.call('TG.ATTRIBUTES', 'carl', '*', '{"b":null,"c":null}'), 2);
  assert.deepEqual(await attributes(), [undefined, undefined]);
  for (const wrong of [[1], { long: 'x'.repeat(200) }]) {
    assert.equal((await api('update_attributes', { user: 'carl', attributes: wrong })).error.code, 107);
    await assert.rejects(redis.call('TG.ATTRIBUTES', 'carl', '*', JSON.stringify(wrong)), /^ReplyError: ERR attributes /);
  }
});

test('one device is ended, or all but some', async (t) => {
  const [first, second, third] = [await device(t, 'dora'), await device(t, 'dora'), await device(t, 'dora')];
  const ended = event(first.client, 'disconnected');
  await api('disconnect', { user: 'dora', client: first.id });
  assert.equal((await ended).code, 3503);
  const others = event(second.client, 'disconnected');
  await api('disconnect', { user: 'dora', whitelist: [third.id], disconnect: { code: 4500, reason: 'one device' } });
  assert.equal((await others).code, 4500);
  assert.deepEqual((await listed('dora')).map(({ client }) => client), [third.id]);
  const received = new Promise((resolve) => third.client.once('publication', (context) => resolve(decoded(context.data))));
  await producer(t).call('TG.SEND', 'dora', '{"to":"who is left"}');
  assert.deepEqual(await received, { to: 'who is left' });
});

test('a user has no more devices than there may be', async (t) => {
  const limit = Number(process.env.TEST_USER_CONNECTIONS_MAX);
  const clients = Array.from({ length: limit + 3 }, () => newClient(t, { token: token({ sub: 'eve' }) }));
  const ends = clients.map((client) => Promise.race([event(client, 'connected').then(() => 'connected'), event(client, 'disconnected').then(({ code }) => code)]));
  clients.forEach((client) => client.connect());
  const outcomes = await Promise.all(ends);
  assert.equal(outcomes.filter((outcome) => outcome === 'connected').length, limit);
  assert.equal(outcomes.filter((outcome) => outcome === 3504).length, 3);
  clients.find((client) => client.state === 'connected').disconnect();
  await until('there is room again', async () => (await listed('eve')).length < limit || null);
  await connectedClient(t, { token: token({ sub: 'eve' }) });
});
