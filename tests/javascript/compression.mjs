// permessage-deflate with Node's `ws`, which inflates and deflates by Node's zlib, and with the official client over it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import Redis from 'ioredis';
import WebSocket from 'ws';
import { clientUrl, connectedClient, encoding, ingestPort, metric, numbers, subscribed, within } from './support.mjs';

/** What clients may offer, and what is answered beside `client_no_context_takeover`. */
const offers = [
  [{}, ''],
  [{ clientNoContextTakeover: true, clientMaxWindowBits: 9 }, ''],
  [{ clientMaxWindowBits: 15 }, ''],
  [{ serverNoContextTakeover: true }, '; server_no_context_takeover'],
  [{ serverMaxWindowBits: 9 }, '; server_max_window_bits=9'],
  [{ serverMaxWindowBits: 11 }, '; server_max_window_bits=10'],
  [{ serverMaxWindowBits: 14, serverNoContextTakeover: true }, '; server_no_context_takeover; server_max_window_bits=12'],
  [{ serverMaxWindowBits: 15 }, '; server_max_window_bits=15'],
];

const redis = new Redis(ingestPort, '127.0.0.1');
test.after(() => redis.disconnect());

/** A realistic small message: much of it is as in the one before. */
const tick = (number) => ({
  symbol: ['EURUSD', 'GBPUSD', 'USDJPY'][number % 3],
  bid: 1.08 + (number % 17) / 1000,
  ask: 1.081 + (number % 13) / 1000,
  number,
  note: 'ü€😀'.repeat(number % 4),
});

/** A socket that speaks JSON by hand, with what it was sent. */
async function open(t, perMessageDeflate) {
  const socket = new WebSocket(clientUrl, { perMessageDeflate: perMessageDeflate && { threshold: 0, ...perMessageDeflate } });
  t.after(() => socket.terminate());
  const lines = [];
  let answered;
  socket.on('upgrade', ({ headers }) => (answered = headers['sec-websocket-extensions']));
  socket.on('message', (data) => lines.push(...data.toString().split('\n').map(JSON.parse)));
  await within('the upgrade', once(socket, 'open'));
  const until = async (what, find) => {
    while (!lines.some(find)) {
      await within(what, once(socket, 'message'));
    }
    return lines.find(find);
  };
  const ask = async (command) => {
    socket.send(JSON.stringify(command));
    return until(`the answer to ${command.id}`, ({ id }) => id === command.id);
  };
  await ask({ id: 1, connect: {} });
  return { socket, answered, lines, ask, until };
}

const publications = (lines) => lines.map(({ push }) => push?.pub?.data).filter((data) => data !== undefined);

test('whatever is agreed on, commands and publications arrive as they are', { skip: encoding !== 'json' }, async (t) => {
  for (const channel of ['single:a', 'shared:a', 'open:a']) {
    const clients = [await open(t, false)];
    assert.equal(clients[0].answered, undefined);
    for (const [offer, parameters] of offers) {
      const client = await open(t, offer);
      assert.equal(client.answered, `permessage-deflate; client_no_context_takeover${parameters}`);
      clients.push(client);
    }
    const sent = [];
    for (const [index, client] of clients.entries()) {
      const answer = await client.ask({ id: 2, subscribe: { channel } });
      assert.deepEqual(answer.error, undefined);
      // Long, so that it comes in several receives and is compressed in any case.
      const data = { from: index, text: numbers(3000).map((number) => `${number} wörds`).join(' ') };
      assert.ok((await client.ask({ id: 3, publish: { channel, data } })).publish);
      client.first = sent.push(data) - 1;
    }
    for (const number of numbers(300)) {
      sent.push(tick(number));
      await redis.publish(channel, JSON.stringify(tick(number)));
    }
    for (const client of clients) {
      await client.until('the last publication', ({ push }) => push?.pub?.data.number === 299);
      assert.deepEqual(publications(client.lines), sent.slice(client.first));
    }
    t.diagnostic(`${channel}: ${clients.length} clients, ${sent.length} publications`);
  }
  for (const namespace of ['single', 'shared']) {
    const label = `namespace="${namespace}"`;
    const [before, after] = [
      await metric('tidegate_compression_delivered_plain_bytes_total', label),
      await metric('tidegate_compression_delivered_bytes_total', label),
    ];
    assert.ok(after < before / 2, `${namespace}: ${after} bytes of ${before}`);
  }
});

test('the official client receives what was published, whenever it came', async (t) => {
  const all = [];
  let published = 0;
  const publish = async (count) => {
    for (const number of numbers(count, published)) {
      await redis.publish('shared:late', JSON.stringify(tick(number)));
    }
    published += count;
  };
  for (const _ of numbers(6)) {
    const client = await connectedClient(t);
    const { received } = await subscribed(client, 'shared:late');
    all.push([published, received]);
    await publish(50);
  }
  for (const [first, received] of all) {
    await received.count(published - first);
    assert.deepEqual(received.data, numbers(published - first, first).map(tick));
  }
});

test('what is compressed alone, and replies, go beside what is shared', async (t) => {
  const client = await connectedClient(t);
  const { received } = await subscribed(client, 'shared:both');
  const { received: single } = await subscribed(client, 'single:both');
  for (const number of numbers(100)) {
    await redis.publish('shared:both', JSON.stringify(tick(number)));
    await redis.publish('single:both', JSON.stringify(tick(1000 + number)));
    if (number % 10 === 0) {
      await client.publish('open:both', tick(number));
    }
  }
  await received.count(100);
  await single.count(100);
  assert.deepEqual(received.data, numbers(100).map(tick));
  assert.deepEqual(single.data, numbers(100, 1000).map(tick));
});

test('a message that is too long once it is inflated is refused', { skip: encoding !== 'json' }, async (t) => {
  const { socket } = await open(t, {});
  const closed = once(socket, 'close');
  socket.send('0'.repeat(64 * 1024 + 1));
  const [code] = await within('the end', closed);
  assert.equal(code, 1009);
});
