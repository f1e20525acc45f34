// The operators' console in a real browser: subscribe, publish, see it arrive, watch the numbers move.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import Redis from 'ioredis';
import WebSocket from 'ws';
import { openPage } from './chromium.mjs';
import { adminUrl, clientUrl, ingestPort, targetFolder, token, until } from './support.mjs';

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

  // A user comes, and is found with why another connection of hers has ended.
  const connect = async () => {
    const socket = new WebSocket(clientUrl);
    t.after(() => socket.close());
    await once(socket, 'open');
    socket.send(JSON.stringify({ id: 1, connect: { token: token({ sub: 'carol' }), name: 'a test' } }));
    await once(socket, 'message');
    return socket;
  };
  const carol = await connect();
  const mistaken = await connect();
  mistaken.send('no command');
  await once(mistaken, 'close');
  await until('carol and her closed connection are found', async () => {
    await field('user-input').fill('carol');
    await field('user-button').click();
    await until('there is an answer', async () => !/looking/.test(await field('user-note').textContent()));
    return (await field('user-note').textContent()) === 'carol: 1 connected, 1 closed of late';
  });
  const found = await field('user-found').textContent();
  assert.match(found, /websocket · a test · #carol/);
  assert.match(found, /closed 3501.*command malformed/);
  assert.match(await field('shards').textContent(), /ms|µs/);
  await until('the refused command is among the reasons', async () =>
    /command malformed/.test(await field('rejections').textContent()));
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const [name, width] of [['wide', 1280], ['narrow', 420]]) {
      await page.setViewportSize({ width, height: 900 });
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `at ${width} pixels the page is ${overflow} too wide`);
      await page.screenshot({ path: join(targetFolder, `console-${name}-${scheme}.png`), fullPage: true });
    }
  }
  assert.deepEqual(failures, []);
  carol.close();

  // A page that has gone takes its connection along.
  await page.reload();
  await until('no connection is left', async () => (await field('connections').textContent()) === '0');
});
