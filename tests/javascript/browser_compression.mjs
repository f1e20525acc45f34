// permessage-deflate in a real browser: what it offers is agreed on, and the official client reads and is read as without.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { openPage, servePage } from './chromium.mjs';
import { clientUrl, ingestPort, metric, numbers } from './support.mjs';

const page = `<!doctype html>
<title>A page with the official client</title>
<script src="/centrifuge.js"></script>
<script>
  const url = ${JSON.stringify(clientUrl)};
  const client = new Centrifuge(url);
  const subscription = client.newSubscription('shared:page');
  const received = [];
  subscription.on('publication', ({ data }) => received.push(data));
  subscription.subscribe();
  client.connect();
  const extensions = new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onopen = () => { resolve(socket.extensions); socket.close(); };
  });
</script>`;

test('a page agrees on compression, and receives and is heard as without', async (t) => {
  const port = await servePage(t, page);
  const tab = await openPage(t, `http://127.0.0.1:${port}/`);
  assert.equal(await tab.evaluate(() => extensions), 'permessage-deflate; client_no_context_takeover');
  await tab.evaluate(() => subscription.ready(20_000));

  // The browser compresses what it sends; long, so that it takes several frames of the network.
  const long = numbers(5000).map((number) => `${number} wörds`).join(' ');
  await tab.evaluate((text) => subscription.publish({ text }), long);
  const ticks = numbers(500).map((number) => ({ symbol: 'EURUSD', bid: 1.08 + (number % 17) / 1000, number, note: 'ü€😀' }));
  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  for (const tick of ticks) {
    await redis.publish('shared:page', JSON.stringify(tick));
  }
  await tab.waitForFunction(() => received.length === 501);
  assert.deepEqual(await tab.evaluate(() => received), [{ text: long }, ...ticks]);

  const [before, after] = [
    await metric('tidegate_compression_delivered_plain_bytes_total'),
    await metric('tidegate_compression_delivered_bytes_total'),
  ];
  assert.ok(after < before / 2, `${after} bytes of ${before}`);
});
