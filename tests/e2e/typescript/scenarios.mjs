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

  async callbacks(receiver) {
    const { messageId } = await client.publishJSON({
      url: `${receiver.url}/source`,
      body: { n: 1 },
      retries: 0,
      callback: `${receiver.url}/callback?a=b`,
      failureCallback: `${receiver.url}/failure?c=d`,
    });
    const message = await client.messages.get(messageId);
    assert.equal(message.callback, `${receiver.url}/callback?a=b`);
    assert.equal(message.failureCallback, `${receiver.url}/failure?c=d`);
    assert.equal((await receiver.next()).path, "/source");
    const reports = [await receiver.next(), await receiver.next()];
    assert.deepEqual(reports.map((report) => report.path).sort(), ["/callback?a=b", "/failure?c=d"]);
    for (const report of reports) {
      assert.ok(report.isGenuine);
      const told = JSON.parse(report.body);
      assert.equal(told.status, 404);
      assert.equal(told.sourceMessageId, messageId);
      assert.equal(atob(told.body), "404 Not Found");
      assert.equal(atob(told.sourceBody), '{"n":1}');
      if (report.path.startsWith("/failure")) await client.dlq.delete(told.dlqId);
    }
  },

  async deduplication(receiver) {
    const publish = (n) => client.publishJSON({ url: receiver.url, body: { n }, deduplicationId: `ts-${receiver.url.slice(-5)}` });
    const first = await publish(1);
    assert.equal(first.deduplicated, undefined);
    assert.deepEqual(await publish(2), { messageId: first.messageId, deduplicated: true });
    assert.equal((await receiver.next()).body, '{"n":1}');
  },

  async redaction(receiver) {
    const secret = "typescript-s3cret";
    const { messageId } = await client.publish({
      url: receiver.url,
      body: secret,
      headers: { "x-secret": secret },
      redact: { body: true, header: ["X-Secret"] },
    });
    const delivery = await receiver.next();
    assert.deepEqual([delivery.body, delivery.headers["x-secret"]], [secret, secret]);
    const { logs } = await client.logs({ messageIds: [messageId] });
    assert.ok(logs.length > 0);
    const shown = JSON.stringify([logs, await client.messages.get(messageId)]);
    assert.ok(!shown.includes(secret) && !shown.includes(btoa(secret)));
  },

  async logs(receiver) {
    // An earlier receiver may have had the same port.
    const fromDate = new Date();
    const labels = [`one-${receiver.url.slice(-5)}`, `two-${receiver.url.slice(-5)}`];
    for (const label of labels) await client.publish({ url: `${receiver.url}/${label}`, label });
    const host = receiver.url.replace("http://", "");
    const logs = await eventually(async () => {
      const found = (await client.logs({ filter: { label: labels } })).logs;
      return found.length === 6 && found;
    });
    assert.deepEqual([...new Set(logs.map((log) => log.label))].sort(), labels);
    for (const [filter, length] of [
      [{ host, fromDate }, 6],
      [{ host, fromDate, path: `/${labels[0]}` }, 3],
      [{ url: labels.map((label) => `${receiver.url}/${label}`) }, 6],
      [{ label: labels[0], state: "DELIVERED" }, 1],
      [{ host, fromDate: new Date(0), toDate: new Date(1) }, 0],
    ]) {
      const page = await client.logs({ filter });
      assert.equal(page.logs.length, length, JSON.stringify(filter));
      assert.equal(page.cursor, undefined);
    }
    const first = await client.logs({ filter: { host, fromDate }, count: 4 });
    const second = await client.logs({ filter: { host, fromDate }, count: 4, cursor: first.cursor });
    assert.deepEqual([...first.logs, ...second.logs], logs);
    assert.deepEqual((await client.events({ filter: { host, fromDate } })).events, logs);
  },

  async cancelMany(receiver) {
    const label = `cancel-${receiver.url.slice(-5)}`;
    const publish = async (path) => (await client.publish({ url: `${receiver.url}${path}`, delay: "10d", label })).messageId;
    const ids = [await publish("/a"), await publish("/a"), await publish("/b"), await publish("/c"), await publish("/d")];
    const host = receiver.url.replace("http://", "");
    assert.deepEqual(await client.messages.cancel(ids.slice(0, 2)), { cancelled: 2 });
    assert.deepEqual(await client.messages.cancel({ filter: { host, path: "/b" } }), { cancelled: 1 });
    assert.deepEqual(await client.messages.cancel({ filter: { label }, count: 1 }), { cancelled: 1 });
    assert.deepEqual(await client.messages.cancel({ filter: { label: [label, "other"] } }), { cancelled: 1 });
    assert.deepEqual(await client.messages.cancel({ filter: { label } }), { cancelled: 0 });
  },

  async deadLettersInBulk(receiver) {
    const label = `dead-${receiver.url.slice(-5)}`;
    for (let n = 0; n < 6; n++) await client.publish({ url: `${receiver.url}/${n}`, retries: 0, label });
    const letters = await eventually(async () => {
      const { messages } = await client.dlq.listMessages({ filter: { label } });
      return messages.length === 6 && messages;
    });
    const ids = letters.map((letter) => letter.dlqId);
    assert.equal((await client.dlq.listMessages({ dlqIds: ids.slice(0, 2) })).messages.length, 2);
    assert.equal((await client.dlq.delete({ dlqIds: ids.slice(0, 2) })).deleted, 2);
    assert.deepEqual(await client.dlq.deleteMany({ dlqIds: ids.slice(0, 2) }), { deleted: 0 });
    assert.equal((await client.dlq.retry(ids[2])).responses.length, 1);
    await assert.rejects(client.dlq.retry(ids.slice(2, 4)), /not found/);
    const page = await client.dlq.retry({ filter: { label }, count: 2 });
    assert.equal(page.responses.length, 2);
    assert.equal(typeof page.cursor, "string");
    assert.deepEqual(await client.dlq.delete({ filter: { label, responseStatus: [404, 999] } }), { deleted: 1 });
    assert.deepEqual(await client.dlq.retry({ filter: { label } }), { cursor: undefined, responses: [] });
    await assert.rejects(client.dlq.delete({ filter: { lable: "x" } }), /lable/);
  },

  async queues(receiver) {
    const name = `ts-${receiver.url.slice(-5)}`;
    const queue = client.queue({ queueName: name });
    await queue.upsert({ parallelism: 2, paused: true });
    const created = await queue.get();
    assert.deepEqual({ ...created, createdAt: 0, updatedAt: 0 }, { name, parallelism: 2, lag: 0, paused: true, createdAt: 0, updatedAt: 0 });
    assert.ok((await queue.list()).some((each) => each.name === name));
    const { messageId } = await queue.enqueueJSON({
      url: `${receiver.url}/json`,
      body: { n: 1 },
      delay: 0,
      retries: 1,
      callback: `${receiver.url}/callback`,
      deduplicationId: name,
    });
    assert.deepEqual(await queue.enqueueJSON({ url: receiver.url, deduplicationId: name }), { messageId, deduplicated: true });
    await queue.enqueue({ url: `${receiver.url}/raw`, body: "plain", method: "PUT" });
    assert.equal((await client.messages.get(messageId)).queueName, name);
    assert.equal((await queue.get()).lag, 2);
    await queue.resume();
    const deliveries = [await receiver.next(), await receiver.next(), await receiver.next()];
    assert.ok(deliveries.every((delivery) => delivery.isGenuine));
    assert.deepEqual(deliveries.map((delivery) => delivery.path).sort(), ["/callback", "/json", "/raw"]);
    await queue.pause();
    assert.equal((await queue.get()).paused, true);
    await queue.upsert({ parallelism: 1 });
    const updated = await queue.get();
    assert.deepEqual([updated.parallelism, updated.paused, updated.createdAt], [1, false, created.createdAt]);
    await queue.pause();
    await queue.enqueue({ url: receiver.url });
    assert.deepEqual(await client.messages.cancel({ filter: { queueName: name } }), { cancelled: 1 });
    await queue.delete();
    await assert.rejects(queue.get(), /not found/);
  },

  async inOrder(receiver) {
    const queue = client.queue({ queueName: `ts-order-${receiver.url.slice(-5)}` });
    for (let n = 0; n < 5; n++) await queue.enqueue({ url: `${receiver.url}/${n}`, retryDelay: "0" });
    const paths = [];
    while (paths.length < 7) paths.push((await receiver.next()).path);
    assert.deepEqual(paths, ["/0", "/0", "/0", "/1", "/2", "/3", "/4"]);
    await queue.delete();
  },

  async batches(receiver) {
    const key = `ts-${receiver.url.slice(-5)}`;
    const results = await client.batchJSON([
      { url: `${receiver.url}/json`, body: { n: 1 }, headers: { "x-mine": "1" } },
      { queueName: key, url: `${receiver.url}/queued`, body: [], deduplicationId: key },
      { url: `${receiver.url}/repeat`, deduplicationId: key },
      { url: `${receiver.url}/limited`, flowControl: { key, rate: 10, period: "1d" }, label: ["a", "b"] },
    ]);
    results.push(...(await client.batch([{ url: `${receiver.url}/raw`, body: "plain", method: "PUT" }])));
    assert.deepEqual(results[2], { messageId: results[1].messageId, deduplicated: true });
    const deliveries = {};
    for (let n = 0; n < 4; n++) {
      const delivery = await receiver.next();
      assert.ok(delivery.isGenuine);
      deliveries[delivery.path] = delivery;
    }
    assert.equal(deliveries["/json"].headers["x-mine"], "1");
    assert.equal(deliveries["/json"].headers["upstash-message-id"], results[0].messageId);
    assert.equal(deliveries["/queued"].body, "[]");
    assert.deepEqual([deliveries["/raw"].method, deliveries["/raw"].body], ["PUT", "plain"]);
    const limited = await client.messages.get(results[3].messageId);
    assert.deepEqual([limited.flowControlKey, limited.rate, limited.period, limited.labels], [key, 10, 86400, ["a", "b"]]);
    assert.ok(!("parallelism" in limited));
    assert.equal((await client.messages.get(results[1].messageId)).queueName, key);
    const [wrong, right] = await client.batch([{ url: "ftp://x" }, { url: receiver.url }]);
    assert.match(wrong.error, /invalid scheme/);
    assert.ok(right.messageId);
  },

  async flowControl(receiver) {
    const key = `ts-${receiver.url.slice(-5)}`;
    await client.flowControl.pause(key);
    const { messageId } = await client.publish({ url: receiver.url, flowControl: { key, parallelism: 3, rate: 4, period: 2 } });
    const message = await client.messages.get(messageId);
    assert.deepEqual([message.flowControlKey, message.parallelism, message.rate, message.period], [key, 3, 4, 2]);
    const waiting = await eventually(async () => {
      const info = await client.flowControl.get(key);
      return info.waitListSize === 1 && info;
    });
    assert.deepEqual({ ...waiting, ratePeriodStart: 0 }, {
      flowControlKey: key,
      waitListSize: 1,
      parallelismMax: 3,
      parallelismCount: 0,
      rateMax: 4,
      rateCount: 0,
      ratePeriod: 2,
      ratePeriodStart: 0,
      isPaused: true,
      isPinnedParallelism: false,
      isPinnedRate: false,
    });
    await client.flowControl.pin(key, { parallelism: 5, rate: 20, period: 120 });
    await client.flowControl.unpin(key, { parallelism: true });
    const pinned = await client.flowControl.get(key);
    assert.deepEqual(
      [pinned.parallelismMax, pinned.rateMax, pinned.ratePeriod, pinned.isPinnedParallelism, pinned.isPinnedRate],
      [5, 20, 120, false, true],
    );
    await client.flowControl.resume(key);
    await receiver.next();
    assert.equal((await client.flowControl.get(key)).rateCount, 1);
    await client.flowControl.resetRate(key);
    assert.equal((await client.flowControl.get(key)).rateCount, 0);
    await client.flowControl.unpin(key, { rate: true });
    assert.equal((await client.flowControl.get(key)).isPinnedRate, false);
    const everybody = await client.flowControl.getGlobalParallelism();
    assert.ok(everybody.parallelismMax > 0 && everybody.parallelismCount >= 0);
    await client.publish({ url: receiver.url, flowControl: { key, rate: 4 }, delay: "10d" });
    assert.deepEqual(await client.messages.cancel({ filter: { flowControlKey: [key, "other"] } }), { cancelled: 1 });
  },

  async urlGroups(receiver) {
    const name = `ts-${receiver.url.slice(-5)}`;
    const endpoints = [{ url: `${receiver.url}/?x=1` }, { name: "the second", url: `${receiver.url}/?x=2` }];
    await client.urlGroups.delete(name);
    await client.urlGroups.addEndpoints({ name, endpoints: endpoints.slice(0, 1) });
    await client.urlGroups.addEndpoints({ name, endpoints: endpoints.slice(1) });
    const group = await client.urlGroups.get(name);
    assert.deepEqual(group.endpoints, endpoints);
    assert.ok((await client.urlGroups.list()).some((each) => each.name === name && each.endpoints.length === 2));
    const results = await client.publishJSON({ urlGroup: name, body: { n: 1 }, deduplicationId: name });
    assert.deepEqual(results.map((result) => result.url), endpoints.map((endpoint) => endpoint.url));
    const repeats = await client.publishJSON({ urlGroup: name, body: { n: 1 }, deduplicationId: name });
    assert.deepEqual(repeats, results.map((result) => ({ ...result, deduplicated: true })));
    for (let n = 0; n < 2; n++) {
      const delivery = await receiver.next();
      assert.ok(delivery.isGenuine);
      assert.equal(delivery.headers["upstash-topic-name"], name);
    }
    for (const { messageId } of results) {
      const message = await client.messages.get(messageId);
      assert.deepEqual([message.topicName, message.urlGroup], [name, name]);
    }
    const [enqueued, single] = await client.batchJSON([
      { urlGroup: name, queueName: name, body: {} },
      { url: `${receiver.url}/single`, body: {} },
    ]);
    assert.equal(enqueued.length, 2);
    assert.ok(single.messageId);
    for (let n = 0; n < 3; n++) await receiver.next();
    const { logs } = await client.logs({ filter: { urlGroup: name, state: "CREATED" } });
    assert.equal(logs.length, 4);
    await client.queue({ queueName: name }).delete();
    await client.urlGroups.removeEndpoints({ name, endpoints: [{ name: "the second" }] });
    assert.deepEqual((await client.urlGroups.get(name)).endpoints, endpoints.slice(0, 1));
    await client.urlGroups.delete(name);
    await assert.rejects(client.urlGroups.get(name), /not found/);
    await assert.rejects(client.publish({ urlGroup: name }), new RegExp(`topic ${name} not found`));
  },

  async schedules(receiver) {
    const scheduleId = `ts-${receiver.url.slice(-5)}`;
    const created = await client.schedules.create({
      scheduleId,
      destination: `${receiver.url}/hourly`,
      cron: " 0 * * * * ",
      body: JSON.stringify({ a: 1 }),
      headers: { "test-header": "value" },
      delay: 10,
      retries: 4,
      timeout: "30s",
      callback: `${receiver.url}/callback?a=b`,
      failureCallback: `${receiver.url}/failure`,
      queueName: scheduleId,
      flowControl: { key: scheduleId, rate: 3, period: "1d" },
      label: "scheduled",
      retryDelay: "1000 * retried",
    });
    assert.deepEqual(created, { scheduleId });
    // The SDK adds ratePerSecond itself.
    const { createdAt, nextScheduleTime, ratePerSecond, ...schedule } = await client.schedules.get(scheduleId);
    assert.ok(nextScheduleTime > createdAt && nextScheduleTime % 3600000 === 0);
    assert.deepEqual(schedule, {
      scheduleId,
      destination: `${receiver.url}/hourly`,
      cron: "0 * * * *",
      method: "POST",
      header: { "Content-Type": ["application/json"], "Test-Header": ["value"] },
      body: '{"a":1}',
      delay: 10,
      retries: 4,
      timeout: 30,
      callback: `${receiver.url}/callback?a=b`,
      failureCallback: `${receiver.url}/failure`,
      queueName: scheduleId,
      flowControlKey: scheduleId,
      rate: 3,
      period: 86400,
      label: "scheduled",
      labels: ["scheduled"],
      retryDelayExpression: "1000 * retried",
      isPaused: false,
      callerIP: "127.0.0.1",
      callerIp: "127.0.0.1",
    });
    await client.schedules.pause({ schedule: scheduleId });
    assert.equal((await client.schedules.get(scheduleId)).isPaused, true);
    await client.schedules.resume({ schedule: scheduleId });
    assert.equal((await client.schedules.get(scheduleId)).isPaused, false);
    await client.schedules.create({ scheduleId, destination: `${receiver.url}/daily`, cron: "0 0 * * *" });
    const replaced = await client.schedules.get(scheduleId);
    assert.equal(replaced.destination, `${receiver.url}/daily`);
    assert.ok(!("body" in replaced) && !("queueName" in replaced));
    assert.equal((await client.schedules.list()).filter((each) => each.scheduleId === scheduleId).length, 1);
    await client.schedules.delete(scheduleId);
    await assert.rejects(client.schedules.get(scheduleId), /not found/);
    await assert.rejects(client.schedules.create({ destination: receiver.url, cron: "every day" }), /Upstash-Cron/);
  },
};

const name = process.argv[2];
const failures = { retryAndDeadLetter: 2, callbacks: 1, deadLettersInBulk: 6, inOrder: 2 };
const receiver = await startReceiver(Array(failures[name] ?? 0).fill(404));
try {
  await scenarios[name](receiver);
} finally {
  receiver.close();
}
