// Figures: line charts as SVG that stands alone. The one place that knows the plotting library.

import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';

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

export interface LineChart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly Series[];
  /** For the values of y; numbers, by default. */
  readonly unit?: 'percent';
  /** The axis begins at 0, unless this is false: then where the values do. */
  readonly isFromZero?: boolean;
  /** Without a dot at every point. */
  readonly isPlain?: boolean;
}

/** Colours of a figure, as CSS has them. */
export interface Look {
  readonly background: string;
  readonly foreground: string;
  readonly colors: readonly string[];
  /** Narrow ones can be read on a phone. */
  readonly width: number;
}

/** Draws a figure as SVG: for a page, which has its own colours for light and dark, or by default to stand alone. */
export type Drawing = (look?: Look) => string;

const PLOT_HEIGHT = 400;
const TITLE_HEIGHT = 40;
const LEGEND_ROW_HEIGHT = 20;
const AXIS_HEIGHT = 52;
/** Of the values of x, if there are no more than these, each has its tick. */
const MOST_TICKS = 12;

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

/** A line chart. The same input gives the same text. */
export function lineChart({ title, xLabel, yLabel, series }: LineChart, look: Look = standalone): string {
  const { background, foreground } = look;
  // An SVG document, so that text is escaped as XML wants it.
  const { DOMParser } = parseHTML('');
  const document = new DOMParser().parseFromString('<svg/>', 'image/svg+xml');
  const xs = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].toSorted((a, b) => a - b);
  const marginTop = TITLE_HEIGHT + series.length * LEGEND_ROW_HEIGHT + 16;
  const strokes = strokesOf(series, look.colors);
  const svg = Plot.plot({
    document,
    width: look.width,
    height: marginTop + PLOT_HEIGHT,
    marginTop,
    marginLeft: 84,
    marginRight: 24,
    marginBottom: AXIS_HEIGHT,
    style: { background, color: foreground, fontSize: '13px', fontFamily: 'system-ui, sans-serif' },
    x: {
      label: xLabel,
      labelArrow: 'none',
      labelAnchor: 'center',
      inset: 12,
      ...(xs.length <= MOST_TICKS && { ticks: xs, tickFormat: String }),
    },
    y: { label: yLabel, labelArrow: 'none', labelAnchor: 'center', grid: true, zero: true, nice: true },
    marks: [
      Plot.ruleY([0]),
      ...series.flatMap(({ points, dashed }, index) => {
        const stroke = strokes[index];
        const bars = points.filter(({ low, high }) => low !== undefined && high !== undefined);
        return [
          Plot.ruleX(bars, { x: 'x', y1: 'low', y2: 'high', stroke, strokeOpacity: 0.5, strokeWidth: 4 }),
          Plot.line(points, {
            x: 'x',
            y: 'y',
            stroke,
            strokeWidth: 2,
            ...(dashed && { strokeDasharray: '6 4' }),
          }),
          Plot.dot(points, { x: 'x', y: 'y', stroke, fill: dashed ? background : stroke, r: 3.5 }),
        ];
      }),
    ],
  });

  const add = (
    parent: Element,
    name: string,
    attributes: Record<string, string | number>,
    text = '',
  ): Element => {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    element.textContent = text;
    parent.append(element);
    return element;
  };
  svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', title);
  svg.prepend(
    add(svg, 'title', {}, title),
    add(svg, 'rect', { width: '100%', height: '100%', fill: background }),
  );
  const text = { x: 16, fill: foreground, 'text-anchor': 'start' };
  add(svg, 'text', { ...text, y: 26, 'font-size': 17, 'font-weight': 'bold' }, title);
  for (const [index, { name, dashed }] of series.entries()) {
    const y = TITLE_HEIGHT + index * LEGEND_ROW_HEIGHT + 6;
    const line = { x1: 16, x2: 48, y1: y, y2: y, stroke: strokes[index], 'stroke-width': 2 };
    const row = add(svg, 'g', { class: 'legend' });
    add(row, 'line', dashed ? { ...line, 'stroke-dasharray': '6 4' } : line);
    add(row, 'text', { ...text, x: 56, y: y + 5 }, name);
  }
  return `${svg.outerHTML}\n`;
}

function strokesOf(series: readonly Series[], colors: readonly string[]): string[] {
  let drawn = -1;
  return series.map(({ dashed }, index) => {
    if (!dashed || index === 0) drawn++;
    return colors[drawn % colors.length];
  });
}
