"""Trains the models of Lockstep with PyTorch on CPU and prints one JSON line; scripts/pytorch.js starts it.

As fast as PyTorch goes with ordinary means: float32 images in memory, normalized once; a permutation and an
index a step instead of a DataLoader; no read of a loss inside the loop; fused optimizers; denormal numbers flushed.
One worker is plain PyTorch with `--threads` threads inside its operations; several are DistributedDataParallel over
gloo on the loopback device, a process each, whose batch is `--batch` of the step's `workers * batch` samples.
"""

import argparse
import json
import math
import os
import struct
import sys
import tempfile
import time
from datetime import timedelta

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

COLLECTIVE_TIMEOUT = timedelta(minutes=5)
EVALUATION_BATCH = 250


def lenet5():
    """The layers of `lockstep model lenet5`: 44,426 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(),
        nn.Linear(84, 10),
    )  # fmt: skip


def mlp():
    """The layers of `lockstep model mlp`: 15,910 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10))


MODELS = {"lenet5": lenet5, "mlp": mlp}


class WithLoss(nn.Module):
    """Model and loss in one forward pass, so that one compiled graph holds both."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, labels):
        return F.cross_entropy(self.model(images), labels)


def read_idx(path, header_bytes):
    with open(path, "rb") as file:
        data = file.read()
    (count,) = struct.unpack(">I", data[4:8])
    return torch.frombuffer(bytearray(data[header_bytes:]), dtype=torch.uint8), count


def read_set(folder, name):
    pixels, count = read_idx(os.path.join(folder, f"{name}-images-idx3-ubyte"), 16)
    labels, _ = read_idx(os.path.join(folder, f"{name}-labels-idx1-ubyte"), 8)
    return pixels.to(torch.float32).view(count, 1, 28, 28), labels.to(torch.int64)


def read_mnist(folder):
    """Training and test set, with the mean and deviation of all training pixels taken out once."""
    train_images, train_labels = read_set(folder, "train")
    test_images, test_labels = read_set(folder, "t10k")
    pixels = train_images.to(torch.float64)
    mean, deviation = pixels.mean().item(), pixels.std(correction=0).item()
    for images in (train_images, test_images):
        images.sub_(mean).div_(deviation)
    return (train_images, train_labels), (test_images, test_labels)


def learning_rates(schedule, peak, steps):
    """The rate of every step: constant, or the one-cycle of src/shared/learning-rate.ts (`OneCycleLR`'s defaults)."""
    if schedule == "constant":
        return [peak] * steps
    start = peak / 25
    end = start / 10_000
    top = max(math.floor(0.3 * steps) - 1, 0)

    def anneal(first, last, t):
        return last + (first - last) / 2 * (1 + math.cos(math.pi * min(t, 1)))

    def rate(step):
        if step < top:
            return anneal(start, peak, step / top)
        return anneal(peak, end, (step - top) / (steps - 1 - top) if steps - 1 > top else 0)

    return [rate(step) for step in range(steps)]


def create_optimizer(options, parameters):
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.momentum, fused=True)
    return torch.optim.Adam(parameters, lr=options.lr, fused=True)


def count_correct(model, images, labels):
    with torch.inference_mode():
        correct = torch.zeros((), dtype=torch.int64)
        for first in range(0, len(labels), EVALUATION_BATCH):
            piece = slice(first, first + EVALUATION_BATCH)
            correct += (model(images[piece]).argmax(1) == labels[piece]).sum()
    return correct


def train(options, rank):
    """The epochs of one rank. All ranks draw the same permutation; each takes every `workers`-th sample of it."""
    torch.set_num_threads(options.threads)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    (images, labels), (test_images, test_labels) = read_mnist(options.data)
    share = math.ceil(len(labels) / options.workers)
    if len(labels) % options.workers != 0:
        raise SystemExit(f"{len(labels)} images cannot be split evenly over {options.workers} workers")

    torch.manual_seed(options.seed)
    model = MODELS[options.model]()
    with_loss = WithLoss(model)
    network = with_loss
    if options.mode == "compile":
        network = torch.compile(network, dynamic=False)
    if options.workers > 1:
        network = nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
    optimizer = create_optimizer(options, with_loss.parameters())
    steps = math.ceil(share / options.batch)
    rates = learning_rates(options.lr_schedule, options.lr, steps * options.epochs)
    groups = optimizer.param_groups

    # Compiles for both sizes of a batch, and fills allocators and thread pools; no weight changes.
    for size in sorted({min(options.batch, share), share - (steps - 1) * options.batch}):
        network(images[:size], labels[:size]).backward()
        optimizer.zero_grad()

    epochs = []
    for epoch in range(options.epochs):
        if options.workers > 1:
            dist.barrier()
        start = time.perf_counter()
        order = torch.randperm(len(labels))
        if options.workers > 1:
            order = order[rank :: options.workers].contiguous()
        for step, index in enumerate(order.split(options.batch), epoch * steps):
            for group in groups:
                group["lr"] = rates[step]
            loss = network(images.index_select(0, index), labels.index_select(0, index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if options.workers > 1:
            dist.barrier()
        trained = time.perf_counter()
        figures = {
            "epoch": epoch + 1,
            "trainSeconds": trained - start,
            "imagesPerSecond": len(labels) / (trained - start),
        }
        if options.evaluate or epoch + 1 == options.epochs:
            figures.update(evaluate(options, rank, model, (images, labels), (test_images, test_labels)))
            figures["evaluationSeconds"] = time.perf_counter() - trained
        epochs.append(figures)
    return {"torch": torch.__version__, "mode": options.mode, "epochs": epochs}


def evaluate(options, rank, model, train_set, test_set):
    """Accuracy on both sets, as `lockstep train` tells them after each epoch; every rank counts its share."""
    model.eval()
    figures = {}
    for name, (images, labels) in (("trainAccuracy", train_set), ("testAccuracy", test_set)):
        correct = count_correct(model, images[rank :: options.workers], labels[rank :: options.workers])
        if options.workers > 1:
            dist.all_reduce(correct)
        figures[name] = correct.item() / len(labels)
    model.train()
    return figures


def train_rank(rank, options, store):
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=options.workers, timeout=COLLECTIVE_TIMEOUT
    )
    try:
        result = train(options, rank)
        if rank == 0:
            print(json.dumps(result), flush=True)
    finally:
        dist.destroy_process_group()


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", required=True, help="folder of the four uncompressed IDX files")
    parser.add_argument("--model", choices=sorted(MODELS), required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each worker, inside its operations")
    parser.add_argument("--batch", type=int, required=True, help="samples a step of each worker")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--lr", type=float, required=True, help="peak learning rate")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--lr-schedule", choices=["constant", "one-cycle"], default="constant")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluate", action="store_true", help="after each epoch, not only the last")
    return parser.parse_args()


def main():
    options = parse_options()
    if options.workers == 1:
        print(json.dumps(train(options, 0)))
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            train_rank, (options, os.path.join(folder, "store")), nprocs=options.workers
        )


if __name__ == "__main__":
    main()
