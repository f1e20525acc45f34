// Every method of the server API: what it answers, and what the clients that it acts on see of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import {
  Received, adminUrl, connectedClient, event, ingestPort, metric, newClient, nowS, numbers, subscribed, token, until,
} from './support.mjs';

const key = process.env.TEST_API_KEY;

/** A request as it is: status, headers, text. */
async function request(path, body = '{}', { headers = { 'X-API-Key': key }, method = 'POST' } = {}) {
  const content = method === 'POST' ? { body } : {};
  const response = await fetch(`${adminUrl}${path}`, { method, headers, ...content });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/** The answer to a call, whatever it is. */
async function call(method, params = {}) {
  const { status, text } = await request(`/api/${method}`, JSON.stringify(params));
  assert.equal(status, 200, text);
  return JSON.parse(text);
}

/** The result of a call that succeeds. */
async function result(method, params = {}) {
  const answer = await call(method, params);
  assert.deepEqual(Object.keys(answer), ['result'], JSON.stringify(answer));
  return answer.result;
}

const badRequest = { error: { code: 107, message: 'bad request' } };
const unknownChannel = { error: { code: 102, message: 'unknown channel' } };
const notFound = { error: { code: 104, message: 'not found' } };
const notAvailable = { error: { code: 108, message: 'not available' } };

test('a request shows a key and has the form of its method', async () => {
  for (const [headers, path, status] of [
    [{ 'X-API-Key': key }, '/api/info', 200],
    [{ 'X-API-Key': 'another key' }, '/api/info', 200],
    [{ Authorization: `apikey ${key}` }, '/api/info', 200],
    [{}, `/api/info?api_key=${encodeURIComponent(key)}`, 200],
    [{}, '/api/info', 401],
    [{ 'X-API-Key': 'wrong' }, '/api/info', 401],
    [{ Authorization: `Bearer ${key}` }, '/api/info', 401],
    [{}, '/api/nothing', 401],
    [{ 'X-API-Key': key }, '/api/nothing', 404],
    [{ 'X-API-Key': key }, '/api/publish/more', 404],
  ]) {
    const answer = await request(path, '{}', { headers });
    assert.equal(answer.status, status, `${path} ${JSON.stringify(headers)}`);
    if (status === 401) {
      assert.equal(answer.text, '');
    }
  }
  const wrongMethod = await request('/api/info', undefined, { method: 'GET' });
  assert.deepEqual([wrongMethod.status, wrongMethod.headers.get('allow')], [405, 'POST']);
  for (const body of ['', 'x', '[]', '{"channel":1}', '{"channel":"open:a","data":']) {
    const { status, text } = await request('/api/publish', body);
    assert.deepEqual([status, text], [400, 'Bad Request\n'], body);
  }
  const { headers } = await request('/api/info');
  assert.equal(headers.get('content-type'), 'application/json');
  assert.equal((await request('/api/publish', 'x'.repeat(33 * 1024 * 1024))).status, 413);
});

test('errors are told in the body, or by the status if it is asked for', async () => {
  const transport = { 'X-API-Key': key, 'X-Centrifugo-Error-Mode': 'transport' };
  for (const [method, params, status, code] of [
    ['publish', { channel: 'nowhere:a', data: 1 }, 404, 102],
    ['rpc', { method: 'any' }, 404, 104],
    ['publish', {}, 400, 107],
    ['history', { channel: 'open:a' }, 400, 108],
    ['history', { channel: 'room:errors', limit: 1, since: { offset: 1, epoch: 'other' } }, 416, 112],
  ]) {
    assert.equal((await call(method, params)).error.code, code, method);
    const { status: told, text } = await request(`/api/${method}`, JSON.stringify(params), { headers: transport });
    assert.deepEqual([told, JSON.parse(text).code], [status, code], method);
  }
  const { status, text } = await request('/api/publish', '{"channel":"open:a","data":1}', { headers: transport });
  assert.deepEqual([status, text], [200, '{"result":{}}']);
});

test('publish', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'alice' }) });
  const { received } = await subscribed(client, 'room:publish');
  const first = await result('publish', { channel: 'room:publish', data: { a: 1 }, tags: { b: 'c' } });
  assert.equal(first.offset, 1);
  assert.equal(first.epoch.length, 8);
  await result('publish', { channel: 'room:publish', data: 'not this', b64data: Buffer.from('[2]').toString('base64') });
  assert.equal((await result('publish', { channel: 'room:publish', data: null })).offset, 3);
  assert.deepEqual(await result('publish', { channel: 'room:publish', data: 4, skip_history: true }), {});
  const once = { channel: 'room:publish', data: 5, idempotency_key: 'once' };
  const answers = [await result('publish', once), await result('publish', once)];
  assert.deepEqual(answers[0], answers[1]);
  const versioned = (version, version_epoch) =>
    result('publish', { channel: 'room:publish', data: version, version, version_epoch });
  assert.equal((await versioned(10, 'v')).offset, 5);
  assert.equal((await versioned(9, 'v')).offset, 5);
  assert.equal((await versioned(10)).offset, 5);
  assert.equal((await versioned(1, 'w')).offset, 6);
  await received.count(7);
  assert.deepEqual(received.data, [{ a: 1 }, [2], null, 4, 5, 10, 1]);
  assert.deepEqual(received.publications[0].tags, { b: 'c' });
  assert.deepEqual(await result('publish', { channel: 'open:publish', data: 1 }), {});
  for (const params of [
    {}, { channel: 'open:a' }, { data: 1 }, { channel: 'x'.repeat(256), data: 1 }, { channel: 'open:a', b64data: '!' },
    { channel: 'open:a', b64data: Buffer.from('no JSON').toString('base64') },
    { channel: 'open:a', data: 1, idempotency_key: 'x'.repeat(256) },
  ]) {
    assert.deepEqual(await call('publish', params), badRequest, JSON.stringify(params));
  }
  assert.deepEqual(await call('publish', { channel: 'nowhere:a', data: 1 }), unknownChannel);
  await result('publish', { channel: 'bytes:a', b64data: Buffer.from('no JSON').toString('base64') });
});

