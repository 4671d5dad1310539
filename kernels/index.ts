// The kernel module: fixed-order f32 SIMD arithmetic on memory that the host owns and lays out.
//
// No kernel allocates, keeps state between calls, or uses relaxed instructions, so the same bytes in give the same
// bits out on every processor, system and Node version. Pointers are byte addresses; lengths count elements.
// Vector loads may read up to 12 bytes behind a buffer: the host leaves 16 bytes of slack. Beside every kernel stands a
// scalar reference in TypeScript that gives the same bits.

export { listPixels, unpackImages } from './images';
export { shiftBias, shiftGradient } from './normalize';
export { denseForward, denseBackwardWeights, denseBackwardInputs, packDense } from './dense';
export { sparseDenseForward, sparseDenseBackwardWeights } from './dense';
export { conv2dForward, conv2dBackward, packConv2d, unpackConv2dGradient } from './conv2d';
export { winogradConv2dForward, packWinogradConv2d } from './winograd-conv2d';
export { imageConv2dForward, packImageConv2d } from './conv2d';
export { padImages, unpadImages } from './padding';
export { reluForward, reluBackward } from './relu';
export { maxPool2dForward, maxPool2dBackward } from './max-pool2d';
export { avgPool2dForward, avgPool2dBackward } from './avg-pool2d';
export { dropoutForward, dropoutBackward } from './dropout';
export { softmaxCrossEntropy } from './softmax';
export { addLeaf, reduce } from './exact';
export { updateSgd, updateAdam } from './optimizer';
export { digestBlocks, chainHash } from './digest';
export { expOf, logOf, sqrtOf } from './math';

/** Traps, for the injected fault of that name. */
export function trap(): void {
  unreachable();
}
