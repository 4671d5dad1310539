// The lock of a run folder: one process at a time, and none for ever.
//
// A lock is a file `lock-<n>` that names a process, and counts while that process lives. Whoever finds nobody alive
// makes the next number, and looks again: one that meets a living lower number withdraws, one that meets a higher one
// gives it the time to do so. A process that was killed leaves its file behind, and it counts for nothing. Process and
// start time are in the file from the first moment: it is written apart and linked to its name.

import { linkSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import * as v from 'valibot';
import { LockstepError } from '../shared/errors.js';

const ownerSchema = v.object({
  host: v.string(),
  pid: v.number(),
  /** When the process began, in clock ticks since the machine did; null where the system does not tell. */
  startTicks: v.nullable(v.number()),
});
type Owner = v.InferOutput<typeof ownerSchema>;

const lockName = /^lock-(\d+)$/;

/**
 * Takes the lock of `dir`; returns what gives it back.
 * @throws LOCKSTEP_RUN_LOCKED if a process that lives has it, in this program too
 */
export function lockFolder(dir: string): () => void {
  const content = JSON.stringify({
    host: hostname(),
    pid: process.pid,
    startTicks: startTicksOf(process.pid),
  } satisfies Owner);
  const apart = join(dir, `lock.${process.pid}.part`);
  for (;;) {
    const found = locksOf(dir);
    const owner = livingOwner(dir, found);
    if (owner) throw locked(dir, owner);
    const mine = Math.max(0, ...found) + 1;
    const path = join(dir, `lock-${mine}`);
    writeFileSync(apart, content);
    const isMade = tryLink(apart, path) ?? tryWrite(path, content);
    rmSync(apart, { force: true });
    if (!isMade) continue;
    const other = rivalOf(dir, mine);
    if (other) {
      rmSync(path, { force: true });
      throw locked(dir, other);
    }
    // Those that come now have higher numbers, so whatever is lower is of the dead.
    for (const n of locksOf(dir)) if (n < mine) rmSync(join(dir, `lock-${n}`), { force: true });
    return () => rmSync(path, { force: true });
  }
}

/** Looks at a higher number so often that a process which is about to withdraw has done it. */
const LOOKS = 200;

function rivalOf(dir: string, mine: number): Owner | undefined {
  for (let look = 0; ; look++) {
    const others = locksOf(dir).filter(n => n !== mine);
    const rival = livingOwner(dir, others);
    if (!rival || look === LOOKS) return rival;
    const lower = livingOwner(
      dir,
      others.filter(n => n < mine),
    );
    if (lower) return lower;
  }
}

/** Whether a process that lives has the lock. */
export function isLocked(dir: string): boolean {
  return livingOwner(dir, locksOf(dir)) !== undefined;
}

function livingOwner(dir: string, locks: readonly number[]): Owner | undefined {
  return locks.map(n => readOwner(dir, n)).find(owner => owner !== undefined && isAlive(owner));
}

function locksOf(dir: string): number[] {
  return readdirSync(dir).flatMap(name => lockName.exec(name)?.slice(1).map(Number) ?? []);
}

/** Undefined if the file has gone, or is none of ours. */
function readOwner(dir: string, n: number): Owner | undefined {
  try {
    return v.parse(ownerSchema, JSON.parse(readFileSync(join(dir, `lock-${n}`), 'utf8')));
  } catch {
    return undefined;
  }
}

/** Whether the name was free; undefined where the disk knows no links. */
function tryLink(from: string, to: string): boolean | undefined {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    if (['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].some(code => isCode(error, code))) return undefined;
    throw error;
  }
}

/** The second best: for a moment the file has its name and no content yet. */
function tryWrite(path: string, content: string): boolean {
  try {
    writeFileSync(path, content, { flag: 'wx' });
    return true;
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    throw error;
  }
}

/** A process on another host is taken to live: there is no way to ask. */
function isAlive({ host, pid, startTicks }: Owner): boolean {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (isCode(error, 'ESRCH')) return false;
  }
  return startTicks === null || startTicks === startTicksOf(pid);
}

/**
 * When a process began, from /proc/PID/stat (proc(5)): field 22, and field 3 is Z for one that has ended and not been
 * waited for. Fields are counted behind the name, which may hold spaces. Null for a dead one, and on other systems.
 */
function startTicksOf(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? null : Number(fields[19]);
  } catch {
    return null;
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function locked(dir: string, { host, pid }: Owner): LockstepError {
  const where = host === hostname() ? `Process ${pid}` : `Process ${pid} on ${host}`;
  const advice =
    host === hostname()
      ? 'Wait for its end, or end it.'
      : `If that process is gone, remove the files lock-* from the folder.`;
  return new LockstepError('LOCKSTEP_RUN_LOCKED', `${where} is at work in ${dir}. ${advice}`);
}
