// ioredis as a producer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import Redis from 'ioredis';
import { ingestPort, ingestSocket, numbers } from './support.mjs';

const password = process.env.TEST_INGEST_PASSWORD || undefined;

for (const [where, address] of [
  ['TCP', { port: ingestPort, host: '127.0.0.1' }],
  ['the Unix socket', { path: ingestSocket }],
]) {
  test(`publishes over ${where}`, async (t) => {
    const redis = new Redis({ ...address, password });
    t.after(() => redis.disconnect());

    assert.equal(await redis.publish('open:producer', JSON.stringify({ number: 0 })), 1);

    const pipeline = redis.pipeline();
    numbers(50, 1).forEach((number) => pipeline.publish('open:producer', JSON.stringify({ number })));
    assert.deepEqual(await pipeline.exec(), numbers(50).map(() => [null, 1]));

    const transaction = redis.multi();
    numbers(50, 51).forEach((number) => transaction.publish('open:producer', JSON.stringify({ number })));
    assert.deepEqual(await transaction.exec(), numbers(50).map(() => [null, 1]));

    const key = `key over ${where}`;
    const first = await redis.call('TG.PUBLISH', 'kept:producer', '{"once":true}', 'ID', key);
    const second = await redis.call('TG.PUBLISH', 'kept:producer', '{"once":true}', 'ID', key);
    assert.deepEqual(second, first);
    assert.equal(typeof first[0], 'number');
    assert.equal(typeof first[1], 'string');

    assert.equal(await redis.call('TG.SEND', 'user', '{"personal":true}'), 1);
    assert.equal(await redis.call('TG.BROADCAST', '{"broadcast":true}'), 1);

    assert.deepEqual(await redis.pubsub('NUMSUB', 'open:producer', 'open:nobody'), ['open:producer', 1, 'open:nobody', 0]);
    assert.deepEqual(await redis.pubsub('CHANNELS', 'open:prod*'), ['open:producer']);

    await assert.rejects(redis.publish('open:producer', 'not JSON'), /JSON/);
    await assert.rejects(redis.call('GET', 'key'), /^ReplyError: ERR unknown command 'GET'/i);
  });
}
