// A headless Chromium for checks of pages, driven by its own protocol: https://chromedevtools.github.io/devtools-protocol/

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const names = ['chromium', 'chromium-browser', 'google-chrome'];

/** The command that starts it; undefined where there is none. */
export function findChromium() {
  return names.find(name => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0);
}

/** Starts it, hands `work` a function that opens pages, and ends it. */
export async function withChromium(command, work) {
  const profile = mkdtempSync(join(tmpdir(), 'lockstep-chromium-'));
  const flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    `--user-data-dir=${profile}`,
    '--remote-debugging-pipe',
  ];
  // It reads commands from its descriptor 3 and writes to 4.
  const child = spawn(command, [...flags, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'exit');
  const client = new Client(child.stdio[3], child.stdio[4]);
  void ended.then(() => client.end());
  try {
    await work((address, look) => openPage(client, address, look));
    // Its other processes end with it, and leave the profile alone.
    await client.send('Browser.close');
  } finally {
    child.kill();
    await ended;
    await rm(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

/** Commands and their answers, and what is told of a session: JSON with a zero byte behind each. */
class Client {
  #output;
  #count = 0;
  #waiting = new Map();
  #listeners = new Map();

  constructor(output, input) {
    this.#output = output;
    let pending = '';
    input.setEncoding('utf8').on('data', piece => {
      const messages = (pending + piece).split('\0');
      pending = messages.pop();
      for (const message of messages) this.#receive(JSON.parse(message));
    });
  }

  #receive({ id, result, error, method, params, sessionId }) {
    if (id === undefined) {
      this.#listeners.get(sessionId)?.(method, params);
      return;
    }
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) reject(new Error(error.message));
    else resolve(result);
  }

  send(method, params, sessionId) {
    const id = ++this.#count;
    this.#output.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
    });
  }

  /** Nothing is answered any more. */
  end() {
    for (const { reject } of this.#waiting.values()) reject(new Error('Chromium has ended.'));
  }

  listen(sessionId, listener) {
    this.#listeners.set(sessionId, listener);
  }
}

/**
 * Opens `address` in a window of that width, light or dark, and tells what it complained of and what it loaded. `evaluate`
 * gives what a function returns there, `picture` a PNG of all of it.
 */
async function openPage(client, address, { width, scheme }) {
  const { targetId } = await client.send('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await client.send('Target.attachToTarget', { targetId, flatten: true });
  const send = (method, params) => client.send(method, params, sessionId);
  const complaints = [];
  const requests = [];
  const loaded = new Promise(resolve => {
    client.listen(sessionId, (method, params) => {
      if (method === 'Page.loadEventFired') resolve();
      if (method === 'Runtime.consoleAPICalled')
        complaints.push(params.args.map(({ value }) => value).join(' '));
      if (method === 'Runtime.exceptionThrown') complaints.push(params.exceptionDetails.text);
      if (method === 'Log.entryAdded') complaints.push(params.entry.text);
      if (method === 'Network.requestWillBeSent') requests.push(params.request.url);
    });
  });
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await send(`${domain}.enable`);
  await send('Emulation.setDeviceMetricsOverride', {
    width,
    height: 900,
    deviceScaleFactor: 1,
    mobile: width < 600,
  });
  await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  await send('Page.navigate', { url: address });
  await loaded;
  return {
    complaints,
    // Pictures within the page are no network loads.
    requests: requests.filter(url => url !== address && !url.startsWith('data:')),
    async evaluate(read) {
      const expression = `(${String(read)})()`;
      const { result, exceptionDetails } = await send('Runtime.evaluate', {
        expression,
        returnByValue: true,
      });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    },
    async picture() {
      const { data } = await send('Page.captureScreenshot', { captureBeyondViewport: true });
      return Buffer.from(data, 'base64');
    },
    close: () => client.send('Target.closeTarget', { targetId }),
  };
}
