// The official TypeScript client of Upstash Kafka, unchanged, against a running service; `node kafka.mjs <name>` runs
// one scenario. Reads KAFKA_URL and KAFKA_TOKEN; exits with 0 if everything was as expected.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { Kafka } from "@upstash/kafka";

const credentials = { url: process.env.KAFKA_URL, username: "anybody", password: process.env.KAFKA_TOKEN };
const kafka = new Kafka(credentials);
const producer = kafka.producer();
const consumer = kafka.consumer();
const admin = kafka.admin();

/** A topic of its own, with one record in each of its four partitions. */
async function newTopic() {
  const topic = `topic-${randomUUID()}`;
  for (let partition = 0; partition < 4; partition++) await producer.produce(topic, `p${partition}`, { partition });
  return topic;
}

/** An instance of a group of its own. */
function newInstance() {
  return { consumerGroupId: `group ${randomUUID()}`, instanceId: randomUUID() };
}

const valuesOf = (messages) => messages.map((message) => message.value).sort();

async function instanceOf({ consumerGroupId, instanceId }) {
  const group = (await admin.consumers()).find((one) => one.name === consumerGroupId);
  return group?.instances.find((one) => one.name === instanceId);
}

const remove = ({ consumerGroupId, instanceId }) => admin.removeConsumerInstance(consumerGroupId, instanceId);

