// The ledger: each lane counted once, whatever the nodes do. Scenarios, then random events against a plain model.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  advance,
  emptyLedger,
  isBehind,
  isContested,
  isLate,
  lanesOwed,
  openLeases,
  type Effect,
  type Ledger,
  type LedgerEvent,
  type LedgerTask,
  type Named,
  type NodeView,
  type PlannedPart,
  type DropReason,
} from '#dist/coordinator/ledger.js';
import { messageOf } from '#dist/shared/errors.js';
import type { Lanes } from '#dist/shared/node.js';
import { randomTest, type Random } from '../support/random.js';

const LANES = 8;
const all: Lanes = { from: 0, to: LANES };
const half: readonly Lanes[] = [
  { from: 0, to: 4 },
  { from: 4, to: 8 },
];

const taskOf = (step: number): LedgerTask => ({
  kind: 'gradient',
  set: 'train',
  step,
  weights: String(step).padStart(16, '0'),
});

const view = (node: string, change: Partial<NodeView> = {}): NodeView => ({
  node,
  speed: { fixedMs: 1, laneMs: 1 },
  holds: all,
  isOwn: false,
  ...change,
});

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}

/** A ledger and its clock, told of events; gives the effects. */
class Bench {
  ledger: Ledger = deepFreeze(emptyLedger);
  nowMs = 0;
  task = taskOf(0);

  tell(event: LedgerEvent): readonly Effect[] {
    const next = advance(this.ledger, deepFreeze(event), this.nowMs);
    this.ledger = deepFreeze(next.ledger);
    return next.effects;
  }

  begin(
    parts: readonly PlannedPart[],
    nodes: readonly NodeView[],
    step = this.task.step + 1,
  ): readonly Effect[] {
    this.task = taskOf(step);
    return this.tell({ type: 'begin', task: this.task, parts, nodes });
  }

  sum(node: string, lanes: Lanes, digest: string = 'good', task = this.task): readonly Effect[] {
    return this.tell({ type: 'sum', node, task, lanes, digest });
  }

  bad(node: string, lanes: Lanes, task = this.task): readonly Effect[] {
    return this.tell({ type: 'bad', node, task, lanes, message: `bad on ${node}` });
  }

  tick(afterMs: number, latenessMs = 0): readonly Effect[] {
    this.nowMs += afterMs;
    return this.tell({ type: 'tick', latenessMs });
  }
}

const [left, right] = half;
const plan = (...nodes: (string | undefined)[]): PlannedPart[] =>
  nodes.map((node, i) => ({ lanes: half[i], node }));
const grant = (node: string, lanes: Lanes, role: 'lease' | 'twin' | 'audit' | 'probe' = 'lease'): Effect => ({
  type: 'grant',
  node,
  lanes,
  role,
});
const drop = (node: string, reason: DropReason): Effect => ({
  type: 'drop',
  node,
  reason,
});
const LATE_MS = 2000;

test('each part is granted as planned, each sum counts, the last one completes the task', () => {
  const bench = new Bench();
  assert.deepEqual(bench.begin(plan('a', 'b'), [view('a'), view('b')]), [
    grant('a', left),
    grant('b', right),
  ]);
  assert.equal(lanesOwed(bench.ledger, 'a'), 4);
  assert.deepEqual(bench.sum('b', right), [{ type: 'add' }]);
  assert.deepEqual(bench.sum('a', left), [{ type: 'add' }, { type: 'complete' }]);
  assert.equal(openLeases(bench.ledger), 0);
});

test('a part without a node is given to whoever is free and done first', () => {
  const bench = new Bench();
  const nodes = [view('slow', { speed: { fixedMs: 50, laneMs: 1 } }), view('fast')];
  assert.deepEqual(bench.begin(plan(undefined, 'gone'), nodes), [grant('fast', left), grant('fast', right)]);
});

test('a node that holds the shards is preferred to a faster one that has to fetch them', () => {
  const bench = new Bench();
  const nodes = [view('fetching', { holds: left }), view('slow', { speed: { fixedMs: 50, laneMs: 9 } })];
  assert.deepEqual(bench.begin([{ lanes: right, node: undefined }], nodes), [grant('slow', right)]);
});

test('a task without parts is refused, not complete at once', () => {
  assert.throws(() => new Bench().begin([], []), /no parts/);
});

