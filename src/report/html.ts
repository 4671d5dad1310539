// A document as one HTML file: no script, nothing loaded, light or dark as the reader's system is.

import type { Block, Document, Figure, Table } from './document.js';
import type { Look } from './figure.js';

/** Figures are drawn for these widths: for phones and columns, and where they are wide for the whole page. */
const NARROW = 420;
const WIDE = 1080;

const look: Look = {
  background: 'var(--page)',
  foreground: 'var(--ink)',
  colors: Array.from({ length: 7 }, (_, index) => `var(--color-${index})`),
  width: NARROW,
};

/** Okabe and Ito's colours, darker on white and lighter on black than theirs where they would be hard to see. */
const style = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --ink: #222222; --quiet: #5c5c5c; --line: #d8d8d8; --shade: #f4f4f4;
  --color-0: #0072b2; --color-1: #d55e00; --color-2: #009e73; --color-3: #b8578f; --color-4: #8c6d00;
  --color-5: #3a96d0; --color-6: #444444;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181b; --ink: #e4e4e4; --quiet: #a6a6a6; --line: #3d4146; --shade: #202327;
    --color-0: #5db4ea; --color-1: #f08a3c; --color-2: #2fc79a; --color-3: #e295c2; --color-4: #d9b93a;
    --color-5: #9ad2f5; --color-6: #bdbdbd;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 3rem 0 0.5rem; padding-top: 0.75rem; border-top: 1px solid var(--line); font-size: 1.35rem; }
h3 { margin: 2rem 0 0.5rem; font-size: 1.1rem; }
h1, h2, h3, p, dd, figcaption { overflow-wrap: anywhere; }
p, figcaption { max-width: 46rem; }
.subtitle { margin: 0.25rem 0 1.5rem; color: var(--quiet); }
.warning { padding: 0.5rem 0.75rem; border-left: 4px solid var(--color-1); background: var(--shade); }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: 0.15rem 1rem; margin: 1rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 0.25rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
.caption { margin: 1rem 0 0; color: var(--quiet); font-size: 0.9rem; }
th, td { padding: 0.25rem 0.5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; }
td { white-space: nowrap; }
.text { min-width: 7rem; text-align: left; white-space: normal; overflow-wrap: anywhere; }
.text:first-child { min-width: 0; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); gap: 24px; }
figure { margin: 1rem 0; min-width: 0; max-width: 560px; }
figure.wide { max-width: none; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: 0.9rem; }
.wide .drawn-wide { display: none; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); gap: 12px; padding: 0; list-style: none; }
.pictures li { font-size: 0.8rem; line-height: 1.35; }
.pictures img { display: block; width: 100%; image-rendering: pixelated; border: 1px solid var(--line); }
.pictures span { display: block; }
summary { cursor: pointer; color: var(--color-0); }
summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--color-0); outline-offset: 2px; }
@media (min-width: 800px) {
  .two { grid-template-columns: 1fr 1fr; }
  .wide .drawn-wide { display: block; }
  .wide .drawn-narrow { display: none; }
}
@media print { details > * { display: block; } }
`;

/** By this a page is known. */
export const GENERATOR = '<meta name="generator" content="Lockstep">';

/** The same document gives the same text. */
export function htmlPage({ title, subtitle, blocks }: Document): string {
  // The policy lets nothing be loaded, whatever stands in a name or a message.
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
${GENERATOR}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escape(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
<p class="subtitle">${escape(subtitle)}</p>
${blocks.map(render).join('\n')}
</main>
</body>
</html>
`;
}

function render(block: Block): string {
  switch (block.type) {
    case 'heading':
      return `<h${block.level ?? 2}>${escape(block.text)}</h${block.level ?? 2}>`;
    case 'text':
      return `<p>${escape(block.text)}</p>`;
    case 'warning':
      return `<p class="warning"><strong>Warning:</strong> ${escape(block.text)}</p>`;
    case 'facts':
      return `<dl>${block.facts.map(([name, value]) => `<dt>${escape(name)}</dt><dd>${escape(value)}</dd>`).join('\n')}</dl>`;
    case 'table':
      return renderTable(block);
    case 'figures': {
      const { figures } = block;
      // Three columns would leave one of four alone.
      const columns = figures.length % 2 === 0 ? ' two' : '';
      return `<div class="figures${columns}">\n${figures.map(renderFigure).join('\n')}\n</div>`;
    }
    case 'pictures': {
      const items = block.pictures.map(({ source, description, lines }) => {
        const below = lines.map(line => `<span>${escape(line)}</span>`).join('');
        return `<li><img src="${escape(source)}" alt="${escape(description)}">${below}</li>`;
      });
      return `<ul class="pictures">\n${items.join('\n')}\n</ul>`;
    }
    case 'details':
      return `<details><summary>${escape(block.summary)}</summary>\n${block.blocks.map(render).join('\n')}\n</details>`;
  }
}

function renderTable({ caption, head, rows, textColumns = [0] }: Table): string {
  const kind = (column: number): string => (textColumns.includes(column) ? ' class="text"' : '');
  const heads = head.map((text, column) => `<th scope="col"${kind(column)}>${escape(text)}</th>`);
  const lines = rows.map(row => {
    const cells = row.map((text, column) =>
      column === 0
        ? `<th scope="row"${kind(column)}>${escape(text)}</th>`
        : `<td${kind(column)}>${escape(text)}</td>`,
    );
    return `<tr>${cells.join('')}</tr>`;
  });
  // It may be wider than a phone: then it scrolls by itself, with the keyboard too.
  return `<p class="caption" aria-hidden="true">${escape(caption)}</p>
<div class="scroll" role="region" aria-label="${escape(caption)}" tabindex="0">
<table aria-label="${escape(caption)}">
<thead><tr>${heads.join('')}</tr></thead>
<tbody>
${lines.join('\n')}
</tbody></table>
</div>`;
}

function renderFigure({ name, caption, draw, isWide = false }: Figure): string {
  const drawn = isWide
    ? `<div class="drawn-narrow">${draw(look)}</div><div class="drawn-wide">${draw({ ...look, width: WIDE })}</div>`
    : draw(look);
  return `<figure id="${escape(name)}"${isWide ? ' class="wide"' : ''}>${drawn}<figcaption>${escape(caption)}</figcaption></figure>`;
}

/** A number is not parted from its percent sign. */
function escape(text: string): string {
  return text
    .replaceAll(/(?<=\d) %/g, '\u00a0%')
    .replaceAll(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`);
}
