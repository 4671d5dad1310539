// How a run is shown: a progress bar on a terminal, plain lines elsewhere, JSON for programs.

// Its Format is found on the default export only.
import cliProgress, { MultiBar, type GenericFormatter, type SingleBar } from 'cli-progress';
import colors from 'picocolors';
import type { EventOf, RunEvent } from '../library/index.js';
import { integer, percent, plural, warningLine } from './format.js';
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
    const line = describe(event);
    if (line !== undefined) process.stdout.write(`${line}\n`);
  },
  end: () => {},
};

/** The same lines, above a bar that shows where the run is. */
class TerminalDisplay implements Display {
  readonly #bars = new MultiBar({
    format: formatProgress,
    stream: process.stdout,
    hideCursor: true,
    // The terminal goes on to wrap the lines above the bar, which may be longer than it is wide.
    linewrap: true,
    clearOnComplete: true,
    gracefulExit: false,
    emptyOnZero: true,
    etaBuffer: 50,
  });
  #bar: SingleBar | undefined;
  #epochs = 0;

  show(event: RunEvent): void {
    if (event.type === 'start') this.#epochs = event.epochs;
    const line = describe(event);
    if (event.type === 'done') this.end();
    if (line !== undefined) {
      if (this.#bar) {
        this.#bars.log(`${line}\n`);
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
    case 'step':
    case 'checkpoint':
    case 'interrupted':
    case 'error':
      return undefined;
  }
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

function describeDone(event: EventOf<'done'>): string {
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
    `  leaves          ${integer(leaves)}${leaves > 0 ? `, by thread ${byThread}` : ''}`,
    `  kept in         ${event.runDir}`,
  ].join('\n');
}
