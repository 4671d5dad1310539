// Documents: headings, text, tables, figures and pictures, as one HTML file that needs nothing beside it, or as Markdown.

import { lineChart, type Drawing, type LineChart } from './figure.js';

export interface Table {
  readonly type: 'table';
  /** What a reader who cannot see it is told first. */
  readonly caption: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Columns of text, by their index; the others hold numbers and stand right. The first one, by default. */
  readonly textColumns?: readonly number[];
}

export interface Figure {
  /** Of its file, without the ending. */
  readonly name: string;
  readonly caption: string;
  readonly draw: Drawing;
  /** Wide figures have a row for themselves. */
  readonly isWide?: boolean;
}

export interface Picture {
  /** A data: address. */
  readonly source: string;
  /** What it shows, for those who cannot see it. */
  readonly description: string;
  /** The lines below it. */
  readonly lines: readonly string[];
}

export type Block =
  | { readonly type: 'heading'; readonly text: string; readonly level?: 2 | 3 }
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'warning'; readonly text: string }
  /** Names with their values. */
  | { readonly type: 'facts'; readonly facts: readonly (readonly [name: string, value: string])[] }
  | Table
  /** Stand side by side where there is room. */
  | { readonly type: 'figures'; readonly figures: readonly Figure[] }
  | { readonly type: 'pictures'; readonly pictures: readonly Picture[] }
  /** Folded until somebody opens it. */
  | { readonly type: 'details'; readonly summary: string; readonly blocks: readonly Block[] };

export interface Document {
  readonly title: string;
  /** One line below the title. */
  readonly subtitle: string;
  readonly blocks: readonly Block[];
}

export function heading(title: string, level: 2 | 3 = 2): Block {
  return { type: 'heading', text: title, level };
}

export function text(content: string): Block {
  return { type: 'text', text: content };
}

export function details(summary: string, blocks: readonly Block[]): Block {
  return { type: 'details', summary, blocks };
}

/** What the axes of figures say of losses, and of accuracies. */
export const lossLabel = 'cross-entropy, nats';
export const accuracyLabel = 'recognized';

export function lineFigure(name: string, caption: string, chart: LineChart, isWide = false): Figure {
  return { name, caption, isWide, draw: look => lineChart(chart, look) };
}
