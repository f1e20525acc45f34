// Where WebSocket is blocked: the official client over HTTP streams and server-sent events, with its fall-back from one
// to the next, and clients without a library that only listen.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import Redis from 'ioredis';
import WebSocket from 'ws';
import {
  clientUrl,
  event,
  ingestPort,
  metric,
  nowS,
  numbers,
  subscribed,
  token,
  until,
  within,
} from './support.mjs';

const base = new URL(clientUrl.replace(/^ws/, 'http'));
const at = (path) => new URL(path, base).href;

const endpoints = {
  websocket: at('/connection/websocket').replace(/^http/, 'ws'),
  http_stream: at('/connection/http_stream'),
  sse: at('/connection/sse'),
};

for (const transport of ['http_stream', 'sse']) {
  test(`${transport}: subscribes, publishes, asks and receives`, async (t) => {
    const client = emulated(t, [transport]);
    const connected = event(client, 'connected');
    client.connect();
    assert.equal((await connected).transport, transport);
    const { subscription, received } = await subscribed(client, 'open:news');
    await subscription.publish({ text: 'zwei\nZeilen und ein €' });
    await producer(t).publish('open:news', '{"number": 2}');
    await received.count(2);
    assert.deepEqual(received.data, [{ text: 'zwei\nZeilen und ein €' }, { number: 2 }]);
    const kept = await subscribed(client, `kept:asked-${transport}`);
    await producer(t).publish(`kept:asked-${transport}`, '1');
    await kept.received.count(1);
    const { publications } = await kept.subscription.history({ limit: 10 });
    assert.deepEqual(publications.map(({ data }) => data), [1]);
    await assert.rejects(client.rpc('nothing', {}), { code: 108 });
    subscription.unsubscribe();
    await subscription.unsubscribe();
    assert.equal(client.state, 'connected');
  });

  test(`${transport}: a token, its channels, and its end`, async (t) => {
    let fetched = 0;
    const client = emulated(t, [transport], {
      token: token({ sub: 'carol', exp: nowS() - 60 }),
      getToken: async () => {
        fetched += 1;
        return token({ sub: 'carol', exp: nowS() + 3600, channels: ['open:carol'] });
      },
    });
    const channels = new Set();
    client.on('subscribed', ({ channel }) => channels.add(channel));
    const error = event(client, 'error');
    const connected = event(client, 'connected');
    client.connect();
    assert.equal((await error).error.code, 109);
    await connected;
    assert.equal(fetched, 1);
    assert.deepEqual([...channels].sort(), ['#carol', 'open:carol']);
  });

  test(`${transport}: an invalid token is terminal`, async (t) => {
    const client = emulated(t, [transport], { token: 'not.a.token' });
    const disconnected = event(client, 'disconnected');
    client.connect();
    const { code, reason } = await disconnected;
    assert.deepEqual([code, reason], [3500, 'invalid token']);
  });

  test(`${transport}: a connection outlives many pings, answered by uplink`, async (t) => {
    const client = emulated(t, [transport]);
    client.connect();
    await event(client, 'connected');
    let left = false;
    client.on('connecting', () => (left = true));
    await new Promise((resolve) => setTimeout(resolve, 3_500));
    assert.equal(left, false);
    // What the connect reply set; the library has no switch for it.
    client._sendPong = false;
    const { code, reason } = await event(client, 'connecting');
    assert.deepEqual([code, reason], [3012, 'no pong']);
    await event(client, 'connected');
  });

  test(`${transport}: what was published during a cut is recovered, in order and once`, async (t) => {
    const redis = producer(t);
    const aborts = new Set();
    const client = emulated(t, [transport], { aborts });
    client.connect();
    await event(client, 'connected');
    const channel = `kept:${transport}`;
    const { subscription, received } = await subscribed(client, channel);
    for (const number of numbers(10)) {
      await redis.publish(channel, String(number));
    }
    await received.count(10);
    const lost = event(subscription, 'subscribing');
    const back = new Promise((resolve) => subscription.once('subscribed', resolve));
    aborts.forEach((abort) => abort());
    await lost;
    for (const number of numbers(100, 10)) {
      await redis.publish(channel, String(number));
    }
    assert.equal((await back).recovered, true);
    for (const number of numbers(10, 110)) {
      await redis.publish(channel, String(number));
    }
    await received.count(120);
    assert.deepEqual(received.data, numbers(120));
  });

  test(`${transport}: the server sees at once that a client has gone`, async (t) => {
    const connections = () => metric('tidegate_connections');
    const before = await connections();
    const client = emulated(t, [transport]);
    client.connect();
    await event(client, 'connected');
    await until('the server counts the client', async () => (await connections()) === before + 1);
    const end = Date.now() + 2_000;
    client.disconnect();
    await until('the server counts the client no more', async () => (await connections()) === before);
    assert.ok(Date.now() < end, 'it took longer than 2 s');
  });
}

