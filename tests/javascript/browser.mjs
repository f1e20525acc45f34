// The official client in a real browser, on a page of another origin than the server's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openPage, servePage } from './chromium.mjs';
import { clientUrl } from './support.mjs';

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
  const port = await servePage(t, page);
  const tab = await openPage(t, `http://127.0.0.1:${port}/`);
  await tab.evaluate(() => subscription.ready(20_000));
  await tab.evaluate(() => subscription.publish({ text: 'from the page' }));
  await tab.getByText('from the page').waitFor();
  assert.equal(await tab.locator('#received li').count(), 1);
});

test('a page of an origin that is not allowed stays outside', async (t) => {
  const port = await servePage(t, page);
  // The same page under another name: the server allows 127.0.0.1 only.
  const tab = await openPage(t, `http://localhost:${port}/`);
  await tab.waitForFunction(() => window.lastError !== undefined);
  assert.equal(await tab.evaluate(() => client.state), 'connecting');
});