test('a late lease gets a twin; the first sum counts, the other is compared, then dropped', () => {
  const bench = new Bench();
  bench.begin(plan('a', 'b'), [view('a'), view('b')]);
  bench.sum('b', right);
  assert.deepEqual(bench.tick(700), []);
  assert.deepEqual(bench.tick(LATE_MS), [
    { type: 'expired', node: 'a', lanes: left },
    grant('b', left, 'twin'),
  ]);
  assert.ok(isLate(bench.ledger, 'a'));
  assert.deepEqual(bench.tick(1), []);
  assert.ok(isContested(bench.ledger, { node: 'a', task: bench.task, lanes: left }));
  assert.deepEqual(bench.sum('b', left), [{ type: 'add' }, { type: 'complete' }]);
  assert.ok(isBehind(bench.ledger, 'a'));
  assert.deepEqual(bench.sum('a', left), [drop('a', 'late twin')]);
  assert.ok(!isBehind(bench.ledger, 'a'));
});

test('a late twin with other bits names both nodes, within the task and after it', () => {
  for (const isWithin of [true, false]) {
    const bench = new Bench();
    bench.begin(plan('a', 'b'), [view('a'), view('b'), view('c', { holds: left })]);
    if (!isWithin) bench.sum('b', right);
    bench.tell({ type: 'node', view: view('b', { holds: right }) });
    bench.tick(LATE_MS);
    bench.sum('c', left, 'one');
    assert.equal(bench.ledger.task !== undefined, isWithin);
    const { task } = bench;
    assert.deepEqual(bench.sum('a', left, 'other'), [
      {
        type: 'differ',
        nodes: ['c', 'a'],
        named: { type: 'sum', node: 'a', task, lanes: left, digest: 'other' },
      },
      drop('a', 'late twin'),
    ]);
  }
});

test('a late node gets nothing, in the next task either, before it has answered', () => {
  const bench = new Bench();
  const nodes = [view('a'), view('b')];
  bench.begin(plan('a', 'b'), nodes);
  bench.sum('b', right);
  bench.tick(LATE_MS);
  bench.sum('b', left);
  const late = bench.task;
  assert.deepEqual(bench.begin(plan('a', 'b'), nodes), [grant('b', right), grant('b', left)]);
  assert.deepEqual(bench.sum('a', left, 'good', late), [drop('a', 'late twin')]);
  bench.sum('b', left);
  bench.sum('b', right);
  assert.deepEqual(bench.begin(plan('a', 'b'), nodes), [grant('a', left), grant('b', right)]);
});

test("a lost node's parts are granted at once, and its sums that came still count", () => {
  const bench = new Bench();
  const third = { from: 2, to: 4 };
  bench.begin(
    [
      { lanes: { from: 0, to: 2 }, node: 'a' },
      { lanes: third, node: 'a' },
      { lanes: right, node: 'b' },
    ],
    [view('a'), view('b')],
  );
  bench.sum('a', { from: 0, to: 2 });
  assert.deepEqual(bench.tell({ type: 'lost', node: 'a' }), [grant('b', third)]);
  assert.deepEqual(bench.sum('a', third), [drop('a', 'no such lease')]);
  bench.sum('b', third);
  assert.deepEqual(bench.sum('b', right), [{ type: 'add' }, { type: 'complete' }]);
});

test('a bad leaf is computed by another node; if that one finds it bad too, the task is over', () => {
  const bench = new Bench();
  bench.begin(plan('a', 'b'), [view('a'), view('b'), view('c')]);
  const [again] = bench.bad('a', left);
  assert.deepEqual(again, grant('c', left));
  const effects = bench.bad('c', left);
  assert.deepEqual(effects, [{ type: 'bad', nodes: ['a', 'c'], lanes: left, message: 'bad on c' }]);
  assert.deepEqual(bench.tick(LATE_MS), []);
});

test('a node whose bad leaf another one computes well is acquitted, whichever came first', () => {
  const bench = new Bench();
  bench.begin(plan('a', 'b'), [view('a'), view('b')]);
  assert.deepEqual(bench.bad('a', left), [grant('b', left)]);
  assert.deepEqual(bench.sum('b', left), [{ type: 'add' }, { type: 'acquitted', node: 'a', lanes: left }]);
  bench.tick(LATE_MS);
  bench.sum('a', right);
  assert.deepEqual(bench.bad('b', right), [{ type: 'acquitted', node: 'b', lanes: right }]);
});