test('http_stream in Protobuf, beside JSON in the same channel', async (t) => {
  const client = new ProtobufCentrifuge([{ transport: 'http_stream', endpoint: endpoints.http_stream }], options());
  t.after(() => client.disconnect());
  client.connect();
  await event(client, 'connected');
  const { subscription, received } = await subscribed(client, 'open:both');
  const other = emulated(t, ['sse']);
  other.connect();
  const json = await subscribed(other, 'open:both');
  await subscription.publish(new TextEncoder().encode('{"from":"protobuf"}'));
  await json.subscription.publish({ from: 'json' });
  await received.count(2);
  await json.received.count(2);
  assert.deepEqual(received.data, json.received.data);
  await assert.rejects(client.rpc('nothing', new Uint8Array()), { code: 108 });
});

test('a client falls back to what is not blocked, in its order', async (t) => {
  const blocked = { websocket: at('/blocked').replace(/^http/, 'ws'), http_stream: at('/blocked') };
  const first = emulated(t, ['websocket', 'http_stream', 'sse'], { endpoints: { ...endpoints, websocket: blocked.websocket } });
  const second = emulated(t, ['websocket', 'http_stream', 'sse'], { endpoints: { ...endpoints, ...blocked } });
  const third = emulated(t, ['websocket', 'http_stream', 'sse']);
  const transports = await Promise.all(
    [first, second, third].map(async (client) => {
      const connected = event(client, 'connected');
      client.connect();
      return (await connected).transport;
    }),
  );
  assert.deepEqual(transports, ['http_stream', 'sse', 'websocket']);
});

test('who only listens needs no library', async (t) => {
  const redis = producer(t);
  const connect = JSON.stringify({ token: token({ sub: 'dora' }), subs: { 'open:listened': {} } });
  const listeners = [
    await fetchLines(t, at('/connection/uni_http_stream'), { method: 'POST', body: connect }),
    await fetchLines(t, at(`/connection/uni_sse?cf_connect=${encodeURIComponent(connect)}`)),
    await fetchLines(t, at('/connection/uni_sse'), { method: 'POST', body: connect }),
    uniWebSocket(t, connect),
  ];
  for (const { messages } of listeners) {
    await until('the client is connected', () => messages.length === 1);
    const [{ connect: result }] = messages;
    assert.deepEqual(Object.keys(result.subs).sort(), ['#dora', 'open:listened']);
    assert.ok(result.client && result.session && result.ping === 1 && !result.pong);
  }
  await redis.publish('open:listened', '{"number":1}');
  await redis.publish('#dora', '"for dora"');
  for (const { messages } of listeners) {
    const heard = () => messages.slice(1).filter((message) => message.pub);
    await until('both publications', () => heard().length === 2);
    assert.deepEqual(heard(), [
      { channel: 'open:listened', pub: { data: { number: 1 } } },
      { channel: '#dora', pub: { data: 'for dora' } },
    ]);
    await until('pings', () => messages.filter((message) => Object.keys(message).length === 0).length >= 2);
  }
});

test('why a client that only listens is turned away', async (t) => {
  const stream = await fetchLines(t, at('/connection/uni_http_stream'), { method: 'POST', body: '{"token":"x"}' });
  const socket = uniWebSocket(t, '{"token":"x"}');
  for (const [{ messages, ended }, closeCode] of [[stream, undefined], [socket, 3500]]) {
    assert.equal(await within('the end', ended), closeCode);
    assert.deepEqual(messages, [{ disconnect: { code: 3500, reason: 'invalid token' } }]);
  }
  for (const [path, body] of [['/connection/uni_sse', '?'], ['/connection/sse', undefined]]) {
    const response = await fetch(at(path), body ? { method: 'POST', body } : {});
    assert.equal(response.status, 400);
  }
  assert.equal((await fetch(at('/connection/websocket'))).status, 400);
  assert.equal((await fetch(at('/elsewhere'))).status, 404);
});

