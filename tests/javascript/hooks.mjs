// The application's back end, as a web server of this script, asked about clients of the official library.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  connectedClient, decoded, encoding, event, metric, newClient, nowS, numbers, subscribed, token, until,
} from './support.mjs';

const isBinary = process.env.TEST_BINARY === '1';
const port = Number(process.env.TEST_HOOKS_PORT);

// What the back end answers, by hook, and what it was asked.
const answers = {};
const asked = [];
const allow = () => ({ result: {} });

const web = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) {
    chunks.push(chunk);
  }
  const hook = request.url.slice(1);
  const body = JSON.parse(Buffer.concat(chunks));
  asked.push({ hook, body, headers: request.headers, method: request.method });
  const answer = await (answers[hook] ?? allow)(body);
  response.statusCode = answer.status ?? 200;
  response.end(answer.text ?? JSON.stringify(answer));
});

async function listen() {
  web.listen(port, '127.0.0.1');
  await once(web, 'listening');
}

test.before(listen);
test.after(() => {
  web.close();
  web.closeAllConnections();
});
test.beforeEach(() => {
  Object.keys(answers).forEach((hook) => delete answers[hook]);
  answers.connect = () => ({ result: { user: 'alice' } });
  asked.length = 0;
});

const questions = (hook) => asked.filter((one) => one.hook === hook);
const never = () => new Promise(() => {});

/** What a client of this encoding says for a JSON value. */
const said = (value) => (encoding === 'json' ? value : new TextEncoder().encode(JSON.stringify(value)));

/** A client without a token that has connected, and what it was told. */
async function connected(t, options = {}) {
  const client = newClient(t, options);
  const answered = event(client, 'connected');
  client.connect();
  return { client, context: await answered };
}

const failure = (promise) => promise.then(() => assert.fail('it succeeded'), (error) => error);

test('payloads of Protobuf clients are any bytes, in base64', { skip: !isBinary }, async (t) => {
  answers.rpc = ({ b64data }) => ({ result: { b64data: Buffer.from(b64data, 'base64').reverse().toString('base64') } });
  answers.subscribe = () => ({ result: { b64data: '/wA=' } });
  const { client } = await connected(t, { data: Uint8Array.of(255) });
  assert.deepEqual([questions('connect')[0].body.b64data, questions('connect')[0].body.encoding], ['/w==', 'binary']);
  assert.deepEqual((await client.rpc('reverse', Uint8Array.of(255, 0, 1))).data, Uint8Array.of(1, 0, 255));
  const { context } = await subscribed(client, 'asked:bytes');
  assert.deepEqual(context.data, Uint8Array.of(255, 0));
});

test('a client is whom the back end says', { skip: isBinary }, async (t) => {
  answers.connect = () => ({
    result: {
      user: 'alice', info: { name: 'Alice' }, data: { hello: 1 }, meta: { tenant: 7 },
      subs: { 'open:granted': { data: { by: 'hook' } } },
    },
  });
  const client = newClient(t, { data: said({ from: 'page' }), name: 'shop', headers: { 'X-Tenant': 'seven' } });
  const granted = new Map();
  client.on('subscribed', ({ channel, data }) => granted.set(channel, data));
  const answered = event(client, 'connected');
  client.connect();
  const context = await answered;
  assert.deepEqual(decoded(context.data), { hello: 1 });
  await until('the subscriptions are there', () => granted.size === 2);
  assert.deepEqual(decoded(granted.get('open:granted')), { by: 'hook' });
  const [{ body, headers, method }] = questions('connect');
  assert.equal(method, 'POST');
  assert.deepEqual(
    [headers['content-type'], headers.authorization, headers['x-tenant']],
    ['application/json', 'Bearer the hooks secret', 'seven'],
  );
  assert.equal(body.client, context.client);
  const { transport, protocol, data, name } = body;
  assert.deepEqual([transport, protocol, body.encoding, data, name], ['websocket', encoding, 'json', { from: 'page' }, 'shop']);
  assert.equal(body.user, undefined);

  answers.rpc = (question) => ({ result: { data: [question.user, question.meta, question.method] } });
  const { data: told } = await client.rpc('who', said({}));
  assert.deepEqual(decoded(told), ['alice', { tenant: 7 }, 'who']);
  assert.equal(questions('rpc')[0].headers['x-tenant'], 'seven');
});

test('a client with a token is not asked about', { skip: isBinary }, async (t) => {
  await connectedClient(t, { token: token({ sub: 'bob' }) });
  assert.equal(questions('connect').length, 0);
});

test('a client may be refused and sent away', { skip: isBinary }, async (t) => {
  for (const [answer, expected] of [
    [{ error: { code: 1100, message: 'closed today' } }, [1100, 'closed today']],
    [{ disconnect: { code: 4501, reason: 'banned' } }, [4501, 'banned']],
  ]) {
    answers.connect = () => answer;
    const client = newClient(t);
    const disconnected = event(client, 'disconnected');
    client.connect();
    const { code, reason } = await disconnected;
    assert.deepEqual([code, reason], expected);
  }
});