test('broadcast', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'alice' }) });
  const channels = numbers(20).map((number) => `room:broadcast${number}`);
  const all = await Promise.all(channels.map((channel) => subscribed(client, channel)));
  const { responses } = await result('broadcast', { channels: [...channels, 'nowhere:a', 'open:b', ''], data: { to: 'all' } });
  assert.equal(responses.length, 23);
  assert.ok(responses.slice(0, 20).every((response) => response.result.offset === 1), JSON.stringify(responses));
  assert.deepEqual(responses.slice(20), [unknownChannel, { result: {} }, badRequest]);
  await Promise.all(all.map(({ received }) => received.count(1)));
  assert.ok(all.every(({ received }) => received.data[0].to === 'all'));
  assert.deepEqual(await call('broadcast', { data: 1 }), badRequest);
  assert.deepEqual(await call('broadcast', { channels: ['open:a'] }), badRequest);
});

test('subscribe and unsubscribe', async (t) => {
  const clients = await Promise.all(numbers(6).map(() => connectedClient(t, { token: token({ sub: 'bob' }) })));
  const stranger = await connectedClient(t, { token: token({ sub: 'eve' }) });
  const strange = [];
  stranger.on('subscribed', ({ channel }) => strange.push(channel));
  const all = clients.map((client) => new Received(client));
  const told = clients.map((client) => new Promise((resolve) => {
    client.on('subscribed', (context) => context.channel === 'room:made' && resolve(context));
  }));
  await result('publish', { channel: 'room:made', data: 'before' });
  await result('subscribe', {
    user: 'bob', channel: 'room:made', data: { hello: 'bob' }, info: { in: 'room' }, recover_since: { offset: 0, epoch: '' },
  });
  // Whoever has the answer reaches them all.
  await result('publish', { channel: 'room:made', data: 'after' });
  for (const context of await Promise.all(told)) {
    assert.deepEqual([context.data, context.recoverable], [{ hello: 'bob' }, true]);
  }
  await Promise.all(all.map((received) => received.count(2)));
  assert.ok(all.every(({ data }) => data.join() === 'before,after'));
  const { presence } = await result('presence', { channel: 'room:made' });
  assert.equal(Object.keys(presence).length, 6);
  for (const [id, info] of Object.entries(presence)) {
    assert.deepEqual(info, { user: 'bob', client: id, chan_info: { in: 'room' } });
  }
  assert.deepEqual(await result('presence_stats', { channel: 'room:made' }), { num_clients: 6, num_users: 1 });
  // Made without presence, nobody is seen.
  await result('subscribe', { user: 'bob', channel: 'room:unseen', override: { presence: { value: false } } });
  assert.deepEqual(await result('presence_stats', { channel: 'room:unseen' }), { num_clients: 0, num_users: 0 });

  const ids = Object.keys(presence);
  const left = clients.map((client) => {
    const channels = [];
    client.on('unsubscribed', ({ channel }) => channels.push(channel));
    return channels;
  });
  await result('unsubscribe', { user: 'bob', channel: 'room:made', client: ids[0] });
  assert.deepEqual(await result('presence_stats', { channel: 'room:made' }), { num_clients: 5, num_users: 1 });
  await result('unsubscribe', { user: 'bob' });
  await until('all to have left', () => left.every((channels) => channels.length === 3));
  assert.deepEqual(await result('presence_stats', { channel: 'room:made' }), { num_clients: 0, num_users: 0 });
  assert.ok(left.every((channels) => [...channels].sort().join() === '#bob,room:made,room:unseen'));
  assert.deepEqual(strange.filter((channel) => channel !== '#eve'), []);

  assert.deepEqual(await result('subscribe', { user: 'nobody', channel: 'room:made' }), {});
  assert.deepEqual(await result('unsubscribe', { user: 'nobody', channel: 'room:made' }), {});
  for (const [method, params, expected] of [
    ['subscribe', { user: 'bob' }, badRequest],
    ['subscribe', { user: 'bob', channel: 'nowhere:a' }, unknownChannel],
    ['subscribe', { user: 'bob', channel: 'room:a', b64info: '!' }, badRequest],
    ['subscribe', { user: 'bob', channel: 'room:a', b64data: Buffer.from('x').toString('base64') }, badRequest],
    ['unsubscribe', { user: 'bob', channel: 'nowhere:a' }, unknownChannel],
  ]) {
    assert.deepEqual(await call(method, params), expected, JSON.stringify(params));
  }
});