test('a bad leaf of the only node ends the task, as does the loss of the one that was to compute it again', () => {
  const bench = new Bench();
  bench.begin([{ lanes: all, node: 'a' }], [view('a')]);
  const end: Effect = { type: 'bad', nodes: ['a'], lanes: all, message: 'bad on a' };
  assert.deepEqual(bench.bad('a', all), [end]);
  bench.begin([{ lanes: all, node: 'a' }], [view('a'), view('b')]);
  bench.bad('a', all);
  assert.deepEqual(bench.tell({ type: 'lost', node: 'b' }), [end]);
});

const audited: PlannedPart[] = [{ lanes: all, node: 'a', second: { node: 'b', role: 'audit' } }];

for (const [first, second] of [
  ['a', 'b'],
  ['b', 'a'],
]) {
  test(`an audited part is done once both sums were compared (${first} answers first)`, () => {
    const bench = new Bench();
    bench.begin(audited, [view('a'), view('b')]);
    assert.deepEqual(bench.sum(first, all, 'one'), [{ type: 'add' }]);
    const effects = bench.sum(second, all, 'other');
    assert.deepEqual(
      effects.map(effect => effect.type),
      ['differ', 'drop', 'complete'],
    );
  });

  test(`an audit that is late or lost is not waited for (${first} answers first)`, () => {
    for (const isLost of [true, false]) {
      const bench = new Bench();
      bench.begin(audited, [view('a'), view('b')]);
      bench.sum(first, all);
      const effects = isLost ? bench.tell({ type: 'lost', node: second }) : bench.tick(LATE_MS);
      assert.deepEqual(effects.at(-1), { type: 'complete' });
    }
  });
}

test('an auditor that fetches its samples is waited for, and one that is silent is not', () => {
  const bench = new Bench();
  bench.begin(audited, [view('a'), view('b', { holds: { from: 0, to: 0 } })]);
  assert.deepEqual(bench.sum('a', all), [{ type: 'add' }]);
  assert.deepEqual(bench.tick(10_000), []);
  const effects = bench.tell({ type: 'tick', latenessMs: 0, silent: ['b'] });
  assert.deepEqual(effects, [{ type: 'expired', node: 'b', lanes: all }, { type: 'complete' }]);
});

test('a probe is never waited for, and never takes a part from its owner', () => {
  const probed: PlannedPart[] = [{ lanes: all, node: 'a', second: { node: 'p', role: 'probe' } }];
  const bench = new Bench();
  const nodes = [view('a'), view('p')];
  assert.deepEqual(bench.begin(probed, nodes), [grant('a', all), grant('p', all, 'probe')]);
  assert.deepEqual(bench.sum('a', all), [{ type: 'add' }, { type: 'complete' }]);
  assert.deepEqual(bench.sum('p', all), [drop('p', 'late twin')]);
  bench.begin(probed, nodes);
  assert.deepEqual(bench.sum('p', all), [drop('p', 'probe')]);
  assert.deepEqual(bench.sum('a', all), [{ type: 'add' }, { type: 'complete' }]);
});

test('a probe with other bits than the owner is told, whichever is first', () => {
  const probed: PlannedPart[] = [{ lanes: all, node: 'a', second: { node: 'p', role: 'probe' } }];
  for (const [first, second] of [
    ['a', 'p'],
    ['p', 'a'],
  ] as const) {
    const bench = new Bench();
    bench.begin(probed, [view('a'), view('p')]);
    bench.sum(first, all, 'one');
    const [differ] = bench.sum(second, all, 'two');
    assert.ok(differ.type === 'differ');
    assert.deepEqual(differ.nodes, [first, second]);
  }
});

test('the sum of a probe counts where nobody else owes the part', () => {
  const bench = new Bench();
  bench.begin([{ lanes: all, node: 'a', second: { node: 'p', role: 'probe' } }], [view('a'), view('p')]);
  bench.tell({ type: 'lost', node: 'a' });
  assert.deepEqual(bench.sum('p', all), [{ type: 'add' }, { type: 'complete' }]);
});

