// How a run is shown: a progress bar on a terminal, plain lines elsewhere, JSON for programs.

// Its Format is found on the default export only.
import cliProgress, { MultiBar, type GenericFormatter, type SingleBar } from 'cli-progress';
import colors from 'picocolors';
import type { EventOf, NodeReport, RunEvent } from '../library/index.js';
import { columnsOr, integer, percent, plural, warningLine } from './format.js';
import { describeNode, nodeTable } from './node-table.js';
import { progressLine } from './progress-line.js';

export interface Display {
  show(event: RunEvent): void;
  /** Leaves the terminal as it was. */
  end(): void;
}

export function chooseDisplay({
  json,
  quiet,
}: {
  json?: boolean | undefined;
  quiet?: boolean | undefined;
}): Display {
  if (json) return jsonDisplay;
  if (quiet) return { show: () => {}, end: () => {} };
  return process.stdout.isTTY ? new TerminalDisplay() : plainDisplay;
}

const jsonDisplay: Display = {
  show: event => process.stdout.write(`${JSON.stringify(event)}\n`),
  end: () => {},
};

const plainDisplay: Display = {
  show(event) {
    const line = event.type === 'listening' ? describeListening(event, false) : describe(event);
    if (line !== undefined) process.stdout.write(`${line}\n`);
  },
  end: () => {},
};

/** Nodes that are shown; a low terminal shows fewer. */
const MOST_NODES = 10;

/** The same lines, above a bar that shows where the run is and a table of its remote nodes. */
class TerminalDisplay implements Display {
  readonly #bars = new MultiBar({
    format: formatProgress,
    stream: process.stdout,
    hideCursor: true,
    // The terminal goes on to wrap the lines above the bar, which may be longer than it is wide.
    linewrap: true,
    clearOnComplete: true,
    // Lines above it move it down, to where something else stood.
    forceRedraw: true,
    gracefulExit: false,
    emptyOnZero: true,
    etaBuffer: 50,
  });
  #bar: SingleBar | undefined;
  #epochs = 0;
  readonly #nodes = new Map<string, NodeReport>();
  /** Lines of the table, each a bar for the library. */
  #tableRows = 0;
  #table: { readonly columns: number; readonly lines: readonly string[] } | undefined;

  show(event: RunEvent): void {
    if (event.type === 'start') this.#epochs = event.epochs;
    const line = event.type === 'listening' ? describeListening(event, true) : describe(event);
    if (event.type === 'done') this.end();
    if (line !== undefined) {
      if (this.#bar) {
        this.#bars.log(`${line}\n`);
        // Of the table more stands below than the library clears.
        this.#bars.once('redraw-pre', () => process.stdout.clearScreenDown());
        this.#bars.update();
      } else {
        process.stdout.write(`${line}\n`);
      }
    }
    if (event.type === 'start') {
      const unknown = { epoch: `1/${event.epochs}`, rate: '-', loss: '-', accuracy: '-' };
      this.#bar = this.#bars.create(event.totalSteps, event.resumedStep, unknown);
    }
    if (event.type === 'step') {
      this.#bar?.update(event.step, {
        epoch: `${event.epoch}/${this.#epochs}`,
        rate: integer(event.imagesPerSecond),
        loss: event.loss.toFixed(4),
        accuracy: percent(event.accuracy),
      });
    }
    if (event.type === 'node') this.#showNode(event);
  }

  #showNode(report: NodeReport): void {
    this.#nodes.set(report.node, report);
    this.#table = undefined;
    if (!this.#bar) return;
    while (this.#tableRows < this.#tableLines(columnsOr(80)).length) {
      const row = this.#tableRows++;
      const format: GenericFormatter = (_, { maxWidth }) => this.#tableLines(maxWidth - 1)[row] ?? '';
      this.#bars.create(0, 0, {}, { format });
    }
  }

  /** Made once for each redraw. */
  #tableLines(columns: number): readonly string[] {
    if (this.#table?.columns !== columns) {
      // The line of progress, the heads, the last line and the shell's stand there too.
      const most = Math.max(1, Math.min(MOST_NODES, (process.stdout.rows || 24) - 4));
      this.#table = { columns, lines: nodeTable([...this.#nodes.values()], columns, most) };
    }
    return this.#table.lines;
  }

  end(): void {
    this.#bars.stop();
    this.#bar = undefined;
  }
}

const formatProgress: GenericFormatter = (options, { progress, eta, maxWidth }, payload) => {
  const { epoch, rate, loss, accuracy }: Record<string, string> = payload;
  const parts = [
    { rank: 0, text: `${Math.floor(progress * 100)}%` },
    { rank: 1, text: `epoch ${epoch}` },
    { rank: 5, text: `${rate} images/s` },
    { rank: 4, text: `loss ${loss}` },
    { rank: 3, text: `accuracy ${accuracy}` },
    { rank: 2, text: `ETA ${cliProgress.Format.TimeFormat(eta, options, 5)}` },
  ];
  const drawBar = (barsize: number): string =>
    cliProgress.Format.BarFormat(progress, { ...options, barsize });
  // What is cleared behind a full line would be its last letter.
  return progressLine(parts, drawBar, maxWidth - 1);
};

