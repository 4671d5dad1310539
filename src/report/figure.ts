// Figures as SVG: lines, dots, stacked bars, a matrix, a timeline. The one place that knows the plotting library.

import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { sum } from '../shared/sum.js';

/** Colours and size of a figure. */
export interface Look {
  /** Colours as CSS has them. */
  readonly background: string;
  readonly foreground: string;
  /** Of series. */
  readonly colors: readonly string[];
  readonly width: number;
}

export const standalone: Look = {
  background: '#ffffff',
  foreground: '#222222',
  /**
   * Told apart by colour-blind people too: Okabe and Ito's, but a dark yellow for their orange and yellow, which are too
   * pale for lines on white, and a gray for their black.
   */
  colors: ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#8c6d00', '#56b4e9', '#444444'],
  width: 720,
};

/** Draws a figure: by default one that stands alone, on a page with the page's colours. */
export type Drawing = (look?: Look) => string;

export interface Point {
  readonly x: number;
  readonly y: number;
  /** Ends of the bar that shows the spread. */
  readonly low?: number;
  readonly high?: number;
}

export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** Drawn dashed, in the colour of the series before it: its bound, its ideal. */
  readonly dashed?: boolean;
}

/** Of the values; numbers, by default. */
type Unit = 'percent';

export interface LineChart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly Series[];
  readonly unit?: Unit;
  /** The axis begins at 0, unless this is false: then where the values do. */
  readonly isFromZero?: boolean;
  /** Without a dot at every point. */
  readonly isPlain?: boolean;
}

const TITLE_HEIGHT = 40;
const LEGEND_ROW_HEIGHT = 20;
const AXIS_HEIGHT = 52;
/** Narrower figures are for phones, or stand side by side. */
const WIDE = 600;
/** Of the values of x, if they are whole and no more than these, each has its tick. */
const MOST_TICKS = 12;
const NARROW_TICKS = 6;
/** The same input gives the same text. */
export function lineChart(chart: LineChart, look: Look = standalone): string {
  const { title, xLabel, yLabel, series, unit, isFromZero = true, isPlain = false } = chart;
  const xs = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].toSorted((a, b) => a - b);
  const isWide = look.width >= WIDE;
  const strokes = strokesOf(series, look);
  const legend = series.map(({ name, dashed }, index) => ({
    name,
    color: strokes[index],
    dash: dashOf(strokes[index], look, dashed),
  }));
  const frame = new Frame(title, look, series.length > 1 ? legend : []);
  return frame.draw(isWide ? 348 : 240, {
    marginLeft: isWide ? 84 : 80,
    x: {
      label: xLabel,
      inset: 12,
      ...(xs.every(Number.isInteger) &&
        xs.length <= (isWide ? MOST_TICKS : NARROW_TICKS) && { ticks: xs, tickFormat: String }),
    },
    y: { label: yLabel, grid: true, zero: isFromZero, nice: true, ...tickFormat(unit) },
    marks: [
      ...(isFromZero ? [Plot.ruleY([0])] : []),
      ...series.flatMap(({ points, dashed }, index) => {
        const stroke = strokes[index];
        const bars = points.filter(({ low, high }) => low !== undefined && high !== undefined);
        return [
          Plot.ruleX(bars, { x: 'x', y1: 'low', y2: 'high', stroke, strokeOpacity: 0.5, strokeWidth: 4 }),
          Plot.line(points, {
            x: 'x',
            y: 'y',
            stroke,
            strokeWidth: isPlain ? 1.5 : 2,
            strokeDasharray: dashOf(stroke, look, dashed) ?? 'none',
          }),
          Plot.dot(isPlain ? [] : points, {
            x: 'x',
            y: 'y',
            stroke,
            fill: dashed ? look.background : stroke,
            r: 3.5,
          }),
        ];
      }),
    ],
  });
}

export interface DotChart {
  readonly title: string;
  readonly xLabel: string;
  /** Rows, from the top. */
  readonly names: readonly string[];
  /** Values in the order of the names; null where there is none. */
  readonly series: readonly { readonly name: string; readonly values: readonly (number | null)[] }[];
  readonly unit?: Unit;
}

