// The same consume through rate-limiter-flexible on Redis, in a bare Node server: parse, consume, answer.
// Usage: node server.mjs REDIS_URL. Prints its port. Exits when its standard input closes.

import { createServer } from 'node:http';
import Redis from 'ioredis';
import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';

const limiter = new RateLimiterRedis({
  storeClient: new Redis(process.argv[2], { enableAutoPipelining: true }),
  points: 2_000_000_000,
  duration: 30 * 24 * 3600,
  keyPrefix: 'rlf',
});

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { userUuid, ap = 1 } = JSON.parse(Buffer.concat(chunks).toString());
  let status = 200;
  let state;
  try {
    state = await limiter.consume(userUuid, ap);
  } catch (denied) {
    if (!(denied instanceof RateLimiterRes)) throw denied;
    [status, state] = [429, denied];
  }
  const body = JSON.stringify({ allowed: status === 200, remaining: state.remainingPoints, resetMs: state.msBeforeNext });
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.end(body);
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.resume().on('end', () => process.exit());
