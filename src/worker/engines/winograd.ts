// Winograd's F(4, 5) for the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity, each step rounded: four sums of five
// products, of a column of eight inputs and five taps, become the products of eight numbers each, four times combined.

type Rounding = (x: number) => number;

function sum(f: Rounding, ...terms: number[]): number {
  return terms.reduce((total, term) => f(total + term));
}

/** Eight inputs below one another, as the points see them. */
export function inputsAtPoints(f: Rounding, [x0, x1, x2, x3, x4, x5, x6, x7]: number[]): number[] {
  const even1 = sum(f, x2, -f(4.25 * x4), x6);
  const odd1 = sum(f, x1, -f(4.25 * x3), x5);
  const even2 = sum(f, f(0.25 * x2), -f(1.25 * x4), x6);
  const odd2 = sum(f, f(0.5 * x1), -f(2.5 * x3), f(2 * x5));
  const evenHalf = sum(f, f(4 * x2), -f(5 * x4), x6);
  const oddHalf = sum(f, f(2 * x1), -f(2.5 * x3), f(0.5 * x5));
  return [
    sum(f, x0, -x6, f(5.25 * f(x4 - x2))),
    f(even1 + odd1),
    f(even1 - odd1),
    f(even2 + odd2),
    f(even2 - odd2),
    f(evenHalf + oddHalf),
    f(evenHalf - oddHalf),
    sum(f, x7, -x1, f(5.25 * f(x3 - x5))),
  ];
}

/** Five taps below one another, as the points see them. */
export function tapsAtPoints(f: Rounding, [k0, k1, k2, k3, k4]: number[]): number[] {
  const even1 = sum(f, k0, k2, k4);
  const odd1 = f(k1 + k3);
  const even2 = sum(f, k0, f(4 * k2), f(16 * k4));
  const odd2 = f(f(2 * k1) + f(8 * k3));
  const evenHalf = sum(f, f(16 * k0), f(4 * k2), k4);
  const oddHalf = f(f(8 * k1) + f(2 * k3));
  return [
    k0,
    f(f(even1 + odd1) / -4.5),
    f(f(even1 - odd1) / -4.5),
    f(f(even2 + odd2) / 90),
    f(f(even2 - odd2) / 90),
    f(f(evenHalf + oddHalf) / 22.5),
    f(f(evenHalf - oddHalf) / 22.5),
    k4,
  ];
}

/** Four outputs below one another, from the products of the points. */
export function outputsOfPoints(f: Rounding, [zero, p1, n1, p2, n2, pHalf, nHalf, last]: number[]): number[] {
  const [even1, odd1] = [f(p1 + n1), f(p1 - n1)];
  const [even2, odd2] = [f(p2 + n2), f(p2 - n2)];
  const [evenHalf, oddHalf] = [f(pHalf + nHalf), f(pHalf - nHalf)];
  return [
    sum(f, zero, even1, even2, evenHalf),
    sum(f, odd1, f(2 * odd2), f(0.5 * oddHalf)),
    sum(f, even1, f(4 * even2), f(0.25 * evenHalf)),
    sum(f, odd1, f(8 * odd2), f(0.125 * oddHalf), last),
  ];
}
