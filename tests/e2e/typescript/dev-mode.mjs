// The SDK's development mode, as an application uses it: no address, no token and no keys, only QSTASH_DEV=true.
// Publishes to a receiver of its own, which verifies, and prints what arrived.

import { once } from "node:events";
import { createServer } from "node:http";
import { Client, Receiver } from "@upstash/qstash";

const verifier = new Receiver();
const arrival = new Promise((resolve) => {
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const url = `http://127.0.0.1:${server.address().port}${request.url}`;
    const isGenuine = await verifier.verify({ signature: request.headers["upstash-signature"] ?? "", body, url });
    response.end();
    server.close();
    server.closeAllConnections();
    resolve({ messageId: request.headers["upstash-message-id"], body, isGenuine });
  });
  server.listen(0, "127.0.0.1");
  once(server, "listening").then(async () => {
    const url = `http://127.0.0.1:${server.address().port}/order`;
    const { messageId } = await new Client().publishJSON({ url, body: { order: 1 } });
    console.log(`published ${messageId}`);
  });
});
const { messageId, body, isGenuine } = await arrival;
console.log(`arrived ${messageId} ${body} ${isGenuine ? "genuine" : "forged"}`);