/** The line that tells an event to a person, if it deserves one. */
function describe(event: RunEvent): string | undefined {
  switch (event.type) {
    case 'start':
      return describeStart(event);
    case 'epoch':
      return describeEpoch(event);
    case 'done':
      return describeDone(event);
    case 'warning':
      return warningLine(event.message);
    case 'thread-lost':
      return (
        `${colors.yellow('thread lost')}  thread ${event.thread} in phase ${event.phase} after step ${event.step}: ` +
        `${event.reason}. It is replaced and the step done again; the result does not change.`
      );
    case 'node-joined':
      return (
        `${colors.green('node joined')}  ${nodeLabel(event)} with ${plural(event.threads, 'thread')}, ` +
        `from ${event.address}`
      );
    case 'node-lost':
      return (
        `${colors.yellow('node lost')}  ${nodeLabel(event)}: ${printable(event.reason)}. Others compute its lanes; the ` +
        'result does not change.'
      );
    case 'node-refused':
      return `${colors.yellow('refused')}  ${event.address}: ${printable(event.reason)}`;
    case 'lease-expired':
      return (
        `${colors.yellow('late')}  ${nodeLabel(event)} did not answer for lanes ${event.fromLane} to ` +
        `${event.toLane - 1} of step ${event.step + 1} in time; they went to another`
      );
    case 'waiting':
      return `${colors.yellow('waiting')}  ${event.message}`;
    case 'interrupted':
      return event.nodes?.length ? event.nodes.map(describeNode).join('\n') : undefined;
    case 'step':
    case 'checkpoint':
    case 'error':
    case 'listening':
    case 'node':
      return undefined;
  }
}

/** The join line holds the key, so it is for a terminal that somebody looks at, and not for a file. */
function describeListening({ address, join }: EventOf<'listening'>, isTerminal: boolean): string {
  if (join === undefined)
    return `listening on ${address}; the join line is in the file that --join-file names`;
  return isTerminal
    ? `listening on ${address}; on each other machine run\n${colors.bold(`lockstep worker '${join}'`)}`
    : `listening on ${address}; the join line holds the key and is shown on a terminal only: give --join-file or --json`;
}

function nodeLabel({ node, name }: { readonly node: string; readonly name: string }): string {
  return `${name} (${node.slice(0, 8)})`;
}

/** A text of somebody else, without what would move the cursor. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, '?');
}

function describeStart(event: EventOf<'start'>): string {
  const { model, parameters, dataset, trainSamples, testSamples, epochs, totalSteps, batch, leaf, lanes } =
    event;
  return [
    `${colors.bold(model)} (${integer(parameters)} parameters) on ${dataset} ` +
      `(${integer(trainSamples)} training images, ${integer(testSamples)} test images)`,
    `${plural(totalSteps, 'step')} in ${plural(epochs, 'epoch')}, ${plural(batch, 'image')} a step in ${plural(lanes, 'lane')} of ${leaf}; ` +
      `${plural(event.workers, 'worker')}, engine ${event.engine}, seed ${event.seed}` +
      (event.resumedStep > 0 ? `; going on after step ${integer(event.resumedStep)}` : ''),
  ].join('\n');
}

function describeEpoch(event: EventOf<'epoch'>): string {
  return (
    `epoch ${event.epoch}  train loss ${event.trainLoss.toFixed(4)}, accuracy ${percent(event.trainAccuracy)}  ` +
    `test loss ${event.testLoss.toFixed(4)}, accuracy ${percent(event.testAccuracy)}` +
    (event.imagesPerSecond > 0 ? colors.dim(`  ${integer(event.imagesPerSecond)} images/s`) : '')
  );
}

export function describeDone(event: EventOf<'done'>): string {
  const { threads } = event;
  // A run that is resumed after its last step computes none.
  const leaves = threads.reduce((sum, thread) => sum + thread.leaves, 0);
  const shares = threads.map(thread => Math.round((100 * thread.leaves) / leaves));
  const byThread =
    threads.length <= 8
      ? shares.map(share => `${share} %`).join(', ')
      : `${Math.min(...shares)} % to ${Math.max(...shares)} %`;
  return [
    `${colors.green('done')} in ${event.seconds.toFixed(1)} s: test accuracy ${colors.bold(percent(event.testAccuracy))}, ` +
      `test loss ${event.testLoss.toFixed(4)}, ${integer(event.imagesPerSecond)} images/s`,
    `  hash            ${event.hash}`,
    `  weights SHA-256 ${event.weightsSha256}`,
    // Without threads of its own the nodes have computed everything.
    ...(threads.length > 0
      ? [`  leaves          ${integer(leaves)}${leaves > 0 ? `, by thread ${byThread}` : ''}`]
      : []),
    ...(event.nodes ?? []).map(report => `  ${describeNode(report)}`),
    `  kept in         ${event.runDir}`,
  ].join('\n');
}