test('a part that only a probe is at is given to another node too', () => {
  const bench = new Bench();
  bench.begin(
    [{ lanes: all, node: 'a', second: { node: 'p', role: 'probe' } }],
    [view('a'), view('p'), view('b')],
  );
  assert.deepEqual(bench.tell({ type: 'lost', node: 'a' }), [grant('b', all, 'twin')]);
});

test('a lease that comes back is granted again', () => {
  const bench = new Bench();
  bench.begin(plan('a', 'b'), [view('a'), view('b'), view('c')]);
  assert.deepEqual(bench.tell({ type: 'returned', node: 'a', task: bench.task, lanes: left }).length, 1);
  assert.equal(openLeases(bench.ledger), 2);
  assert.deepEqual(bench.tell({ type: 'returned', node: 'x', task: bench.task, lanes: left }), []);
});

test('a coordinator that was stalled expires nobody', () => {
  const bench = new Bench();
  bench.begin(plan('a', 'b'), [view('a'), view('b')]);
  assert.deepEqual(bench.tick(20_000, 19_950), []);
  assert.deepEqual(
    bench.tick(LATE_MS).map(effect => effect.type),
    ['expired', 'expired'],
  );
});

test('the own node is never late', () => {
  const bench = new Bench();
  bench.begin(plan('own', 'b'), [view('own', { isOwn: true }), view('b')]);
  bench.sum('b', right);
  assert.deepEqual(bench.tick(1e9), []);
});

test('the same task begun again takes no sum that was owed before it was given up', () => {
  const bench = new Bench();
  const nodes = [view('a'), view('b')];
  bench.begin(plan('a', 'b'), nodes);
  bench.sum('b', right);
  assert.deepEqual(bench.tell({ type: 'end' }), []);
  assert.ok(isBehind(bench.ledger, 'a'));
  const { step } = bench.task;
  assert.deepEqual(bench.begin(plan('a', 'b'), nodes, step), [grant('b', right), grant('b', left)]);
  assert.ok(
    isContested(bench.ledger, { node: 'a', task: bench.task, lanes: left }),
    'it may have to be compared',
  );
  assert.deepEqual(bench.sum('a', left), [drop('a', 'task given up')]);
  assert.deepEqual(bench.sum('b', left), [{ type: 'add' }]);
  assert.deepEqual(bench.sum('b', right), [{ type: 'add' }, { type: 'complete' }]);
});

test('a task that nobody computes says once that it waits, and goes on with whoever joins', () => {
  const bench = new Bench();
  bench.begin(plan('a', 'a'), [view('a')]);
  assert.deepEqual(bench.tell({ type: 'lost', node: 'a' }), [{ type: 'waiting' }]);
  assert.deepEqual(bench.tick(50), []);
  assert.ok(bench.ledger.isWaiting);
  assert.deepEqual(bench.tell({ type: 'node', view: view('n') }), [grant('n', left), grant('n', right)]);
  assert.ok(!bench.ledger.isWaiting);
  assert.deepEqual(bench.tell({ type: 'lost', node: 'n' }), [{ type: 'waiting' }]);
});

test('a sum that comes twice, of other lanes, weights or nobody, is dropped', () => {
  const bench = new Bench();
  bench.begin(plan('a', 'b'), [view('a'), view('b')]);
  bench.sum('a', left);
  assert.deepEqual(bench.sum('a', left), [drop('a', 'no such lease')]);
  assert.deepEqual(bench.sum('b', { from: 4, to: 7 }), [drop('b', 'no such lease')]);
  assert.deepEqual(bench.sum('b', right, 'good', { ...bench.task, weights: 'stale' }), [
    drop('b', 'no such lease'),
  ]);
  assert.deepEqual(bench.sum('x', right), [drop('x', 'no such lease')]);
  assert.deepEqual(bench.sum('b', right), [{ type: 'add' }, { type: 'complete' }]);
});

/** A lease as the model knows it. */
interface Owed {
  readonly node: string;
  readonly round: number;
  readonly task: LedgerTask;
  readonly lanes: Lanes;
  readonly isAudit: boolean;
  readonly isProbe: boolean;
  hasExpired: boolean;
}

const fired = new Map<string, number>();
const keyOf = ({ from, to }: Lanes): string => `${from}-${to}`;
const NAMES = ['own', 'a', 'b', 'c', 'd'];