test('a body may be long, and chunked, but not too long', async () => {
  const session = { session: 'x', node: 'x', data: '{}' };
  const post = (body) => fetch(at('/emulation'), { method: 'POST', body, duplex: 'half' });
  assert.equal((await post(JSON.stringify(session))).status, 404);
  assert.equal((await post(JSON.stringify({ ...session, data: 'x'.repeat(60_000) }))).status, 404);
  assert.equal((await post(JSON.stringify({ ...session, data: 'x'.repeat(70_000) }))).status, 413);
  const chunks = ReadableStream.from(numbers(100).map(() => new TextEncoder().encode(' '.repeat(100))));
  assert.equal((await post(chunks)).status, 400);
});

/** A client over these transports, in this order. */
function emulated(t, transports, { aborts, endpoints: others, ...more } = {}) {
  const list = transports.map((transport) => ({ transport, endpoint: (others ?? endpoints)[transport] }));
  const client = new Centrifuge(list, options({ aborts, ...more }));
  t.after(() => client.disconnect());
  return client;
}

/** `aborts`: functions are put there that cut the streams that are open. */
function options({ aborts = new Set(), ...more } = {}) {
  const cuttable = async (resource, init = {}) => {
    const cut = new AbortController();
    aborts.add(() => cut.abort());
    const signals = [cut.signal, ...(init.signal ? [init.signal] : [])];
    return fetch(resource, { ...init, signal: AbortSignal.any(signals) });
  };
  return {
    websocket: WebSocket,
    fetch: cuttable,
    readableStream: ReadableStream,
    eventsource: class extends EventSource {
      constructor(url) {
        super(url, cuttable);
      }
    },
    emulationEndpoint: at('/emulation'),
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
    ...more,
  };
}

/** Server-sent events as the official client uses them; this version of Node.js has none. A browser's are tested too. */
class EventSource {
  constructor(url, fetchWith) {
    this.abort = new AbortController();
    this.read(fetchWith(url, { signal: this.abort.signal, headers: { Accept: 'text/event-stream' } })).catch((error) => {
      if (!this.abort.signal.aborted) {
        this.onerror?.(error);
      }
    });
  }

  async read(responded) {
    const response = await responded;
    if (response.status !== 200 || !response.headers.get('content-type').startsWith('text/event-stream')) {
      throw new Error(`no stream of events: ${response.status}`);
    }
    this.onopen?.();
    for await (const line of lines(response)) {
      if (line.startsWith('data: ')) {
        this.onmessage?.({ data: line.slice('data: '.length) });
      }
    }
    throw new Error('the stream has ended');
  }

  close() {
    this.abort.abort();
  }
}

async function* lines(response) {
  let rest = '';
  for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split('\n');
    rest = parts.pop();
    yield* parts.map((line) => line.trim()).filter((line) => line !== '');
  }
}

/** What an answer without an end carries, message by message. */
async function fetchLines(t, url, init = {}) {
  const abort = new AbortController();
  t.after(() => abort.abort());
  const response = await fetch(url, { ...init, signal: abort.signal });
  assert.equal(response.status, 200);
  const messages = [];
  const ended = (async () => {
    for await (const line of lines(response)) {
      messages.push(JSON.parse(line.replace(/^data: /, '')));
    }
  })();
  ended.catch(() => {});
  return { messages, ended };
}

function uniWebSocket(t, connect) {
  const socket = new WebSocket(at('/connection/uni_websocket').replace(/^http/, 'ws'));
  t.after(() => socket.terminate());
  const messages = [];
  socket.on('open', () => socket.send(connect));
  socket.on('message', (data) => messages.push(JSON.parse(data)));
  const ended = new Promise((resolve) => socket.on('close', resolve));
  return { messages, ended };
}

function producer(t) {
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  return redis;
}