const scenarios = {
  async objectsAndHeaders() {
    const header = { key: "signature", value: "äbcd" };
    const topic = await newTopic();
    const stored = await producer.produce(topic, { hello: "wörld" }, { headers: [header], key: "k", timestamp: 5 });
    assert.equal(stored.timestamp, 5);
    const [found] = await consumer.fetch(stored);
    assert.deepEqual({ ...found, value: JSON.parse(found.value) }, {
      ...stored,
      key: "k",
      value: { hello: "wörld" },
      headers: [header],
    });
  },

  async manyTopics() {
    const topics = [await newTopic(), await newTopic()];
    const stored = await producer.produceMany(
      topics.map((topic, at) => ({ topic, key: `k${at}`, value: { at } })),
    );
    assert.deepEqual(stored.map((one) => one.topic), topics);
    for (const parallel of [true, false]) {
      const found = await consumer.fetch({ topicPartitionOffsets: stored }, { parallel });
      assert.deepEqual(found.map((one) => [one.topic, one.key, one.value]), [
        [topics[0], "k0", '{"at":0}'],
        [topics[1], "k1", '{"at":1}'],
      ]);
    }
  },

  async topicsAreListed() {
    const topic = await newTopic();
    assert.equal((await admin.topics())[topic], 4);
  },

  async aSlashAtTheEndOfTheUrl() {
    const topic = await newTopic();
    const other = new Kafka({ ...credentials, url: `${credentials.url}/` });
    assert.equal((await other.admin().topics())[topic], 4);
  },

  async consumersAreVisibleAtOnce() {
    const instance = newInstance();
    await consumer.consume({ ...instance, topics: [await newTopic()], timeout: 0 });
    const found = await instanceOf(instance);
    assert.deepEqual(found.topics[0].partitions, [0, 1, 2, 3]);
    await remove(instance);
    assert.equal(await instanceOf(instance), undefined);
  },

  async earliest() {
    const instance = newInstance();
    const topics = [await newTopic(), await newTopic()];
    const one = await consumer.consume({ ...instance, topics: topics.slice(0, 1), autoOffsetReset: "earliest" });
    assert.deepEqual(valuesOf(one), ["p0", "p1", "p2", "p3"]);
    const both = await consumer.consume({ ...instance, topics });
    assert.deepEqual(valuesOf(both), ["p0", "p1", "p2", "p3"]);
    assert.deepEqual(new Set(both.map((message) => message.topic)), new Set(topics.slice(1)));
    await remove(instance);
  },

  async latestAndAWait() {
    const instance = newInstance();
    const topic = await newTopic();
    assert.deepEqual(await consumer.consume({ ...instance, topics: [topic], timeout: 0 }), []);
    await producer.produce(topic, "between");
    assert.deepEqual(valuesOf(await consumer.consume({ ...instance, topics: [topic] })), ["between"]);
    const waiting = consumer.consume({ ...instance, topics: [topic], timeout: 20_000 });
    await producer.produce(topic, "meanwhile");
    assert.deepEqual(valuesOf(await waiting), ["meanwhile"]);
    await remove(instance);
  },

  async autoCommitShowsAtOnce() {
    const instance = newInstance();
    const topic = await newTopic();
    await consumer.consume({ ...instance, topics: [topic], timeout: 0 });
    const topicPartitions = [{ topic, partition: 0 }, { topic, partition: 3 }];
    assert.deepEqual(
      await admin.committedOffsets({ ...instance, topicPartitions }),
      topicPartitions.map((place) => ({ ...place, offset: 1 })),
    );
    await remove(instance);
  },

  async commitAsGiven() {
    const instance = newInstance();
    const topic = await newTopic();
    const topicPartitions = [{ topic, partition: 0 }];
    await consumer.consume({ ...instance, topics: [topic], autoCommit: false, timeout: 0 });
    assert.equal((await consumer.committed({ ...instance, topicPartitions }))[0].offset, -1);
    await consumer.commit({ ...instance, offset: { topic, partition: 0, offset: 0 } });
    assert.equal((await consumer.committed({ ...instance, topicPartitions }))[0].offset, 0);
    await remove(instance);
  },

  async commitOfEverything() {
    const instance = newInstance();
    const topic = await newTopic();
    const request = { ...instance, topics: [topic], autoCommit: false, autoOffsetReset: "earliest", timeout: 0 };
    for (let again = 0; again < 2; again++) {
      assert.equal((await consumer.consume(request)).length, 4);
      await remove(instance);
    }
    assert.equal((await consumer.consume(request)).length, 4);
    await consumer.commit(instance);
    await remove(instance);
    assert.deepEqual(await consumer.consume(request), []);
    await remove(instance);
  },

  async twoInstances() {
    const [first, second] = [{ ...newInstance(), instanceId: "a" }, { instanceId: "b" }];
    second.consumerGroupId = first.consumerGroupId;
    const topic = await newTopic();
    for (const instance of [first, second]) await consumer.consume({ ...instance, topics: [topic], timeout: 0 });
    assert.deepEqual((await instanceOf(first)).topics, [{ topic, partitions: [0, 1] }]);
    assert.deepEqual((await instanceOf(second)).topics, [{ topic, partitions: [2, 3] }]);
    for (let partition = 0; partition < 4; partition++) await producer.produce(topic, `q${partition}`, { partition });
    assert.deepEqual(valuesOf(await consumer.consume({ ...first, topics: [topic] })), ["q0", "q1"]);
    await remove(first);
    assert.deepEqual(valuesOf(await consumer.consume({ ...second, topics: [topic] })), ["q2", "q3"]);
    assert.deepEqual((await instanceOf(second)).topics, [{ topic, partitions: [0, 1, 2, 3] }]);
    await remove(second);
  },

  async offsetsByTime() {
    const topic = await newTopic();
    for (const timestamp of [5, 9, 7, 12]) await producer.produce(topic, "x", { partition: 0, timestamp });
    const topicPartitions = [{ topic, partition: 0 }, { topic, partition: 1 }];
    const ask = async (timestamp) =>
      (await admin.topicPartitionOffsets({ timestamp, topicPartitions })).map((one) => one.offset);
    assert.deepEqual(await ask("earliest"), [0, 0]);
    assert.deepEqual(await ask("latest"), [5, 1]);
    assert.deepEqual(await ask(Math.floor(Date.now() / 1000)), [0, 0]);
    assert.deepEqual(await ask(Date.now() + 60_000), [5, 1]);
  },

  async errorsAreThoseOfTheService() {
    // The client repeats what fails for fifteen seconds.
    const stranger = new Kafka({ ...credentials, password: "wrong" });
    const refused = (name) => (error) => {
      assert.equal(error.name, "UpstashError");
      assert.match(error.message, name);
      return true;
    };
    const { consumerGroupId } = newInstance();
    await Promise.all([
      assert.rejects(stranger.admin().topics(), refused(/unauthorized/)),
      assert.rejects(admin.removeConsumerInstance(consumerGroupId, "nobody"), refused(/does not exist/)),
      assert.rejects(consumer.fetch({ topic: "nowhere", partition: 0, offset: 0 }), refused(/topic nowhere/)),
    ]);
  },
};

await scenarios[process.argv[2]]();