/** What must hold of any ledger, kept in plain lists; throws where the ledger does otherwise. */
class Model {
  readonly bench = new Bench();
  readonly nodes = new Set<string>();
  owed: Owed[] = [];
  /** Digests of probes that came before the sum that counts. */
  readonly probed = new Map<string, string>();
  /** Tasks begun; sums that counted, of each part of each. */
  round = 0;
  isOpen = false;
  parts: Lanes[] = [];
  readonly counted = new Map<string, { readonly node: string; readonly digest: string }>();
  readonly bad = new Map<string, string>();

  of(round: number, lanes: Lanes): string {
    return `${round}/${keyOf(lanes)}`;
  }

  holders(lanes: Lanes): Owed[] {
    return this.owed.filter(lease => lease.round === this.round && keyOf(lease.lanes) === keyOf(lanes));
  }

  isFree(node: string): boolean {
    const isUseless = (lease: Owed): boolean =>
      lease.node === node && (lease.hasExpired || !this.isCurrent(lease));
    return this.nodes.has(node) && !this.owed.some(isUseless);
  }

  isCurrent({ round }: Owed): boolean {
    return this.isOpen && round === this.round;
  }

  tell(event: LedgerEvent): void {
    const wasWaiting = this.bench.ledger.isWaiting;
    const lease =
      'lanes' in event
        ? this.owed.find(
            ({ node, task, lanes }) =>
              node === event.node &&
              task.step === event.task.step &&
              task.weights === event.task.weights &&
              keyOf(lanes) === keyOf(event.lanes),
          )
        : undefined;
    let expected: { readonly types: readonly string[] } | undefined;
    if (lease) this.owed = this.owed.filter(other => other !== lease);
    switch (event.type) {
      case 'begin':
        this.round++;
        this.isOpen = true;
        this.bad.clear();
        this.parts = event.parts.map(({ lanes }) => lanes);
        this.nodes.clear();
        for (const { node } of event.nodes) this.nodes.add(node);
        break;
      case 'end':
        this.isOpen = false;
        break;
      case 'node':
        this.nodes.add(event.view.node);
        break;
      case 'lost':
        this.nodes.delete(event.node);
        this.owed = this.owed.filter(({ node }) => node !== event.node);
        break;
      case 'sum': {
        if (!lease) {
          expected = { types: ['drop'] };
          break;
        }
        const key = this.of(lease.round, lease.lanes);
        const before = this.counted.get(key);
        const digest = event.digest ?? honest(lease.task, lease.lanes);
        if (before) expected = { types: before.digest === digest ? ['drop'] : ['differ', 'drop'] };
        else if (!this.isCurrent(lease)) expected = { types: ['drop'] };
        else if (
          lease.isProbe &&
          this.holders(lease.lanes).some(other => !other.isProbe && !other.hasExpired)
        ) {
          expected = { types: ['drop'] };
          this.probed.set(key, digest);
        } else if (this.probed.has(key) && this.probed.get(key) !== digest) {
          expected = { types: this.bad.has(key) ? ['differ', 'add', 'acquitted'] : ['differ', 'add'] };
          this.counted.set(key, { node: event.node, digest });
        } else {
          expected = { types: this.bad.has(key) ? ['add', 'acquitted'] : ['add'] };
          this.counted.set(key, { node: event.node, digest });
        }
        break;
      }
      case 'bad': {
        const key = lease && this.of(lease.round, lease.lanes);
        if (lease && key && this.isCurrent(lease) && !this.counted.has(key) && !this.bad.has(key)) {
          this.bad.set(key, event.node);
        }
        break;
      }
      case 'returned':
      case 'tick':
    }
    const effects = this.bench.tell(event);
    let ends = 0;
    for (const effect of effects) {
      fired.set(effect.type, (fired.get(effect.type) ?? 0) + 1);
      if (effect.type === 'grant') {
        const { node, lanes, role } = effect;
        assert.ok(this.isOpen && ends === 0, 'nothing is granted of a task that is over');
        assert.ok(this.isFree(node), `${node} is granted a part and is gone, late or behind`);
        assert.ok(!this.holders(lanes).some(other => other.node === node), `${node} is granted a part twice`);
        assert.ok(!this.counted.has(this.of(this.round, lanes)), 'a part with a sum is granted');
        assert.notEqual(
          this.bad.get(this.of(this.round, lanes)),
          node,
          'a bad part is granted to the same node',
        );
        const task = this.bench.task;
        const isAudit = role === 'audit';
        this.owed.push({
          node,
          round: this.round,
          task,
          lanes,
          isAudit,
          isProbe: role === 'probe',
          hasExpired: false,
        });
      } else if (effect.type === 'expired') {
        assert.equal(event.type, 'tick');
        const late = this.holders(effect.lanes).find(({ node }) => node === effect.node);
        assert.ok(late && !late.hasExpired && late.node !== 'own', 'only what is owed expires, once');
        late.hasExpired = true;
      } else if (effect.type === 'complete' || effect.type === 'bad') {
        ends++;
        if (effect.type === 'complete') this.#assertDone();
        this.isOpen = false;
      }
    }
    assert.ok(ends <= 1, 'a task ends once');
    if (expected) {
      const types = effects
        .map(({ type }) => type)
        .filter(type => !['grant', 'complete', 'waiting'].includes(type));
      assert.deepEqual(types, expected.types);
    } else assert.ok(!effects.some(({ type }) => type === 'add' || type === 'differ'));
    assert.equal(
      effects.some(({ type }) => type === 'waiting'),
      this.bench.ledger.isWaiting && (event.type === 'begin' || !wasWaiting),
      'waiting is said when it begins',
    );
    this.#assertInvariants(event);
  }