/** A row for each name and in it a dot for each series, on an axis that begins where the values do. */
export function dotChart({ title, xLabel, names, series, unit }: DotChart, look: Look = standalone): string {
  const legend = series.map(({ name }, index) => ({ name, color: colorOf(look, index) }));
  const frame = new Frame(title, look, series.length > 1 ? legend : []);
  const dots = series.flatMap(({ values }, index) =>
    values.flatMap((value, row) =>
      value === null ? [] : [{ name: names[row], value, color: colorOf(look, index) }],
    ),
  );
  const labels = labelsOf(names, look);
  return frame.draw(names.length * 22, {
    marginLeft: labels.width,
    x: { label: xLabel, grid: true, nice: true, inset: 12, ticks: 4, ...tickFormat(unit) },
    y: { label: null, domain: names, type: 'point', padding: 0.5, tickFormat: labels.text },
    marks: [
      Plot.ruleY(names, { strokeOpacity: 0.15 }),
      // Those below can be seen through those above.
      Plot.dot(dots, { x: 'value', y: 'name', stroke: 'color', fill: 'color', fillOpacity: 0.6, r: 4.5 }),
    ],
  });
}

export interface StackedBars {
  readonly title: string;
  readonly xLabel: string;
  /** Rows, from the top. */
  readonly names: readonly string[];
  /** Parts of each row, in the order of the names, from the left. */
  readonly parts: readonly { readonly name: string; readonly values: readonly number[] }[];
  readonly unit?: Unit;
}

export function stackedBars(
  { title, xLabel, names, parts, unit }: StackedBars,
  look: Look = standalone,
): string {
  const legend = parts.map(({ name }, index) => ({ name, color: colorOf(look, index), isFilled: true }));
  const frame = new Frame(title, look, legend);
  const bars = names.flatMap((name, row) => {
    let x2 = 0;
    return parts.map(({ values }, index) => ({
      name,
      x1: x2,
      x2: (x2 += values[row]),
      color: colorOf(look, index),
    }));
  });
  const labels = labelsOf(names, look);
  return frame.draw(names.length * 26, {
    marginLeft: labels.width,
    x: { label: xLabel, grid: true, ticks: NARROW_TICKS, ...tickFormat(unit) },
    y: { label: null, domain: names, padding: 0.2, tickFormat: labels.text },
    marks: [Plot.barX(bars, { x1: 'x1', x2: 'x2', y: 'name', fill: 'color' }), Plot.ruleX([0])],
  });
}

export interface MatrixChart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  /** Rows; rows and columns are as many. */
  readonly counts: readonly (readonly number[])[];
}

/** Above so many rows the cells are too small for numbers. */
const MOST_NUMBERED = 16;

/** Counts in cells, the larger the darker, in a color of their own where row and column are the same. */
export function matrixChart({ title, xLabel, yLabel, counts }: MatrixChart, look: Look = standalone): string {
  const cells = counts.flatMap((row, y) =>
    row.map((count, x) => ({ x, y, count, share: count / Math.max(1, sum(row)), isRight: x === y })),
  );
  const most = Math.max(...cells.map(({ share, isRight }) => (isRight ? 0 : share)));
  const drawn = cells.filter(({ count }) => count > 0);
  const domain = counts.map((_, index) => index);
  const isNumbered = counts.length <= MOST_NUMBERED;
  const ticks = isNumbered ? domain : domain.filter(index => index % 10 === 0);
  const side = look.width - 56 - 8;
  return new Frame(title, look, []).draw(side, {
    marginLeft: 56,
    marginRight: 8,
    x: { label: xLabel, domain, ticks, tickSize: 0, padding: isNumbered ? 0.05 : 0 },
    y: { label: yLabel, domain, ticks, tickSize: 0, padding: isNumbered ? 0.05 : 0 },
    marks: [
      Plot.frame({ strokeOpacity: 0.2 }),
      ...[true, false].map(wanted =>
        Plot.cell(
          drawn.filter(({ isRight }) => isRight === wanted),
          {
            x: 'x',
            y: 'y',
            fill: colorOf(look, wanted ? 0 : 1),
            // What is rare can be seen, and the number on the darkest can be read.
            fillOpacity: ({ share }: { share: number }) =>
              wanted ? 0.25 * share : 0.1 + (0.35 * share) / most,
          },
        ),
      ),
      ...(isNumbered ? [Plot.text(drawn, { x: 'x', y: 'y', text: 'count', fontSize: 11 })] : []),
    ],
    // Shares are drawn as they are.
    opacity: { type: 'identity' },
  });
}