test('a client subscribes itself, the server ends it', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'carol' }) });
  const { subscription } = await subscribed(client, 'room:own');
  const unsubscribed = event(subscription, 'unsubscribed');
  await result('unsubscribe', { user: 'carol', channel: 'room:own' });
  assert.deepEqual((({ code, reason }) => [code, reason])(await unsubscribed), [2000, 'server unsubscribe']);
});

test('disconnect', async (t) => {
  const clients = await Promise.all(numbers(4).map(() => connectedClient(t, { token: token({ sub: 'dave' }) })));
  const anonymous = await connectedClient(t);
  await Promise.all(clients.map((client) => subscribed(client, 'room:dave')));
  const { presence } = await result('presence', { channel: 'room:dave' });
  const [spared, named, ...others] = Object.keys(presence);
  const ended = [];
  clients.forEach((client) => client.on('disconnected', ({ code, reason }) => ended.push(`${code} ${reason}`)));
  for (const nobody of [{ user: 'nobody' }, { user: 'dave', client: 'nobody' }, { user: 'dave', session: 'nothing' }, { user: '', client: named }]) {
    assert.deepEqual(await result('disconnect', nobody), {});
  }
  await result('disconnect', { user: 'dave', client: named, disconnect: { code: 4501, reason: 'one' } });
  await until('one to go', () => ended.length === 1);
  await result('disconnect', { user: 'dave', whitelist: [spared] });
  await until('the others to go', () => ended.length === 3);
  assert.equal(others.length, 2);
  assert.deepEqual(ended, ['4501 one', '3503 force disconnect', '3503 force disconnect']);
  assert.deepEqual(Object.keys((await result('presence', { channel: 'room:dave' })).presence), [spared]);
  for (const disconnect of [{ code: 1000, reason: 'x' }, { code: 5000, reason: 'x' }, {}, { code: 4000, reason: 'x'.repeat(124) }]) {
    assert.deepEqual(await call('disconnect', { user: 'dave', disconnect }), badRequest, JSON.stringify(disconnect));
  }
  // A code that SDKs come back after.
  const again = event(anonymous, 'connecting');
  await result('disconnect', { user: '', disconnect: { code: 3011, reason: 'force reconnect' } });
  assert.equal((await again).code, 3011);
  await event(anonymous, 'connected');
});