  #assertDone(): void {
    assert.ok(this.isOpen, 'no task is there to be complete');
    for (const lanes of this.parts)
      assert.ok(this.counted.has(this.of(this.round, lanes)), 'a part has no sum');
  }

  #isAwaited(): boolean {
    return this.parts.some(
      lanes =>
        !this.counted.has(this.of(this.round, lanes)) ||
        this.holders(lanes).some(lease => lease.isAudit && !lease.hasExpired),
    );
  }

  #assertInvariants(event: LedgerEvent): void {
    const { ledger } = this.bench;
    assert.equal(ledger.task !== undefined, this.isOpen);
    if (this.isOpen) assert.ok(this.#isAwaited(), 'the task is done and not complete');
    let isWaiting = false;
    for (const lanes of this.isOpen ? this.parts : []) {
      const key = this.of(this.round, lanes);
      const holders = this.holders(lanes);
      if (this.counted.has(key) || holders.some(({ hasExpired, isProbe }) => !hasExpired && !isProbe))
        continue;
      const couldTake = [...this.nodes].filter(
        node =>
          this.isFree(node) && this.bad.get(key) !== node && !holders.some(lease => lease.node === node),
      );
      assert.deepEqual(couldTake, [], `nobody has ${keyOf(lanes)}, and these could`);
      if (holders.length === 0) isWaiting = true;
    }
    assert.equal(ledger.isWaiting, isWaiting);
    assert.equal(openLeases(ledger), this.owed.length);
    const held = ledger.parts.reduce((sum, { holdings }) => sum + holdings.length, 0);
    assert.ok(held <= NAMES.length * LANES && ledger.overdue.length <= NAMES.length * LANES);
    for (const node of NAMES) {
      const mine = this.owed.filter(lease => lease.node === node);
      const now = mine.filter(lease => this.isCurrent(lease));
      assert.equal(isBehind(ledger, node), now.length < mine.length);
      assert.ok(
        now.length === 0 || now.length === mine.length,
        'a node that is behind has a part of the present task',
      );
      // What is owed of tasks that are over expires too, without a word.
      if (mine.some(({ hasExpired }) => hasExpired)) assert.ok(isLate(ledger, node));
      if (isLate(ledger, node)) assert.ok(mine.length > 0);
      const lanes = now.reduce((sum, { lanes: { from, to } }) => sum + to - from, 0);
      assert.equal(lanesOwed(ledger, node), lanes);
    }
    if (event.type === 'lost') {
      assert.ok(!ledger.nodes.some(({ node }) => node === event.node));
      assert.ok(!this.owed.some(({ node }) => node === event.node));
    }
  }
}

const honest = (task: LedgerTask, lanes: Lanes): string => `${task.step} ${keyOf(lanes)}`;

function randomView(random: Random, node: string): NodeView {
  const speed = { fixedMs: random.uniform(0, 20), laneMs: random.uniform(0, 20) };
  return view(node, { speed, holds: random.chance(0.8) ? all : right, isOwn: node === 'own' });
}

