// A document as Markdown, in the dialect of GitHub: figures are files beside it.

import type { Block, Document, Figure, Table } from './document.js';

/** Where the figures are, beside the Markdown. */
const FIGURES_DIR = 'figures';

export function markdown({ title, subtitle, blocks }: Document): string {
  return `${[`# ${escape(title)}`, escape(subtitle), ...blocks.map(render)].join('\n\n')}\n`;
}

/** What `markdown` refers to, each to be written to its `path`. */
export function figuresOf({ blocks }: Pick<Document, 'blocks'>): { path: string; svg: string }[] {
  return blocks.flatMap(block => {
    if (block.type === 'details') return figuresOf(block);
    if (block.type !== 'figures') return [];
    return block.figures.map(figure => ({ path: pathOf(figure), svg: figure.draw() }));
  });
}

function render(block: Block): string {
  switch (block.type) {
    case 'heading':
      return `${'#'.repeat(block.level ?? 2)} ${escape(block.text)}`;
    case 'text':
      return escape(block.text);
    case 'warning':
      return `> **Warning:** ${escape(block.text)}`;
    case 'facts':
      return block.facts.map(([name, value]) => `- ${escape(name)}: ${escape(value)}`).join('\n');
    case 'table':
      return renderTable(block);
    case 'figures':
      return block.figures
        .map(figure => {
          const caption = escape(figure.caption);
          return `![${caption}](${pathOf(figure)})\n\n${caption}`;
        })
        .join('\n\n');
    case 'pictures':
      return block.pictures
        .map(
          ({ source, description, lines }) =>
            `![${escape(description)}](${source}) ${escape(lines.join(', '))}`,
        )
        .join('\n\n');
    case 'details':
      return `<details><summary>${escape(block.summary)}</summary>\n\n${block.blocks.map(render).join('\n\n')}\n\n</details>`;
  }
}

function renderTable({ head, rows, textColumns = [0] }: Table): string {
  const rule = head.map((_, column) => (textColumns.includes(column) ? ':--' : '--:'));
  const cells = [head.map(escape), rule, ...rows.map(row => row.map(escape))];
  return cells.map(row => `| ${row.join(' | ')} |`).join('\n');
}

function pathOf({ name }: Figure): string {
  return `${FIGURES_DIR}/${name}.svg`;
}

/** What Markdown or HTML would take for something else. */
function escape(text: string): string {
  return text.replaceAll(/[\\`*_|[\]<>&]/g, character =>
    character === '<' ? '&lt;' : character === '&' ? '&amp;' : `\\${character}`,
  );
}
