// Images as text: every pixel in its place, shrunk where they are too wide.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drawImage } from '#dist/cli/picture.js';

/** '#' is white, '.' black. */
function draw(rows: readonly string[], maxColumns = 80, [dark, bright] = [0, 255]): string {
  const bytes = Uint8Array.from(rows.join(''), pixel => (pixel === '#' ? bright : dark));
  return drawImage(bytes, rows[0].length, rows.length, maxColumns);
}

test('two rows of pixels are a line: none, lower, upper, both', () => {
  assert.equal(draw(['..##', '.#.#']), ' ▄▀█');
});

test('an odd last row stands in the upper half', () => {
  assert.equal(draw(['#.', '.#', '##']), '▀▄\n▀▀');
});

test('every line has the width of the image', () => {
  assert.equal(draw(['....', '....', '...#', '....']), '    \n   ▀');
});

test('faint images and bright ones show the same', () => {
  const rows = ['#..#', '.##.'];
  assert.equal(draw(rows, 80, [0, 3]), draw(rows));
  assert.equal(draw(rows, 80, [250, 255]), draw(rows));
});

test('images of one gray are blank, black or white', () => {
  assert.equal(draw(['##', '##']), '  ');
  assert.equal(draw(['..', '..']), '  ');
});

test('an image that is too wide is shrunk by a whole factor, squares to their mean', () => {
  const rows = ['##..#', '##..#', '....#', '....#', '##...', '##...'];
  assert.equal(draw(rows, 5).split('\n')[0].length, 5);
  // Factor 2: three columns, the last of them one pixel wide; three rows.
  assert.equal(draw(rows, 4), '▀ █\n▀  ');
  assert.equal(draw(rows, 3), draw(rows, 4));
  assert.equal(draw(rows, 1).length, 1);
  assert.equal(draw(rows, 0), draw(rows, 1));
});
