// A coordinator that listens: its door, its key, and its own node together with those that come in.

import { networkInterfaces } from 'node:os';
import { Cluster } from '../coordinator/cluster.js';
import { writeJoinFile } from '../coordinator/join-file.js';
import { runKey, type RunKey } from '../coordinator/key-file.js';
import { offerOf } from '../coordinator/offer.js';
import { referenceOf, type Check } from '../coordinator/reference.js';
import { Refusals } from '../coordinator/refusals.js';
import { startServer, type Door } from '../coordinator/server.js';
import { afterInput, type Clock } from '../shared/clock.js';
import { largestFrames } from '../shared/codec.js';
import type { Dataset } from '../shared/dataset.js';
import { LockstepError, messageOf } from '../shared/errors.js';
import type { RunEventBody } from '../shared/events.js';
import { plural } from '../shared/format.js';
import { formatAddress } from '../shared/handshake.js';
import { formatJoin } from '../shared/join.js';
import { leafJobOf } from '../shared/leaf-job.js';
import { isLoopback, isWildcard, LOOPBACK, outsideHost, type Listening } from '../shared/listen.js';
import type { LocalNode, NodeState } from '../shared/node.js';
import { systemFraction, systemRandom } from '../shared/random.js';
import type { Job } from '../shared/settings.js';
import { checkNumerics } from '../worker/numerics-check.js';

export interface ClusterParts {
  readonly listening: Listening;
  /** Whether nodes of any arithmetic may compute. */
  readonly isMixed: boolean;
  readonly job: Job;
  readonly dataset: Dataset;
  readonly runDir: string;
  readonly isResumed: boolean;
  /** Is closed with the cluster. */
  readonly own: LocalNode;
  /** Of the weights that `own` holds. */
  readonly from: Pick<NodeState, 'step' | 'hash'>;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly emit: (event: RunEventBody) => void;
  /** The run is to end, saved, for this reason. */
  readonly onGiveUp: (error: LockstepError) => void;
  /** Nodes of this machine that the coordinator starts itself, and how: they join with this line. */
  readonly processes?: OwnProcesses | undefined;
}

export interface OwnProcesses {
  readonly count: number;
  /** The name of their arithmetic, which is the run's. */
  readonly profile: string;
  /** Settles when all have ended, after `signal` aborts at the latest. Rejects where they cannot compute. */
  run(joinLine: string, signal: AbortSignal): Promise<unknown>;
}

export interface OpenCluster {
  readonly cluster: Cluster;
  /** The port that it listens on. */
  readonly port: number;
  /** Sends all agents home where the run is finished; else they come back to whoever resumes it. */
  close(isFinished: boolean): Promise<void>;
}

/** Shards wait in a connection up to about this; beside them there is room for some weights. */
const SHARDS_BYTES = 8_000_000;

/**
 * Opens the door, says where, and waits for as many nodes as the run wants.
 * @throws LOCKSTEP_LISTEN, LOCKSTEP_KEY_FILE, with `own` closed
 */
