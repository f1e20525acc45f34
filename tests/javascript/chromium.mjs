// Debian's Chromium, without a window and without its own calls home, and pages for it.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { chromium } from 'playwright-core';

/** A page at that address; its errors fail the test, and its browser ends with it. */
export async function openPage(t, address) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  t.after(() => browser.close());
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(20_000);
  page.on('pageerror', (error) => console.error(`error on the page: ${error.stack}`));
  page.on('console', (message) => console.error(`the page's console: ${message.text()}`));
  await page.goto(address);
  return page;
}

/** Serves a page, and the official library beside it as /centrifuge.js, until the test ends; gives back the port. */
export async function servePage(t, page) {
  const library = await readFile(new URL('../node_modules/centrifuge/dist/centrifuge.js', import.meta.url));
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
  return server.address().port;
}
