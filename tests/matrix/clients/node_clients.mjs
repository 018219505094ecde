// Node's fetch and node:http as a process: one job a line in, one answer out.
//
// Every socket is watched: a library that has its answer hides a reset, the matrix shows it.

import { createHash } from "node:crypto";
import diagnostics from "node:diagnostics_channel";
import http from "node:http";
import https from "node:https";
import readline from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const LOST = new Set(["ECONNRESET", "EPIPE", "ECONNABORTED"]);
const LINE = Buffer.from(process.env.MATRIX_LINE, "latin1");

const watch = { connections: 0, resets: [] };
diagnostics.subscribe("net.client.socket", ({ socket }) => {
  watch.connections += 1;
  socket.on("error", (error) => {
    if (LOST.has(error.code)) watch.resets.push(`${error.syscall ?? "?"} ${error.code}`);
  });
});

function* pieces(job) {
  const block = Buffer.alloc(job.piece + LINE.length, LINE);
  for (let at = 0; at < job.size; at += job.piece) {
    const start = at % LINE.length;
    yield block.subarray(start, start + Math.min(job.piece, job.size - at));
  }
}

async function* piecesLater(job) {
  let first = true;
  for (const piece of pieces(job)) {
    if (!first && job.pause) await sleep(job.pause * 1000);
    first = false;
    yield piece;
  }
}

function told(status, body) {
  return { status, length: body.length, digest: createHash("sha256").update(body).digest("hex") };
}

function failed(error) {
  const cause = error.cause ? ` (${error.cause.code ?? ""} ${error.cause.message ?? ""})` : "";
  return { error: `${error.name}: ${error.message}${cause}`.slice(0, 160) };
}

async function runPair(first, second) {
  watch.connections = 0;
  watch.resets = [];
  const answer = {};
  try {
    answer.first = await first();
  } catch (error) {
    return { first: failed(error), resets: watch.resets };
  }
  // An error of the socket may come a moment after the answer.
  await sleep(20);
  answer.resets = [...watch.resets];
  const before = watch.connections;
  try {
    answer.next = await second();
  } catch (error) {
    answer.next = failed(error);
  }
  answer.reused = watch.connections === before;
  return answer;
}

const address = (job, path) => `http${job.tls ? "s" : ""}://127.0.0.1:${job.port}${path}`;

function useFetch(job) {
  if (job.expect) return { unsupported: "fetch refuses to send Expect" };
  if (job.pause && !job.chunked) return { unsupported: "fetch sends streams as chunks" };
  const streamed = job.chunked || job.pause;
  const options = {
    method: "POST",
    headers: job.close ? { Connection: "close" } : {},
    body: streamed ? ReadableStream.from(piecesLater(job)) : Buffer.concat([...pieces(job)]),
    signal: AbortSignal.timeout(job.timeout * 1000),
    ...(streamed ? { duplex: "half" } : {}),
  };
  const ask = async (path, init) => {
    const response = await fetch(address(job, path), init);
    return told(response.status, Buffer.from(await response.arrayBuffer()));
  };
  return runPair(() => ask(job.path, options), () => ask(job.next, {
    signal: AbortSignal.timeout(job.timeout * 1000),
  }));
}

async function useHttp(job) {
  const agent = new (job.tls ? https : http).Agent({ keepAlive: true });
  const headers = job.chunked
    ? { "Transfer-Encoding": "chunked" }
    : { "Content-Length": job.size };
  if (job.close) headers.Connection = "close";
  if (job.expect) headers.Expect = "100-continue";
  try {
    return await runPair(
      () => send(job, agent, { method: "POST", path: job.path, headers }, true),
      () => send(job, agent, { method: "GET", path: job.next }, false),
    );
  } finally {
    agent.destroy();
  }
}

function send(job, agent, options, withBody) {
  return new Promise((resolve, reject) => {
    let answered = false;
    const request = (job.tls ? https : http).request({ host: "127.0.0.1", port: job.port, agent, ...options });
    request.setTimeout(job.timeout * 1000, () => request.destroy(new Error("timeout")));
    request.on("error", reject);
    request.on("response", (response) => {
      answered = true;
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("error", reject);
      response.on("end", () => resolve(told(response.statusCode, Buffer.concat(parts))));
    });
    if (!withBody) {
      request.end();
      return;
    }
    const write = async () => {
      for await (const piece of piecesLater(job)) {
        // With an answer there is nobody left who wants the rest, but the body was announced.
        if (request.destroyed) return;
        if (!request.write(piece)) {
          await new Promise((go) => {
            request.once("drain", go);
            request.once("close", go);
          });
        }
      }
      request.end();
    };
    if (job.expect === "patient") {
      const begun = setTimeout(write, 2000);
      request.on("continue", () => {
        clearTimeout(begun);
        write();
      });
      request.on("response", () => {
        clearTimeout(begun);
        // A final answer instead of the 100: the body is not sent.
        if (answered) request.destroySoon?.();
      });
      request.flushHeaders();
    } else {
      write();
    }
  });
}

const clients = { "Node fetch": useFetch, "node:http": useHttp };
const version = `${process.versions.node}`;
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
say({
  versions: { "Node fetch": `${version}, undici ${process.versions.undici}`, "node:http": version },
  missing: {},
});
for await (const line of readline.createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  say(await clients[job.client](job));
}
process.exit(0);
