// What is missing for a GPU, from what the machine says: one row a case.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judgeGpu, type GpuFacts, type GpuVerdict } from '#dist/library/gpu.js';

/** A machine where nothing is missing. */
const whole: GpuFacts = {
  isInKernel: true,
  listed: ['NVIDIA H100 80GB HBM3'],
  driverProblem: null,
  driverCuda: 12_040,
  initCode: 0,
  devices: 1,
  libraryProblems: [],
};

const notFound = 'libcuda.so.1: cannot open shared object file';
const noCublas = 'libcublas.so.12: cannot open shared object file';

const cases: [string, Partial<GpuFacts>, GpuVerdict['missing'], RegExp][] = [
  ['nothing is missing', {}, 'nothing', /H100/],
  [
    'no driver at all',
    { isInKernel: false, listed: undefined, driverProblem: notFound, driverCuda: 0, devices: 0 },
    'driver',
    /no \/proc\/driver\/nvidia, no nvidia-smi .*libcuda\.so\.1: cannot open.*525/,
  ],
  [
    'a container without the libraries of the driver',
    { listed: undefined, driverProblem: notFound, devices: 0 },
    'driver',
    /the kernel has it.*--gpus all/,
  ],
  [
    'libraries of a driver that the kernel does not have',
    { isInKernel: false, listed: undefined, initCode: 100, devices: 0 },
    'driver',
    /the kernel has not loaded it/,
  ],
  ['a driver that is too old', { driverCuda: 11_040 }, 'driver', /CUDA up to 11\.4\. .*525/],
  ['a driver that does not say which CUDA it knows', { driverCuda: 0 }, 'nothing', /./],
  ['no nvidia-smi', { listed: undefined }, 'driver', /nvidia-smi.* is not there or fails/],
  ['no GPU listed', { listed: [], devices: 0, initCode: 100 }, 'device', /lists 0 GPUs.*cuInit returns 100/],
  ['a GPU that CUDA is not shown', { devices: 0 }, 'device', /lists 1 GPU, .*finds 0.*CUDA_VISIBLE_DEVICES/],
  ['a library that does not load', { libraryProblems: [noCublas] }, 'library', /libcublas\.so\.12/],
  ['no device and no library: the device first', { devices: 0, libraryProblems: [noCublas] }, 'device', /./],
  [
    'no driver and no library: the driver first',
    { driverProblem: notFound, libraryProblems: [noCublas] },
    'driver',
    /./,
  ],
];

for (const [name, facts, missing, message] of cases) {
  test(name, () => {
    const verdict = judgeGpu({ ...whole, ...facts });
    assert.equal(verdict.missing, missing);
    assert.match(verdict.message, message);
  });
}