const markKinds = ['joined', 'lost', 'late'] as const;
type MarkKind = (typeof markKinds)[number];

export interface Timeline {
  readonly title: string;
  readonly xLabel: string;
  /** From the top. */
  readonly rows: readonly TimelineRow[];
  /** Where something began anew. */
  readonly breaks: readonly number[];
  readonly end: number;
}

export interface TimelineRow {
  readonly name: string;
  /** While it was there; faint where it did nothing. */
  readonly spans: readonly { readonly from: number; readonly to: number; readonly isFaint?: boolean }[];
  readonly marks: readonly { readonly kind: MarkKind; readonly x: number; readonly text: string }[];
}

const symbols = { joined: 'triangle', lost: 'times', late: 'diamond' } as const;
const markColors = { joined: 2, lost: 1, late: 4 } as const;

/** A bar for each row while it was there, and on it what happened to it. */
export function timeline({ title, xLabel, rows, breaks, end }: Timeline, look: Look = standalone): string {
  const names = rows.map(({ name }) => name);
  const labels = labelsOf(names, look);
  const spans = rows.flatMap(({ name, spans: own }) => own.map(span => ({ ...span, name })));
  const marks = rows.flatMap(({ name, marks: own }) => own.map(mark => ({ ...mark, name })));
  const kinds = markKinds.filter(kind => marks.some(mark => mark.kind === kind));
  const legend = kinds.map(kind => ({
    name: kind,
    color: colorOf(look, markColors[kind]),
    symbol: symbols[kind],
  }));
  return new Frame(title, look, legend).draw(rows.length * 26, {
    marginLeft: labels.width,
    x: { label: xLabel, grid: true, domain: [0, end], ticks: NARROW_TICKS },
    y: { label: null, domain: names, padding: 0.3, tickSize: 0, tickFormat: labels.text },
    marks: [
      ...[false, true].map(isFaint =>
        Plot.barX(
          spans.filter(span => (span.isFaint ?? false) === isFaint),
          { x1: 'from', x2: 'to', y: 'name', fill: colorOf(look, 0), fillOpacity: isFaint ? 0.2 : 0.55 },
        ),
      ),
      Plot.ruleX(breaks, { strokeDasharray: '4 3' }),
      ...kinds.map(kind =>
        Plot.dot(
          marks.filter(mark => mark.kind === kind),
          {
            x: 'x',
            y: 'name',
            symbol: symbols[kind],
            stroke: colorOf(look, markColors[kind]),
            strokeWidth: 2,
            fill: kind === 'lost' ? 'none' : colorOf(look, markColors[kind]),
            r: 4.5,
            title: 'text',
          },
        ),
      ),
    ],
  });
}

/** Of a line; those in colours that are much like others are dotted. */
function dashOf(color: string, { colors }: Look, dashed = false): string | undefined {
  if (dashed) return '6 4';
  return colors.indexOf(color) >= 4 ? '2 3' : undefined;
}

interface LegendRow {
  readonly name: string;
  readonly color: string;
  readonly dash?: string | undefined;
  /** A square and not a line. */
  readonly isFilled?: boolean;
  readonly symbol?: (typeof symbols)[MarkKind];
}

/** Shapes of 12 x 12 around the origin. */
const symbolPaths = {
  triangle: 'M0,-6L6,5L-6,5Z',
  times: 'M-5,-5L5,5M-5,5L5,-5',
  diamond: 'M0,-7L5,0L0,7L-5,0Z',
} as const;

/** What figures have in common: a document, a title, a legend, a background. */
class Frame {
  readonly #title: string;
  readonly #look: Look;
  readonly #legend: readonly LegendRow[];
  // An SVG document, so that text is escaped as XML wants it.
  readonly #document: Document;

  constructor(title: string, look: Look, legend: readonly LegendRow[]) {
    this.#title = title;
    this.#look = look;
    this.#legend = legend;
    const { DOMParser } = parseHTML('');
    this.#document = new DOMParser().parseFromString('<svg/>', 'image/svg+xml');
  }

