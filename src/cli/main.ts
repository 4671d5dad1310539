#!/usr/bin/env node
import { train } from '../library/index.js';
const r = await train({
  epochs: 1,
  model: process.argv[2] ?? 'lenet5',
  workers: Number(process.argv[3] ?? 2),
  out: `/tmp/run-${process.pid}`,
  onEvent: e => {
    if (e.type !== 'step') console.log(JSON.stringify(e));
  },
});
console.log(r.seconds);