export async function openCluster(parts: ClusterParts): Promise<OpenCluster> {
  const { listening, job, dataset, runDir, own, from, clock, signal, onGiveUp } = parts;
  const { host, port, advertise, isInsecure, audit, patienceMs } = listening;
  let refusals: Refusals | undefined;
  let cluster: Cluster | undefined;
  let door: Door | undefined;
  let runsKey: RunKey | undefined;
  const stopProcesses = new AbortController();
  let processesEnded: Promise<unknown> | undefined;
  const onLost = (error: unknown): void => {
    onGiveUp(
      error instanceof LockstepError ? error : new LockstepError('LOCKSTEP_PROCESS_DIES', messageOf(error)),
    );
  };
  const close = async (isFinished: boolean): Promise<void> => {
    // In this order, so that agents are told that the run is finished before their connections end.
    if (cluster) await cluster.close(isFinished);
    else await own.close();
    stopProcesses.abort();
    await processesEnded;
    await door?.close();
    refusals?.close();
  };
  try {
    const counts = (refusals = new Refusals(clock, parts.emit));
    const emit = (event: RunEventBody): void => {
      if (event.type === 'node-refused') counts.tell(event.reason, event.address);
      else parts.emit(event);
    };
    const incarnation = Buffer.from(systemRandom(8)).toString('hex');
    const offer = offerOf(job, dataset, incarnation, { isMixed: parts.isMixed });
    const frames = largestFrames(job.model, offer.largestShardBytes);
    const nodes = (cluster = new Cluster({
      job,
      samples: { train: dataset.train.labels.length, test: dataset.test.labels.length },
      own,
      from,
      incarnation,
      ...offer,
      maxFrameBytes: frames.toCoordinator,
      audit,
      patienceMs,
      reference: parts.isMixed ? undefined : referenceIn(parts),
      clock,
      random: systemFraction,
      afterInput,
      emit,
      onGiveUp,
      signal,
    }));
    runsKey = runKey({
      keyFile: listening.keyFile,
      runDir,
      isResumed: parts.isResumed,
      env: process.env,
      random: systemRandom,
    });
    const { key } = runsKey;
    door = await startServer({
      host,
      port,
      key,
      isInsecure,
      names: advertise === undefined ? [] : [advertise],
      maxFrameBytes: frames.toCoordinator,
      mostBufferedBytes: SHARDS_BYTES + 4 * frames.toAgent,
      clock,
      random: systemRandom,
      onConnection: (connection, nodeId) => nodes.accept(connection, nodeId),
      onRefused: (reason, peer) => counts.count(reason, peer),
    });
    const { port: bound } = door.address;
    const known = outsideHost(
      listening,
      Object.values(networkInterfaces()).flatMap(list => list ?? []),
    );
    if (known === undefined) {
      const message =
        'This machine has no address that others reach, so the join line works on this machine alone. If they reach it ' +
        'by another address or name, say so with --advertise HOST.';
      emit({ type: 'warning', message });
    }
    const outside = known ?? LOOPBACK;
    const line = formatJoin({ host: outside, port: bound, key, isEncrypted: !isInsecure });
    if (!listening.isPrivate) runsKey.save();
    if (parts.isResumed && runsKey.isNew && !listening.isPrivate) {
      const message =
        `The run has no key in ${runsKey.path} and gets a new one: agents that had joined it are refused. If its key is ` +
        'elsewhere, name the file with --key-file.';
      emit({ type: 'warning', message });
    }
    if (listening.joinFile !== undefined) writeJoinFile(listening.joinFile, runDir, line);
    if (isInsecure && !(isLoopback(host) && advertise === undefined)) {
      const message =
        `Nothing is encrypted (--insecure), and ${outside} may be reached from elsewhere: whoever is on the way can ` +
        'read and change the images, weights and sums.';
      emit({ type: 'warning', message });
    }
    if (!listening.isPrivate) {
      const address = formatAddress(outside, bound);
      emit({ type: 'listening', address, ...(listening.joinFile === undefined && { join: line }) });
    }
    if (parts.processes) {
      const inside = isWildcard(host) ? LOOPBACK : host;
      const ownLine = formatJoin({ host: inside, port: bound, key, isEncrypted: !isInsecure });
      processesEnded = parts.processes.run(ownLine, stopProcesses.signal).catch(onLost);
    }
    await gather(nodes, parts);
    return { cluster: nodes, port: bound, close };
  } catch (error) {
    runsKey?.remove();
    await close(false);
    throw error;
  }
}

/** Waits for the nodes that the run wants before its first step, until it is aborted or has no patience left. */
async function gather(
  cluster: Cluster,
  { listening, own, clock, onGiveUp, processes }: ClusterParts,
): Promise<void> {
  const { minNodes, patienceMs } = listening;
  const wanted = Math.max(minNodes + (processes?.count ?? 0), own.threads === 0 ? 1 : 0);
  if (wanted === 0) return;
  const giveUp = (): void => {
    const seconds = Math.round(patienceMs / 1000);
    const text = `Fewer than ${plural(wanted, 'node')} joined within ${seconds} s (--patience).`;
    onGiveUp(new LockstepError('LOCKSTEP_NO_NODES', text));
  };
  const stopWaiting = patienceMs === Infinity ? undefined : clock.after(patienceMs, giveUp);
  await cluster.gather(wanted).finally(stopWaiting);
}

/** Where the reference itself cannot be had, nobody is let in, and the run ends. */
function referenceIn({ runDir, job, dataset, clock, onGiveUp, processes }: ClusterParts) {
  const computeOwn = () => checkNumerics(leafJobOf(job, dataset), { clock });
  const isOwn = job.settings.engine !== 'tensorflow';
  const wanted = referenceOf(runDir, isOwn ? computeOwn : undefined);
  return async (ofNode: Check): Promise<Check> => {
    // Whoever is there before the own processes must not decide what these have to be.
    const profile = processes?.profile ?? ofNode.profile;
    if (ofNode.profile !== profile) return { ...ofNode, profile };
    try {
      return await wanted(ofNode);
    } catch (error) {
      if (!(error instanceof LockstepError)) throw error;
      onGiveUp(error);
      return new Promise<never>(() => {});
    }
  };
}