test('after every disconnect code clients come back or stay away as its range says', async (t) => {
  const comeBack = [3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3499, 4000, 4499];
  const stayAway = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509, 3999, 4500, 4999];
  await Promise.all([...comeBack, ...stayAway].map(async (code) => {
    const user = `code-${code}`;
    const client = await connectedClient(t, { getToken: () => token({ sub: user }) });
    const told = ['connecting', 'disconnected'].map((name) => event(client, name).then((context) => ({ name, ...context })));
    await result('disconnect', { user, disconnect: { code, reason: `because of ${code}` } });
    const { name, ...context } = await Promise.race(told);
    assert.deepEqual([context.code, context.reason], [code, `because of ${code}`]);
    assert.equal(name, comeBack.includes(code) ? 'connecting' : 'disconnected', code);
    if (comeBack.includes(code)) {
      await event(client, 'connected');
    }
  }));
});

test('disconnect as producers ask for it', async (t) => {
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  const clients = await Promise.all(numbers(3).map(() => connectedClient(t, { token: token({ sub: 'frank' }) })));
  await Promise.all(clients.map((client) => subscribed(client, 'room:frank')));
  const [named] = Object.keys((await result('presence', { channel: 'room:frank' })).presence);
  const ended = clients.map((client) => event(client, 'disconnected'));
  assert.equal(await redis.call('TG.DISCONNECT', 'frank', named), 1);
  await Promise.race(ended);
  assert.equal(await redis.call('TG.DISCONNECT', 'frank'), 2);
  assert.deepEqual((await Promise.all(ended)).map(({ code }) => code), [3503, 3503, 3503]);
  assert.equal(await redis.call('TG.DISCONNECT', 'frank'), 0);
  const versioned = (...options) => redis.call('TG.PUBLISH', 'room:versions', '1', ...options);
  assert.deepEqual((await versioned('VERSION', '7'))[0], 1);
  assert.deepEqual((await versioned('VERSION', '7'))[0], 1);
  assert.deepEqual((await versioned('VERSION', '1', 'VERSIONEPOCH', 'other'))[0], 2);
});

test('refresh', async (t) => {
  const client = newClient(t, { token: token({ sub: 'grace', exp: nowS() + 1000 }), getToken: async () => token({ sub: 'grace' }) });
  const connected = event(client, 'connected');
  client.connect();
  await connected;
  assert.deepEqual(await result('refresh', { user: 'grace', expire_at: nowS() + 500, info: { changed: true } }), {});
  await subscribed(client, 'room:grace');
  const { presence } = await result('presence', { channel: 'room:grace' });
  assert.deepEqual(Object.values(presence)[0].conn_info, { changed: true });
  assert.deepEqual(await result('refresh', { user: 'nobody', expire_at: 1 }), {});
  const lost = event(client, 'connecting');
  await result('refresh', { user: 'grace', expired: true });
  assert.equal((await lost).code, 3005);
});

