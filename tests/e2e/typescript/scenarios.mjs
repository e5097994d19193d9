// The official TypeScript SDK, unchanged, against a running service; `node scenarios.mjs <name>` runs one scenario.
// Reads QSTASH_URL, QSTASH_TOKEN and the two signing keys; exits with 0 if everything was as expected.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { Client, Receiver } from "@upstash/qstash";

const client = new Client({ baseUrl: process.env.QSTASH_URL, token: process.env.QSTASH_TOKEN });
const verifier = new Receiver({
  currentSigningKey: process.env.QSTASH_CURRENT_SIGNING_KEY,
  nextSigningKey: process.env.QSTASH_NEXT_SIGNING_KEY,
});

/** Answers with the given statuses in turn, then 200; verifies the signature of whatever arrives. */
async function startReceiver(statuses = []) {
  const waiting = [];
  const arrived = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const signature = request.headers["upstash-signature"];
    const url = `http://127.0.0.1:${server.address().port}${request.url}`;
    const isGenuine = await verifier.verify({ signature, body, url }).catch(() => false);
    response.statusCode = statuses.shift() ?? 200;
    response.end("404 Not Found");
    const delivery = { method: request.method, path: request.url, headers: request.headers, body, isGenuine };
    const next = waiting.shift();
    if (next) next(delivery);
    else arrived.push(delivery);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    next: () => (arrived.length ? arrived.shift() : new Promise((resolve) => waiting.push(resolve))),
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function eventually(ask) {
  for (;;) {
    const found = await ask();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const scenarios = {
  async publishJson(receiver) {
    const { messageId } = await client.publishJSON({
      url: `${receiver.url}/json?a=b`,
      body: { hello: "wörld" },
      headers: { "test-header": "test-value" },
      retries: 2,
      label: "from-typescript",
      timeout: 30,
    });
    const delivery = await receiver.next();
    assert.ok(delivery.isGenuine, "the signature was not accepted");
    assert.equal(delivery.method, "POST");
    assert.equal(delivery.path, "/json?a=b");
    assert.equal(delivery.body, '{"hello":"wörld"}');
    assert.equal(delivery.headers["content-type"], "application/json");
    assert.equal(delivery.headers["test-header"], "test-value");
    assert.equal(delivery.headers["upstash-message-id"], messageId);
    assert.ok(!Object.keys(delivery.headers).some((name) => name.startsWith("upstash-telemetry")));
    const message = await client.messages.get(messageId);
    assert.deepEqual(message.header, { "Content-Type": ["application/json"], "Test-Header": ["test-value"] });
    assert.equal(message.body, '{"hello":"wörld"}');
    assert.equal(message.maxRetries, 2);
    assert.equal(message.label, "from-typescript");
  },

  async publishRaw(receiver) {
    await client.publish({ url: `${receiver.url}/raw`, body: "plain", method: "PUT" });
    const delivery = await receiver.next();
    assert.ok(delivery.isGenuine);
    assert.equal(delivery.method, "PUT");
    assert.equal(delivery.body, "plain");
  },

  async manyAtOnce(receiver) {
    const results = await Promise.all(
      Array.from({ length: 30 }, (_, n) => client.publishJSON({ url: `${receiver.url}/${n}`, body: { n } })),
    );
    const ids = new Set();
    for (let n = 0; n < 30; n++) {
      const delivery = await receiver.next();
      assert.ok(delivery.isGenuine);
      ids.add(delivery.headers["upstash-message-id"]);
    }
    assert.deepEqual(ids, new Set(results.map((result) => result.messageId)));
  },

  async delayAndCancel(receiver) {
    const { messageId } = await client.publishJSON({ url: receiver.url, body: {}, delay: "10d", retryDelay: "1000 * retried" });
    const message = await client.messages.get(messageId);
    assert.equal(message.notBefore, message.createdAt + 10 * 24 * 3600 * 1000);
    assert.equal(message.retryDelayExpression, "1000 * retried");
    assert.deepEqual(await client.messages.cancel(messageId), { cancelled: 1 });
    await assert.rejects(client.messages.get(messageId), /not found/);
  },

  async retryAndDeadLetter(receiver) {
    const { messageId } = await client.publishJSON({ url: receiver.url, body: {}, retries: 1, retryDelay: "0" });
    assert.equal((await receiver.next()).headers["upstash-retried"], "0");
    assert.equal((await receiver.next()).headers["upstash-retried"], "1");
    const letter = await eventually(async () => {
      const { messages } = await client.dlq.listMessages();
      return messages.find((each) => each.messageId === messageId);
    });
    assert.equal(letter.responseStatus, 404);
    assert.equal(letter.responseBody, "404 Not Found");
    await client.dlq.delete(letter.dlqId);
    await assert.rejects(client.dlq.delete(letter.dlqId), /not found/);
  },

  async laterReleases(receiver) {
    const refused = /not supported yet/;
    await assert.rejects(client.batchJSON([{ url: receiver.url, body: {} }]), refused);
    await assert.rejects(client.queue({ queueName: "q" }).enqueueJSON({ url: receiver.url, body: {} }), refused);
    await assert.rejects(client.publishJSON({ url: receiver.url, callback: "https://e.com" }), refused);
    await assert.rejects(client.publishJSON({ url: receiver.url, deduplicationId: "x" }), refused);
    await assert.rejects(client.publishJSON({ url: receiver.url, flowControl: { key: "k", rate: 1 } }), refused);
    await assert.rejects(client.schedules.create({ destination: receiver.url, cron: "* * * * *" }), refused);
    await assert.rejects(client.schedules.list(), refused);
    await assert.rejects(client.urlGroups.list(), refused);
    await assert.rejects(client.logs(), refused);
  },
};

const name = process.argv[2];
const receiver = await startReceiver(name === "retryAndDeadLetter" ? [404, 404] : []);
try {
  await scenarios[name](receiver);
} finally {
  receiver.close();
}