test('a back end that fails makes clients come back', { skip: isBinary }, async (t) => {
  for (const fails of [
    () => ({ status: 500, text: '{"result":{"user":"eve"}}' }),
    () => ({ text: 'garbage' }),
    () => ({ text: '{}' }),
    () => ({ result: { user: 7 } }),
    never,
  ]) {
    answers.connect = fails;
    asked.length = 0;
    const client = newClient(t);
    client.connect();
    await until('the client comes back', () => questions('connect').length > 1);
    assert.equal(client.state, 'connecting');
    const answered = event(client, 'connected');
    answers.connect = () => ({ result: { user: 'alice' } });
    await answered;
    client.disconnect();
  }
});

test('rpc is answered by the back end', { skip: isBinary }, async (t) => {
  const { client } = await connected(t);
  answers.rpc = ({ method, data }) => {
    switch (method) {
      case 'sum': return { result: { data: data.reduce((sum, one) => sum + one, 0) } };
      case 'bad': return { error: { code: 1234, message: 'bad luck', temporary: true } };
      case 'slow': return never();
      case 'broken': return { status: 503, text: 'down' };
      default: return { error: { code: 104, message: 'method not found' } };
    }
  };
  assert.equal(decoded((await client.rpc('sum', said([1, 2, 3]))).data), 6);
  assert.equal((await failure(client.rpc('unknown', said(1)))).code, 104);
  const bad = await failure(client.rpc('bad', said(1)));
  assert.deepEqual([bad.code, bad.message, bad.temporary ?? true], [1234, 'bad luck', true]);
  // A slow answer holds up nobody else's, not even the client's own.
  const slow = failure(client.rpc('slow', said(1)));
  assert.equal(decoded((await client.rpc('sum', said([4]))).data), 4);
  assert.equal((await slow).code, 100);
  assert.equal((await failure(client.rpc('broken', said(1)))).code, 100);
  assert.ok((await metric('tidegate_hook_requests_total', 'hook="rpc",outcome="timeout"')) >= 1);
  assert.ok((await metric('tidegate_hook_requests_total', 'hook="rpc",outcome="status"')) >= 1);
});

test('subscriptions are granted with data and info, or refused', { skip: isBinary }, async (t) => {
  answers.subscribe = ({ user, channel, data }) => {
    assert.equal(user, 'alice');
    return channel === 'asked:no'
      ? { error: { code: 403, message: 'not for you' } }
      : { result: { data: { for: data }, info: { role: 'reader' } } };
  };
  const { client } = await connected(t);
  const { subscription, context } = await subscribed(client, 'asked:yes', { data: said({ page: 1 }) });
  assert.deepEqual(decoded(context.data), { for: { page: 1 } });
  const { clients } = await subscription.presence();
  assert.deepEqual(Object.values(clients).map((info) => decoded(info.chanInfo)), [{ role: 'reader' }]);

  const refused = client.newSubscription('asked:no');
  const unsubscribed = event(refused, 'unsubscribed');
  refused.subscribe();
  const { code, reason } = await unsubscribed;
  assert.deepEqual([code, reason], [403, 'not for you']);

  answers.subscribe = () => ({ disconnect: { code: 4100, reason: 'nosy' } });
  const sentAway = event(client, 'connecting');
  client.newSubscription('asked:worse').subscribe();
  assert.equal((await sentAway).code, 4100);
});

test('a status means what the operator says', { skip: isBinary }, async (t) => {
  const status = (code) => () => ({ status: code, text: 'not even JSON' });
  answers.connect = status(404);
  const refused = newClient(t);
  const told = event(refused, 'disconnected');
  refused.connect();
  assert.deepEqual((({ code, reason }) => [code, reason])(await told), [1404, 'no such thing']);

  answers.connect = () => ({ result: { user: 'alice' } });
  const { client } = await connected(t);
  Object.assign(answers, { rpc: status(404), publish: status(429), subscribe: status(429) });
  const failed = await failure(client.rpc('x', said(1)));
  assert.deepEqual([failed.code, failed.message], [1404, 'no such thing']);
  assert.equal((await failure(client.publish('asked:a', 1))).code, 1429);
  // Temporary: the library tries again.
  const subscription = client.newSubscription('asked:a', { minResubscribeDelay: 50, maxResubscribeDelay: 100 });
  const answered = event(subscription, 'subscribed');
  subscription.subscribe();
  await until('the back end was asked again', () => questions('subscribe').length > 1);
  answers.subscribe = allow;
  await answered;
  const before = await metric('tidegate_hook_requests_total', 'hook="rpc",outcome="status"');
  answers.rpc = status(418);
  assert.equal((await failure(client.rpc('x', said(1)))).code, 100);
  assert.equal(await metric('tidegate_hook_requests_total', 'hook="rpc",outcome="status"'), before + 1);
  const disconnected = event(client, 'disconnected');
  answers.rpc = status(403);
  failure(client.rpc('x', said(1)));
  assert.deepEqual((({ code, reason }) => [code, reason])(await disconnected), [4501, 'banned']);
});

