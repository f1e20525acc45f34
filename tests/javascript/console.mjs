// The operators' console in a real browser: subscribe, publish, see it arrive, watch the numbers move.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import Redis from 'ioredis';
import { openPage } from './chromium.mjs';
import { adminUrl, ingestPort, targetFolder, until } from './support.mjs';

test('the console subscribes, publishes and shows what arrives', async (t) => {
  const page = await openPage(t, adminUrl);
  const failures = [];
  page.on('pageerror', (error) => failures.push(error.message));
  page.on('requestfailed', (request) => failures.push(request.url()));
  page.on('request', (request) => {
    if (!request.url().startsWith(adminUrl)) failures.push(`a request to elsewhere: ${request.url()}`);
  });
  const field = (name) => page.getByTestId(name);

  await field('channel-input').fill('open:console');
  await field('subscribe-button').click();
  // Its own client is a connection like any other.
  await until('its connection is shown', async () => (await field('connections').textContent()) === '1');

  await field('payload-input').fill('{"text":"typed into the console"}');
  await field('publish-button').click();
  await field('messages').getByText('typed into the console').waitFor();

  const redis = new Redis(ingestPort, '127.0.0.1');
  t.after(() => redis.disconnect());
  await redis.publish('open:console', '{"text":"from a producer"}');
  await field('messages').getByText('from a producer').waitFor();

  await page.screenshot({ path: join(targetFolder, 'console.png'), fullPage: true });
  assert.deepEqual(failures, []);

  // A page that has gone takes its connection along.
  await page.reload();
  await until('no connection is left', async () => (await field('connections').textContent()) === '0');
});