function randomParts(random: Random): PlannedPart[] {
  const parts: PlannedPart[] = [];
  for (let from = 0; from < LANES;) {
    const to = Math.min(LANES, from + 1 + random.integer(4));
    const [first, second] = random.distinct(2, NAMES.length);
    const role = random.pick(['audit', 'probe'] as const);
    parts.push({
      lanes: { from, to },
      node: random.chance(0.1) ? undefined : NAMES[first],
      second: random.chance(0.4) ? { node: NAMES[second], role } : undefined,
    });
    from = to;
  }
  return parts;
}

function begin(model: Model, random: Random): void {
  const { bench } = model;
  const nodes = NAMES.filter(node => model.nodes.has(node) || random.chance(0.2));
  // A task that was given up is begun again at times.
  bench.task = taskOf(bench.task.step + (model.isOpen || random.chance(0.2) ? 0 : 1));
  const views = nodes.map(node => randomView(random, node));
  model.tell({ type: 'begin', task: bench.task, parts: randomParts(random), nodes: views });
}

function answer(model: Model, { node, task, lanes }: Named, isLying: boolean): void {
  const named = { node, task, lanes };
  const digest = isLying ? 'lie' : honest(task, lanes);
  // Digests are made, as the coordinator does it, only where the ledger says so.
  const isNeeded = isContested(model.bench.ledger, named);
  if (isLying && !isNeeded) return answer(model, named, false);
  model.tell({ type: 'sum', ...named, digest: isNeeded ? digest : undefined });
}

function randomEvent(model: Model, random: Random): void {
  const { bench } = model;
  bench.nowMs += random.uniform(0, 200);
  const lease = model.owed.length > 0 ? random.pick(model.owed) : undefined;
  const draw = random.integer(100);
  if (draw < 8) begin(model, random);
  else if (draw < 10) model.tell({ type: 'end' });
  else if (draw < 18) model.tell({ type: 'node', view: randomView(random, random.pick(NAMES)) });
  else if (draw < 25) model.tell({ type: 'lost', node: random.pick(NAMES) });
  else if (draw < 40) {
    bench.nowMs += random.pick([0, 100, 1000, 40_000]);
    model.tell({ type: 'tick', latenessMs: random.pick([0, 0, 100, 5000]) });
  } else if (draw < 50) {
    const task = random.pick([bench.task, taskOf(bench.task.step - 1), { ...bench.task, weights: 'stale' }]);
    const lanes = random.pick([...model.parts, left, all]);
    answer(model, { node: random.pick(NAMES), task, lanes }, false);
  } else if (!lease) model.tell({ type: 'tick', latenessMs: 0 });
  else if (draw < 55)
    model.tell({ type: 'bad', node: lease.node, task: lease.task, lanes: lease.lanes, message: 'bad' });
  else if (draw < 60)
    model.tell({ type: 'returned', node: lease.node, task: lease.task, lanes: lease.lanes });
  else answer(model, lease, random.chance(0.2));
}

/** However it stands, a node that works brings the task to its end, and no lease is left. */
function drain(model: Model): void {
  for (const node of NAMES) model.tell({ type: 'lost', node });
  model.tell({ type: 'node', view: view('a') });
  model.tell({ type: 'node', view: view('b') });
  while (model.owed.length > 0) answer(model, model.owed[0], false);
  assert.ok(!model.isOpen, 'the task is not brought to its end');
  assert.equal(openLeases(model.bench.ledger), 0);
}

randomTest('whatever happens in whatever order, every part counts once and none is forgotten', random => {
  fired.clear();
  for (let sequence = 0; sequence < 3000; sequence++) {
    const model = new Model();
    const stream = random.fork(`sequence ${sequence}`);
    let events = 0;
    try {
      begin(model, stream);
      for (; events < 60; events++) randomEvent(model, stream);
      drain(model);
    } catch (cause) {
      throw new Error(`in sequence ${sequence}, event ${events}: ${messageOf(cause)}`, { cause });
    }
  }
  for (const type of [
    'add',
    'drop',
    'differ',
    'expired',
    'bad',
    'acquitted',
    'waiting',
    'complete',
    'grant',
  ]) {
    assert.ok((fired.get(type) ?? 0) >= 300, `${type} happened only ${fired.get(type) ?? 0} times`);
  }
});