test('history and history_remove', async () => {
  for (const number of numbers(12)) {
    await result('publish', { channel: 'room:history', data: number, tags: { number: String(number) } });
  }
  const history = (params) => result('history', { channel: 'room:history', ...params });
  const position = await history({});
  assert.deepEqual(Object.keys(position), ['publications', 'epoch', 'offset']);
  assert.deepEqual([position.publications, position.offset], [[], 12]);
  const { publications } = await history({ limit: -1 });
  assert.deepEqual(publications.map(({ data }) => data), numbers(10, 2));
  assert.deepEqual(publications[0], { data: 2, offset: 3, tags: { number: '2' } });
  const data = async (params) => (await history(params)).publications.map((publication) => publication.data);
  assert.deepEqual(await data({ limit: 2 }), [2, 3]);
  assert.deepEqual(await data({ limit: 2, reverse: true }), [11, 10]);
  assert.deepEqual(await data({ limit: 2, since: { offset: 5, epoch: position.epoch } }), [5, 6]);
  assert.deepEqual(await data({ limit: 2, since: { offset: 5, epoch: position.epoch }, reverse: true }), [3, 2]);
  for (const since of [{ offset: 1, epoch: position.epoch }, { offset: 5, epoch: 'other' }]) {
    assert.equal((await call('history', { channel: 'room:history', limit: 1, since })).error.code, 112);
  }
  assert.deepEqual(await result('history_remove', { channel: 'room:history' }), {});
  assert.deepEqual(await history({ limit: -1 }), { publications: [], epoch: position.epoch, offset: 12 });
  for (const method of ['history', 'history_remove']) {
    assert.deepEqual(await call(method, {}), badRequest);
    assert.deepEqual(await call(method, { channel: 'nowhere:a' }), unknownChannel);
    assert.deepEqual(await call(method, { channel: 'open:a' }), notAvailable);
  }
});

test('presence', async () => {
  assert.deepEqual(await result('presence', { channel: 'room:nobody' }), { presence: {} });
  for (const method of ['presence', 'presence_stats']) {
    assert.deepEqual(await call(method, {}), badRequest);
    assert.deepEqual(await call(method, { channel: 'nowhere:a' }), unknownChannel);
    assert.deepEqual(await call(method, { channel: 'open:a' }), notAvailable);
  }
});

const figures = async () => (await result('info')).nodes[0];

test('channels and info', async (t) => {
  // Of the tests before.
  await until('nobody is there', async () => (await figures()).num_clients === 0);
  const clients = await Promise.all(numbers(5).map(() => connectedClient(t, { token: token({ sub: 'heidi' }) })));
  await Promise.all(clients.map((client) => subscribed(client, 'open:listed')));
  await subscribed(clients[0], 'open:other');
  assert.deepEqual(await result('channels', { pattern: 'open:l*' }), { channels: { 'open:listed': { num_clients: 5 } } });
  const { channels } = await result('channels');
  assert.equal(channels['open:other'].num_clients, 1);
  assert.equal(channels['#heidi'].num_clients, 5);
  const { nodes: [node, ...others] } = await result('info');
  assert.deepEqual(others, []);
  assert.ok(node.uid && node.name && node.version, JSON.stringify(node));
  assert.equal(typeof node.uptime, 'number');
  // Whichever shards they are on, a user and a channel count once.
  const { num_clients, num_users, num_channels, num_subs } = node;
  assert.deepEqual({ num_clients, num_users, num_channels, num_subs }, { num_clients: 5, num_users: 1, num_channels: 3, num_subs: 11 });
  await Promise.all(numbers(4).map((n) => connectedClient(t, { token: token({ sub: `ivan-${n % 2}` }) })));
  const more = await figures();
  assert.deepEqual([more.num_clients, more.num_users, more.num_channels], [9, 3, 5]);
});

test('rpc has no methods', async () => {
  assert.deepEqual(await call('rpc', {}), badRequest);
  assert.deepEqual(await call('rpc', { method: 'any', params: {} }), notFound);
});

