// A real browser's EventSource and fetch, on a page of another origin than the server's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { openPage, servePage } from './chromium.mjs';
import { clientUrl, ingestPort, until } from './support.mjs';

const at = (path) => new URL(path, clientUrl.replace(/^ws/, 'http')).href;

for (const transport of ['sse', 'http_stream']) {
  test(`a page over ${transport} connects, subscribes, publishes and receives`, async (t) => {
    const tab = await page(t, transport);
    const connected = await tab.evaluate(
      ([transport, endpoint, emulationEndpoint]) => {
        window.client = new Centrifuge([{ transport, endpoint }], { emulationEndpoint });
        window.subscription = client.newSubscription('open:page');
        window.received = [];
        subscription.on('publication', ({ data }) => received.push(data));
        subscription.subscribe();
        const connected = new Promise((resolve) => client.once('connected', resolve));
        client.connect();
        return connected;
      },
      [transport, at(`/connection/${transport}`), at('/emulation')],
    );
    assert.equal(connected.transport, transport);
    await tab.evaluate(() => subscription.ready(20_000));
    await tab.evaluate(() => subscription.publish({ text: 'from the page' }));
    await until('the publication', () => tab.evaluate(() => received.length === 1));
    assert.deepEqual(await tab.evaluate(() => received), [{ text: 'from the page' }]);
  });
}

test('a page listens with EventSource alone', async (t) => {
  const tab = await page(t, 'alone');
  const connect = encodeURIComponent(JSON.stringify({ subs: { 'open:alone': {} } }));
  await tab.evaluate((url) => {
    window.received = [];
    const source = new EventSource(url);
    source.onmessage = ({ data }) => received.push(JSON.parse(data));
  }, at(`/connection/uni_sse?cf_connect=${connect}`));
  await until('the connect push', () => tab.evaluate(() => received.length === 1));
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  await redis.publish('open:alone', '{"number":1}');
  await until('the publication', () => tab.evaluate(() => received.some(({ pub }) => pub)));
  const [first, second] = await tab.evaluate(() => received.filter((message) => message.connect || message.pub));
  assert.ok(first.connect.session && first.connect.subs['open:alone']);
  assert.deepEqual(second, { channel: 'open:alone', pub: { data: { number: 1 } } });
});

test('a page of an origin that is not allowed reads nothing', async (t) => {
  const tab = await page(t, 'outside', 'localhost');
  const outcome = await tab.evaluate(
    ([stream, events]) =>
      Promise.all([
        fetch(stream, { method: 'POST', body: '{}' }).then(() => 'read', () => 'refused'),
        new Promise((resolve) => {
          const source = new EventSource(events);
          source.onopen = () => resolve('opened');
          source.onerror = () => resolve('refused');
        }),
      ]),
    [at('/connection/uni_http_stream'), at('/connection/uni_sse')],
  );
  assert.deepEqual(outcome, ['refused', 'refused']);
});

/** A tab on a page that has the library and nothing else. The server allows 127.0.0.1. */
async function page(t, title, host = '127.0.0.1') {
  const port = await servePage(t, `<!doctype html><title>${title}</title><script src="/centrifuge.js"></script>`);
  return openPage(t, `http://${host}:${port}/`);
}
