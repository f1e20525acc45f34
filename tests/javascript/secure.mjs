// The official client over TLS, with the certificate of the test's own authority (NODE_EXTRA_CA_CERTS).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { once } from 'node:events';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

const url = process.env.TEST_SECURE_URL;

for (const version of ['TLSv1.2', 'TLSv1.3']) {
  test(`the official client subscribes, publishes and receives over ${version}`, async () => {
    class Socket extends WebSocket {
      constructor(address, protocols) {
        super(address, protocols, { minVersion: version, maxVersion: version });
      }
    }
    const client = new Centrifuge(url, { websocket: Socket });
    const subscription = client.newSubscription('open:secure');
    const received = new Promise((resolve) => subscription.on('publication', resolve));
    subscription.subscribe();
    client.connect();
    await subscription.ready(20_000);
    // Longer than one record of TLS.
    await subscription.publish({ text: 'x'.repeat(40_000) });
    const { data } = await received;
    assert.equal(data.text.length, 40_000);
    client.disconnect();
  });
}

test('a server of another name is refused by the client', async () => {
  const socket = new WebSocket(url.replace('localhost', '127.0.0.1'));
  const [error] = await once(socket, 'error');
  assert.match(error.code, /ALTNAME/);
});
