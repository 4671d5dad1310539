// Documents: every block as HTML and as Markdown, with nothing of its text taken for markup.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseHTML } from 'linkedom';
import { details, heading, lineFigure, text, type Document } from '#dist/report/document.js';
import { htmlPage } from '#dist/report/html.js';
import { figuresOf, markdown } from '#dist/report/markdown.js';

const evil = 'a|b <i>c</i> & *d* _e_ `f` [g](h) \\';
const figure = lineFigure('curve', 'The caption.', {
  title: 'Curve',
  xLabel: 'x',
  yLabel: 'y',
  series: [{ name: 'one', points: [{ x: 1, y: 2 }] }],
});
const document: Document = {
  title: evil,
  subtitle: 'below it',
  blocks: [
    heading('Part'),
    heading('Smaller', 3),
    text(evil),
    { type: 'warning', text: evil },
    { type: 'facts', facts: [['name', evil]] },
    { type: 'table', caption: 'What it is', head: ['a', 'b'], rows: [[evil, '1']] },
    { type: 'figures', figures: [figure] },
    details('More', [{ type: 'figures', figures: [{ ...figure, name: 'inner' }] }]),
  ],
};

test('a page has every block once, with its text as it is', () => {
  const { document: page } = parseHTML(htmlPage(document));
  const words = (selector: string): string[] =>
    Array.from(page.querySelectorAll(selector), ({ textContent }) => textContent);
  assert.deepEqual(words('head > title'), [evil]);
  assert.deepEqual(words('h1'), [evil]);
  assert.deepEqual(words('h2'), ['Part']);
  assert.deepEqual(words('h3'), ['Smaller']);
  assert.deepEqual(words('main > p'), ['below it', evil, `Warning: ${evil}`, 'What it is']);
  assert.deepEqual(words('dt, dd'), ['name', evil]);
  assert.deepEqual(words('thead th'), ['a', 'b']);
  assert.deepEqual(words('tbody th, tbody td'), [evil, '1']);
  assert.deepEqual(words('main > .figures figcaption'), ['The caption.']);
  assert.equal(page.querySelectorAll('details svg').length, 1);
  assert.equal(page.querySelectorAll('i').length, 0);
});

test('Markdown has every block once, with what would be markup escaped', () => {
  const escaped = 'a\\|b &lt;i\\>c&lt;/i\\> &amp; \\*d\\* \\_e\\_ \\`f\\` \\[g\\](h) \\\\';
  assert.equal(
    markdown(document),
    `# ${escaped}

below it

## Part

### Smaller

${escaped}

> **Warning:** ${escaped}

- name: ${escaped}

| a | b |
| :-- | --: |
| ${escaped} | 1 |

![The caption.](figures/curve.svg)

The caption.

<details><summary>More</summary>

![The caption.](figures/inner.svg)

The caption.

</details>
`,
  );
});

test('the figures of Markdown are files of their own', () => {
  const files = figuresOf(document);
  assert.deepEqual(
    files.map(({ path }) => path),
    ['figures/curve.svg', 'figures/inner.svg'],
  );
  for (const { svg } of files) assert.match(svg, /^<svg [^]*<title>Curve<\/title>/);
});
