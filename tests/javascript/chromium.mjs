// Debian's Chromium, without a window and without its own calls home.

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
