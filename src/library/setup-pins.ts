// What `setup` downloads, by version and hash.
//
// The npm packages are pinned by tensorflow/package-lock.json, which npm checks; the wheels here, which pip checks.

export type RuntimeKind = 'cpu' | 'gpu';

export const TENSORFLOW_VERSION = '2.21.0';
export const TFJS_VERSION = '4.22.0';

export interface Wheel {
  readonly name: string;
  readonly version: string;
  /** In the name of its file; what runs on older systems has an older one. */
  readonly platform: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** For GPUs with what the wheel `tensorflow` names in its extra `and-cuda`: the newest of CUDA 12. */
export const wheels: Readonly<Record<RuntimeKind, readonly Wheel[]>> = {
  cpu: readWheels(`
    tensorflow-cpu ${TENSORFLOW_VERSION} manylinux_2_27_x86_64 274000871 dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb
  `),
  gpu: readWheels(`
    tensorflow ${TENSORFLOW_VERSION} manylinux_2_27_x86_64 572611111 b3b95643c4e70eb925839938fb35cbe142f317ec84af6844ee61513713bb13c0
    nvidia-cublas-cu12 12.9.3.13 manylinux_2_27_x86_64 581217458 d7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72
    nvidia-cuda-cupti-cu12 12.8.90 manylinux2014_x86_64 10248621 ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182
    nvidia-cuda-nvcc-cu12 12.9.86 manylinux2010_x86_64 40546229 5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0
    nvidia-cuda-nvrtc-cu12 12.9.86 manylinux2010_x86_64 89568129 210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4
    nvidia-cuda-runtime-cu12 12.9.79 manylinux2014_x86_64 3493179 25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
    nvidia-cudnn-cu12 9.28.0.42 manylinux_2_27_x86_64 716538495 9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375
    nvidia-cufft-cu12 11.4.1.4 manylinux2014_x86_64 200877592 c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28
    nvidia-curand-cu12 10.3.10.19 manylinux_2_27_x86_64 68295626 49b274db4780d421bd2ccd362e1415c13887c53c214f0d4b761752b8f9f6aa1e
    nvidia-cusolver-cu12 11.7.5.82 manylinux_2_27_x86_64 338117415 15da72d1340d29b5b3cf3fd100e3cd53421dde36002eda6ed93811af63c40d88
    nvidia-cusparse-cu12 12.5.10.65 manylinux2014_x86_64 366465088 73060ce019ac064a057267c585bf1fd5a353734151f87472ff02b2c5c9984e78
    nvidia-nccl-cu12 2.32.3 manylinux_2_27_x86_64 351526311 bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c
    nvidia-nvjitlink-cu12 12.9.86 manylinux2010_x86_64 39748338 e3f1171dbdc83c5932a45f0f4c99180a70de9bd2718c1ab77d14104f6d7147f9
  `),
};

function readWheels(table: string): Wheel[] {
  return table
    .trim()
    .split('\n')
    .map(line => {
      const [name, version, platform, size, sha256] = line.trim().split(' ');
      return { name, version, platform, sizeBytes: Number(size), sha256 };
    });
}

/** Of the npm packages, packed; npm's own cache may have them. */
export const NPM_BYTES = 75_812_327;

/** What a finished folder takes. */
export const diskBytes: Readonly<Record<RuntimeKind, number>> = { cpu: 1_180_000_000, gpu: 5_920_000_000 };

/**
 * What is taken out of the wheels, in the patterns of Python's fnmatch, where * matches slashes too: the libraries, the
 * headers of TensorFlow's C API, and of CUDA's compiler what TensorFlow calls while it runs.
 */
export const wheelPatterns: readonly string[] = [
  'tensorflow/libtensorflow_cc.so.2',
  'tensorflow/libtensorflow_framework.so.2',
  'tensorflow/include/tensorflow/c/*',
  'tensorflow/include/tensorflow/core/platform/ctstring*',
  'tensorflow/include/tsl/platform/ctstring*',
  'tensorflow/include/xla/tsl/c/*',
  'nvidia/*/lib/*.so*',
  'nvidia/cuda_nvcc/bin/ptxas',
  'nvidia/cuda_nvcc/nvvm/libdevice/*',
];
