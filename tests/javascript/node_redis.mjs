// node-redis as a producer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClient } from 'redis';
import { ingestPort, ingestSocket, numbers } from './support.mjs';

const password = process.env.TEST_INGEST_PASSWORD || undefined;

for (const [where, socket] of [
  ['TCP', { port: ingestPort, host: '127.0.0.1' }],
  ['the Unix socket', { path: ingestSocket, tls: false }],
]) {
  test(`publishes over ${where}`, async (t) => {
    const redis = createClient({ socket, password });
    redis.on('error', (error) => assert.fail(error));
    await redis.connect();
    t.after(() => redis.destroy());

    assert.equal(await redis.publish('open:producer', JSON.stringify({ number: 0 })), 1);

    const pipelined = numbers(50, 1).map((number) => redis.publish('open:producer', JSON.stringify({ number })));
    assert.deepEqual(await Promise.all(pipelined), numbers(50).map(() => 1));

    const transaction = redis.multi();
    numbers(50, 51).forEach((number) => transaction.publish('open:producer', JSON.stringify({ number })));
    assert.deepEqual(await transaction.exec(), numbers(50).map(() => 1));

    const publish = ['TG.PUBLISH', 'kept:producer', '{"once":true}', 'ID', `key over ${where}`];
    const first = await redis.sendCommand(publish);
    assert.deepEqual(await redis.sendCommand(publish), first);

    assert.equal(await redis.sendCommand(['TG.SEND', 'user', '{"personal":true}']), 1);
    assert.equal(await redis.sendCommand(['TG.BROADCAST', '{"broadcast":true}']), 1);

    assert.deepEqual({ ...(await redis.pubSubNumSub(['open:producer', 'open:nobody'])) }, { 'open:producer': 1, 'open:nobody': 0 });
    assert.deepEqual(await redis.pubSubChannels('open:prod*'), ['open:producer']);

    await assert.rejects(redis.publish('open:producer', 'not JSON'), /JSON/);
    await assert.rejects(redis.get('key'), /unknown command/);
  });
}