  /** `plotHeight`: of what lies between the legend and the labels of x. */
  draw(plotHeight: number, options: Plot.PlotOptions): string {
    const { background, foreground, width } = this.#look;
    const marginTop = TITLE_HEIGHT + this.#legend.length * LEGEND_ROW_HEIGHT + 16;
    const axis = { labelArrow: 'none', labelAnchor: 'center' } as const;
    const svg = Plot.plot({
      marginRight: 24,
      ...options,
      document: this.#document,
      width,
      height: marginTop + plotHeight + AXIS_HEIGHT,
      marginTop,
      marginBottom: AXIS_HEIGHT,
      style: { background, color: foreground, fontSize: '13px', fontFamily: 'system-ui, sans-serif' },
      x: { ...axis, ...options.x },
      y: { ...axis, ...options.y },
    });
    svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
    svg.setAttribute('role', 'img');
    svg.setAttribute('aria-label', this.#title);
    svg.prepend(
      this.#add(svg, 'title', {}, this.#title),
      this.#add(svg, 'rect', { width: '100%', height: '100%', fill: background }),
    );
    const text = { fill: foreground, 'text-anchor': 'start' };
    const fontSize = width < WIDE ? 15 : 17;
    this.#add(
      svg,
      'text',
      { ...text, x: 16, y: 26, 'font-size': fontSize, 'font-weight': 'bold' },
      this.#title,
    );
    for (const [index, row] of this.#legend.entries()) {
      const y = TITLE_HEIGHT + index * LEGEND_ROW_HEIGHT + 6;
      const group = this.#add(svg, 'g', { class: 'legend' });
      this.#addSign(group, row, y);
      this.#add(group, 'text', { ...text, x: 56, y: y + 5 }, row.name);
    }
    return `${svg.outerHTML}\n`;
  }

  #addSign(group: Element, { color, dash, isFilled, symbol }: LegendRow, y: number): void {
    if (isFilled) {
      this.#add(group, 'rect', { x: 24, y: y - 7, width: 14, height: 14, fill: color });
    } else if (symbol) {
      const fill = symbol === 'times' ? 'none' : color;
      const place = { transform: `translate(31,${y})`, d: symbolPaths[symbol] };
      this.#add(group, 'path', { ...place, fill, stroke: color, 'stroke-width': 2 });
    } else {
      const line = { x1: 16, x2: 48, y1: y, y2: y, stroke: color, 'stroke-width': 2 };
      this.#add(group, 'line', dash === undefined ? line : { ...line, 'stroke-dasharray': dash });
    }
  }

  #add(parent: Element, name: string, attributes: Record<string, string | number>, text = ''): Element {
    const element = this.#document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    element.textContent = text;
    parent.append(element);
    return element;
  }
}

function strokesOf(series: readonly Series[], look: Look): string[] {
  let drawn = -1;
  return series.map(({ dashed }, index) => {
    if (!dashed || index === 0) drawn++;
    return colorOf(look, drawn);
  });
}

function colorOf({ colors }: Look, index: number): string {
  return colors[index % colors.length];
}

/** About as wide as it is drawn, or wider: fonts differ. */
function widthOf(text: string): number {
  return sum(
    Array.from(text, letter => (/[MWmw@%]/.test(letter) ? 13 : /[A-Z0-9_]/.test(letter) ? 9.5 : 7.5)),
  );
}

/** In the middle, since names that are alike differ at their end, to what is as wide. */
function cutTo(width: number, name: string): string {
  const letters = Array.from(name);
  for (let kept = letters.length - 1; kept > 2; kept--) {
    const end = Math.floor(kept / 2);
    const text = `${letters.slice(0, kept - end).join('')}…${letters.slice(letters.length - end).join('')}`;
    if (widthOf(text) <= width) return text;
  }
  return '…';
}

/** Names beside the rows: what does not fit is cut. */
function labelsOf(names: readonly string[], { width }: Look) {
  const most = width * 0.3;
  const cut = new Map(names.map(name => [name, widthOf(name) > most ? cutTo(most, name) : name]));
  const longest = Math.max(0, ...Array.from(cut.values(), widthOf));
  return { width: 20 + longest, text: (name: string): string => cut.get(name) ?? name };
}

function tickFormat(unit: Unit | undefined) {
  return unit === 'percent' && { tickFormat: (value: number) => `${Number((value * 100).toFixed(3))} %` };
}
