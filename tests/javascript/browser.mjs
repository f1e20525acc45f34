// The official client in a real browser, on a page of another origin than the server's.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';
import { openPage } from './chromium.mjs';
import { clientUrl } from './support.mjs';

const library = await readFile(new URL('../node_modules/centrifuge/dist/centrifuge.js', import.meta.url));

const page = `<!doctype html>
<title>A page with the official client</title>
<ul id="received"></ul>
<script src="/centrifuge.js"></script>
<script>
  const client = new Centrifuge(${JSON.stringify(clientUrl)});
  const subscription = client.newSubscription('open:page');
  subscription.on('publication', ({ data }) => {
    const item = document.createElement('li');
    item.textContent = data.text;
    document.getElementById('received').append(item);
  });
  subscription.subscribe();
  client.on('error', (context) => (window.lastError = context.error.code));
  client.connect();
</script>`;

test('a page connects, subscribes, publishes and receives', async (t) => {
  const { port } = await serve(t);
  const tab = await openPage(t, `http://127.0.0.1:${port}/`);
  await tab.evaluate(() => subscription.ready(20_000));
  await tab.evaluate(() => subscription.publish({ text: 'from the page' }));
  await tab.getByText('from the page').waitFor();
  assert.equal(await tab.locator('#received li').count(), 1);
});

test('a page of an origin that is not allowed stays outside', async (t) => {
  const { port } = await serve(t);
  // The same page under another name: the server allows 127.0.0.1 only.
  const tab = await openPage(t, `http://localhost:${port}/`);
  await tab.waitForFunction(() => window.lastError !== undefined);
  assert.equal(await tab.evaluate(() => client.state), 'connecting');
});

async function serve(t) {
  const server = createServer((request, response) => {
    const isLibrary = request.url === '/centrifuge.js';
    response.setHeader('Content-Type', isLibrary ? 'text/javascript' : 'text/html; charset=utf-8');
    response.end(isLibrary ? library : page);
  });
  await once(server.listen(0), 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return server.address();
}