test('a subscription is tried again while the back end is down', { skip: isBinary }, async (t) => {
  const { client } = await connected(t);
  answers.subscribe = () => ({ status: 500, text: '' });
  const subscription = client.newSubscription('asked:later', { minResubscribeDelay: 50, maxResubscribeDelay: 100 });
  const answered = event(subscription, 'subscribed');
  subscription.subscribe();
  await until('the back end was asked more than once', () => questions('subscribe').length > 1);
  answers.subscribe = allow;
  await answered;
});

test('publications are changed, refused, and stay in order', { skip: isBinary }, async (t) => {
  const { client } = await connected(t);
  const { received } = await subscribed(client, 'asked:words');
  answers.publish = async ({ user, channel, data }) => {
    assert.deepEqual([user, channel], ['alice', 'asked:words']);
    // Later questions are answered sooner.
    await new Promise((resolve) => setTimeout(resolve, 5 * (20 - data.n)));
    return data.n === 7 ? { error: { code: 999, message: 'seven' } } : { result: { data: { ...data, seen: true }, tags: { n: `${data.n}` } } };
  };
  const outcomes = await Promise.allSettled(numbers(20).map((n) => client.publish('asked:words', { n })));
  assert.deepEqual(outcomes.map((outcome) => outcome.reason?.code), numbers(20).map((n) => (n === 7 ? 999 : undefined)));
  await received.count(19);
  assert.deepEqual(received.data, numbers(20).filter((n) => n !== 7).map((n) => ({ n, seen: true })));
  assert.equal(received.publications[0].info.user, 'alice');
  assert.deepEqual(received.publications[3].tags, { n: '3' });
});

test('connections go on as long as the back end says', { skip: isBinary }, async (t) => {
  answers.connect = () => ({ result: { user: 'alice', expire_at: nowS() + 1 } });
  answers.refresh = () => ({ result: { expire_at: nowS() + 1 } });
  const { client } = await connected(t);
  const lost = [];
  client.on('connecting', ({ code }) => lost.push(code));
  await until('the back end is asked again and again', () => questions('refresh').length >= 3);
  assert.deepEqual(lost, []);
  assert.equal(questions('refresh')[0].body.user, 'alice');
  answers.refresh = () => ({ result: { expired: true } });
  await until('the client is told to come back', () => lost.includes(3005));
});

test('subscriptions go on as long as the back end says', { skip: isBinary }, async (t) => {
  answers.subscribe = () => ({ result: { expire_at: nowS() + 1 } });
  answers.sub_refresh = () => ({ result: { expire_at: nowS() + 1 } });
  const { client } = await connected(t);
  const { subscription } = await subscribed(client, 'asked:lease');
  const lost = [];
  subscription.on('subscribing', ({ code }) => lost.push(code));
  await until('the back end is asked again and again', () => questions('sub_refresh').length >= 3);
  assert.deepEqual(lost, []);
  assert.equal(questions('sub_refresh')[0].body.channel, 'asked:lease');
  answers.sub_refresh = () => ({ result: { expired: true } });
  await until('the subscription is over', () => lost.includes(2501));
});

test('the back end is told once when a client has gone', { skip: isBinary }, async (t) => {
  const { client, context } = await connected(t);
  const gone = () => questions('disconnect').map(({ body }) => body).filter((body) => body.client === context.client);
  client.disconnect();
  await until('the back end is told', () => gone().length > 0);
  await connected(t);
  assert.deepEqual(gone().map(({ user, code, reason }) => [user, code, reason]), [['alice', 3000, 'connection closed']]);
});

test('a hanging back end does not disturb those that ask nothing of it', { skip: isBinary }, async (t) => {
  answers.rpc = never;
  const healthy = await Promise.all(numbers(100).map(() => connectedClient(t, { token: token({ sub: 'healthy' }) })));
  const received = await Promise.all(healthy.map(async (client) => (await subscribed(client, 'open:healthy')).received));
  const { client } = await connected(t);
  const hanging = numbers(200).map((n) => failure(client.rpc('hang', said(n))));
  let worst = 0;
  for (const n of numbers(20)) {
    const began = Date.now();
    await healthy[0].publish('open:healthy', { n });
    await Promise.all(received.map((one) => one.count(n + 1)));
    worst = Math.max(worst, Date.now() - began);
  }
  assert.ok(worst < 1_500, `a publication took ${worst} ms while the back end took 3000`);
  (await Promise.all(hanging)).forEach((error) => assert.ok([100, 1].includes(error.code), `${error.code}`));
});

test('a back end that is gone is noticed at once, and when it is back', { skip: isBinary }, async (t) => {
  const { client } = await connected(t);
  answers.rpc = () => ({ result: { data: 1 } });
  await client.rpc('x', said(1));
  const closed = once(web, 'close');
  web.close();
  web.closeAllConnections();
  await closed;
  const began = Date.now();
  assert.equal((await failure(client.rpc('x', said(1)))).code, 100);
  assert.ok(Date.now() - began < 2_000, 'refused, not timed out');
  await listen();
  assert.equal(decoded((await client.rpc('x', said(1))).data), 1);
});
