// What the scripts share: the server's addresses, clients, tokens, and waiting for events instead of for time.

import { once } from 'node:events';
import { createHmac } from 'node:crypto';
import { createConnection, createServer } from 'node:net';
import { Centrifuge as CentrifugeJson } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';
import WebSocket from 'ws';

export const clientUrl = fromTest('TEST_CLIENT_URL');
export const adminUrl = fromTest('TEST_ADMIN_URL');
export const ingestPort = Number(fromTest('TEST_INGEST_PORT'));
export const ingestSocket = fromTest('TEST_INGEST_SOCKET');
export const targetFolder = fromTest('TEST_TARGET_FOLDER');

/** How the script's clients encode what they say. */
export const encoding = fromTest('TEST_ENCODING');

const patienceMs = 20_000;

function fromTest(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set: the tests in Rust run this script (make test-black-box)`);
  }
  return value;
}

/** The official library in Protobuf. Its payloads are bytes: here the JSON texts of what is published. */
class CentrifugeOfTexts extends CentrifugeProtobuf {
  publish(channel, data) {
    return super.publish(channel, new TextEncoder().encode(JSON.stringify(data)));
  }
}

/** The official library in the script's encoding. */
export const Centrifuge = { json: CentrifugeJson, protobuf: CentrifugeOfTexts }[encoding];

/** What a payload of either encoding says. */
export const decoded = (data) => (data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data);

/** A client of the official library that comes back quickly, disconnected when the test ends. */
export function newClient(test, { url = clientUrl, ...options } = {}) {
  const client = new Centrifuge(url, {
    websocket: WebSocket,
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
    ...options,
  });
  test.after(() => client.disconnect());
  return client;
}

/** A client that has connected. */
export async function connectedClient(test, options = {}) {
  const client = newClient(test, options);
  const connected = event(client, 'connected');
  client.connect();
  await connected;
  return client;
}

/** A subscription that has been answered, with what it received. */
export async function subscribed(client, channel, options = {}) {
  const subscription = client.newSubscription(channel, options);
  const received = new Received(subscription);
  const answered = event(subscription, 'subscribed');
  subscription.subscribe();
  const context = await answered;
  return { subscription, received, context };
}

/** The next event of that name; rejects when patience ends. */
export function event(emitter, name) {
  return within(`the event '${name}'`, new Promise((resolve) => emitter.once(name, resolve)));
}

/** The promise, or a rejection that says what was waited for in vain. */
export async function within(what, promise) {
  let timer;
  const timeout = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${patienceMs} ms in vain for ${what}`)), patienceMs);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until the answer is true. */
export async function until(what, ask) {
  const end = Date.now() + patienceMs;
  while (!(await ask())) {
    if (Date.now() > end) {
      throw new Error(`waited ${patienceMs} ms in vain for ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Collects the publications of a subscription, or of a client's server-side subscriptions. */
export class Received {
  constructor(emitter) {
    this.publications = [];
    this.waiting = [];
    emitter.on('publication', (publication) => {
      this.publications.push(publication);
      this.waiting = this.waiting.filter(({ count, resolve }) => this.publications.length < count || resolve());
    });
  }

  /** Payloads so far. */
  get data() {
    return this.publications.map((publication) => decoded(publication.data));
  }

  /** Waits until there are that many publications. */
  async count(count) {
    if (this.publications.length >= count) {
      return;
    }
    const arrived = new Promise((resolve) => this.waiting.push({ count, resolve }));
    await within(`${count} publications (${this.publications.length} before)`, arrived);
  }
}

/** A connection token of these claims, signed as the server expects. */
export function token(claims) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const content = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  const signature = createHmac('sha256', fromTest('TEST_TOKEN_SECRET')).update(content).digest('base64url');
  return `${content}.${signature}`;
}

/** Seconds since 1970, as tokens count. */
export const nowS = () => Math.floor(Date.now() / 1000);

/** 0, 1, ... count - 1 */
export const numbers = (count, from = 0) => Array.from({ length: count }, (_, index) => from + index);

/** Asks the test that runs this script to do something, and waits until it is done. */
export async function askTest(word) {
  console.log(`ASK ${word}`);
  process.stdin.ref();
  process.stdin.resume();
  const [answer] = await within(`the test to ${word}`, once(process.stdin, 'data'));
  process.stdin.pause();
  process.stdin.unref();
  if (answer.toString().trim() !== 'DONE') {
    throw new Error(`the test answered ${answer}`);
  }
}

/** The sum of a metric's samples whose labels include the given text. */
export async function metric(name, label = '') {
  const response = await fetch(`${adminUrl}/metrics`);
  const lines = (await response.text()).split('\n').filter((line) => line.startsWith(name) && line.includes(label));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** A line to the server that can be cut and mended. */
export class Line {
  static async open(t) {
    const line = new Line();
    await once(line.server.listen(0, '127.0.0.1'), 'listening');
    t.after(() => {
      line.cut();
      line.server.close();
    });
    const url = new URL(clientUrl);
    url.port = line.server.address().port;
    line.url = url.href;
    return line;
  }

  constructor() {
    const { hostname, port } = new URL(clientUrl);
    this.sockets = new Set();
    this.isCut = false;
    this.server = createServer((near) => {
      if (this.isCut) {
        near.destroy();
        return;
      }
      const far = createConnection({ host: hostname, port });
      for (const [from, to] of [[near, far], [far, near]]) {
        this.sockets.add(from);
        from.on('error', () => {}).on('close', () => to.destroy());
        from.pipe(to);
      }
    });
  }

  cut() {
    this.isCut = true;
    this.sockets.forEach((socket) => socket.destroy());
    this.sockets.clear();
  }

  mend() {
    this.isCut = false;
  }
}
