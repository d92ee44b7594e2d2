// An AMQP front for the queue of `spillway local`, so that the official Service Bus SDKs can speak to
// it: messages that they send go to the queue's REST form, what they receive comes from there.
//
//   node amqp.mjs QUEUE_URL [PORT]     PORT 0, the default, is any that is free; it is printed
//
// The SDKs connect with UseDevelopmentEmulator=true, that is without TLS and with any key.

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { pathToFileURL } from "node:url";

import rhea from "rhea";

const HOP = 500; // ms that a receiver's wait for a message takes at a time

export async function start(queueUrl, port = 0) {
  const container = rhea.create_container({ id: "spillway-amqp" });
  container.sasl_server_mechanisms.enable_anonymous();
  const tokens = new Map(); // reply links of $cbs by connection

  container.on("sender_open", ({ sender, connection }) => {
    const address = sender.source?.address ?? "";
    echo(sender);
    if (address === "$cbs") tokens.set(connection, sender);
    else serve(sender, address);
  });
  container.on("receiver_open", ({ receiver }) => echo(receiver));
  // A receiver that completes a message waits for the broker to settle it.
  container.on("accepted", ({ delivery }) => delivery.update(true, rhea.message.accepted().described()));

  container.on("message", async ({ receiver, message, delivery, connection }) => {
    const address = receiver.target?.address ?? "";
    if (address === "$cbs") {
      delivery.accept();
      const answer = { "status-code": 202, "status-description": "Accepted" };
      tokens.get(connection).send({ correlation_id: message.message_id, application_properties: answer, body: "" });
      return;
    }
    const why = await send(queueUrl, entity(address), message);
    if (why) delivery.reject({ condition: "amqp:internal-error", description: why });
    else delivery.accept();
  });

  function serve(sender, address) {
    let busy = false;
    const pump = async () => {
      if (busy) return;
      busy = true;
      while (sender.is_open() && sender.sendable()) {
        const message = await take(queueUrl, entity(address));
        if (message && sender.is_open()) sender.send(message, randomBytes(16));
        if (sender.drain && sender.credit > 0 && !message) sender.set_drained(true);
      }
      busy = false;
    };
    sender.on("sendable", pump);
    sender.on("sender_flow", pump);
    sender.on("sender_draining", () => sender.set_drained(true));
  }

  const server = container.listen({ port, host: "127.0.0.1" });
  await once(server, "listening");
  return { port: server.address().port, close: () => server.close() };
}

// An attach has both ends, as the service's has; one SDK takes a link without for refused.
function echo(link) {
  link.set_source(link.source ?? {});
  link.set_target(link.target ?? {});
}

const entity = (address) => address.replace(/^amqps?:\/\/[^/]+\//, "");

// As the broker reads a message for its function: the data section is the body, typed properties
// become JSON as .NET's do (functions-host: a moment is ISO 8601).
async function send(queueUrl, queue, message) {
  const sections = message.body?.typecode === 0x75 ? [].concat(message.body.content) : null;
  if (!sections) return "the body is no data section";
  const annotations = message.message_annotations ?? {};
  const scheduled = annotations["x-opt-scheduled-enqueue-time"];
  const broker = {
    MessageId: text(message.message_id),
    CorrelationId: text(message.correlation_id),
    SessionId: text(message.group_id),
    ReplyTo: text(message.reply_to),
    ReplyToSessionId: text(message.reply_to_group_id),
    Label: text(message.subject),
    To: text(message.to),
    PartitionKey: text(annotations["x-opt-partition-key"]),
    ContentType: text(message.content_type),
    TimeToLive: message.ttl ? message.ttl / 1000 : undefined,
    ScheduledEnqueueTimeUtc: scheduled ? new Date(scheduled).toUTCString() : undefined,
  };
  const item = {
    Body: Buffer.concat(sections.map((part) => Buffer.from(part))).toString("utf8"),
    BrokerProperties: broker,
    UserProperties: message.application_properties ?? {},
  };
  const answer = await fetch(`${queueUrl}/${queue}/messages`, {
    method: "POST",
    headers: { "content-type": "application/vnd.microsoft.servicebus.json" },
    body: JSON.stringify([item]),
  });
  return answer.ok ? undefined : await answer.text();
}

const text = (value) => (value === undefined || value === null ? undefined : String(value));

async function take(queueUrl, queue) {
  const url = `${queueUrl}/${queue}/messages/head?timeout=0`;
  const answer = await fetch(url, { method: "DELETE" });
  if (answer.status !== 200) {
    await new Promise((resolve) => setTimeout(resolve, HOP));
    return undefined;
  }
  const broker = JSON.parse(answer.headers.get("brokerproperties"));
  const own = {};
  for (const [name, value] of answer.headers) {
    if (!["brokerproperties", "content-type", "content-length", "date"].includes(name)) own[name] = JSON.parse(value);
  }
  const now = new Date();
  return {
    message_id: broker.MessageId,
    correlation_id: broker.CorrelationId,
    group_id: broker.SessionId,
    reply_to: broker.ReplyTo,
    subject: broker.Label,
    content_type: answer.headers.get("content-type") ?? undefined,
    application_properties: own,
    message_annotations: {
      "x-opt-sequence-number": rhea.types.wrap_long(broker.SequenceNumber),
      "x-opt-enqueued-time": rhea.types.wrap_timestamp(now.getTime()),
      "x-opt-locked-until": rhea.types.wrap_timestamp(now.getTime() + 60_000),
    },
    delivery_count: broker.DeliveryCount - 1,
    body: rhea.message.data_section(Buffer.from(await answer.arrayBuffer())),
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const front = await start(process.argv[2], Number(process.argv[3] ?? 0));
  console.log(front.port);
}