test('batch', async () => {
  for (const parallel of [false, true]) {
    const channel = `room:batch-${parallel}`;
    const { replies } = await result('batch', {
      parallel,
      commands: [
        { publish: { channel, data: 1 } },
        { publish: { channel: 'nowhere:a', data: 1 } },
        { presence_stats: { channel } },
        { disconnect: { user: 'nobody' } },
      ],
    });
    assert.equal(replies[0].publish.offset, 1);
    assert.deepEqual(replies.slice(1), [unknownChannel, { presence_stats: { num_clients: 0, num_users: 0 } }, { disconnect: {} }]);
  }
  assert.deepEqual(await result('batch', {}), { replies: [] });
  assert.equal((await request('/api/batch', '{"commands":[{"publish":{"channel":1}}]}')).status, 400);
  // One after the other, the offsets are in order.
  const many = numbers(100).map((number) => ({ publish: { channel: 'room:many', data: number } }));
  const { replies } = await result('batch', { commands: many });
  assert.deepEqual(replies.map(({ publish }) => publish.offset), numbers(100, 1));
});

test('the legacy form', async () => {
  const lines = [
    { method: 'publish', params: { channel: 'open:legacy', data: 1 } },
    { method: 'presence', params: { channel: 'open:legacy' } },
    { method: 'nothing' },
    { method: 'publish', params: { channel: 1 } },
    { method: 'channels' },
  ];
  for (const path of ['/api', '/api/']) {
    const { status, text } = await request(path, lines.map((line) => JSON.stringify(line)).join('\n'));
    assert.equal(status, 200);
    const answers = text.split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(answers.slice(0, 4), [{ result: {} }, notAvailable, notFound, badRequest]);
    assert.ok(answers[4].result.channels);
  }
  for (const body of ['', '{"method":', '[]', '{"method":1}']) {
    assert.equal((await request('/api', body)).status, 400, body);
  }
});

test('many requests at once are all answered', async (t) => {
  const client = await connectedClient(t, { token: token({ sub: 'ivan' }) });
  const { received } = await subscribed(client, 'room:busy');
  const commands = (from) => numbers(50, from).map((number) => ({ publish: { channel: 'room:busy', data: number } }));
  const answers = await Promise.all(numbers(40).map((batch) => result('batch', { commands: commands(batch * 50), parallel: true })));
  assert.ok(answers.every(({ replies }) => replies.every(({ publish }) => publish.offset > 0)));
  await received.count(2000);
  assert.deepEqual([...received.data].sort((one, other) => one - other), numbers(2000));
  assert.deepEqual(received.publications.map(({ offset }) => offset), numbers(2000, 1));
});

test('calls are counted by method and end, and so is what was no call', async () => {
  const series = {
    published: ['calls_total', 'method="publish",outcome="result"'],
    unknown: ['calls_total', 'method="publish",outcome="unknown_channel"'],
    batches: ['calls_total', 'method="batch",outcome="result"'],
    absent: ['calls_total', 'method="history",outcome="not_available"'],
    strangers: ['rejections_total', 'reason="unauthorized"'],
    methods: ['rejections_total', 'reason="unknown_method"'],
    unreadable: ['rejections_total', 'reason="unreadable"'],
    seconds: ['call_seconds_total', 'method="publish"'],
  };
  const counted = async () => Object.fromEntries(await Promise.all(
    Object.entries(series).map(async ([name, [family, labels]]) => [name, await metric(`tidegate_api_${family}`, labels)]),
  ));
  const before = await counted();
  await result('publish', { channel: 'open:counted', data: 1 });
  await call('publish', { channel: 'nowhere:a', data: 1 });
  await call('history', { channel: 'open:a' });
  await result('batch', { commands: [{ publish: { channel: 'open:counted', data: 1 } }, { publish: { channel: 'nowhere:a', data: 1 } }] });
  await request('/api/info', '{}', { headers: { 'X-API-Key': 'wrong' } });
  await request('/api/nothing');
  await request('/api', '{"method":"nothing"}');
  await request('/api/publish', 'x');
  const after = await counted();
  const grown = Object.fromEntries(Object.keys(series).map((name) => [name, after[name] - before[name]]));
  assert.ok(grown.seconds > 0 && grown.seconds < 20, grown.seconds);
  assert.deepEqual({ ...grown, seconds: 0 }, {
    published: 2, unknown: 2, batches: 1, absent: 1, strangers: 1, methods: 2, unreadable: 1, seconds: 0,
  });
});
