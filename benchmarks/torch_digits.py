"""The digits preset as a PyTorch user would write it: training, evaluation, spectra as in the public code, a figure.

    python benchmarks/torch_digits.py FIGURE.png --processes=2 [--options=channels_last,compile]

No checkpoints are written, nothing can be resumed, and of the measures beside the spectrum there is none.
"""

import argparse
import json
import multiprocessing

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch_contestants import adam, cnn5, shifted

BATCH, SHIFT, SCHEDULE_STEPS, NOISE, SEED = 100, 1, 512, 0.15, 0


def digits() -> list[torch.Tensor]:
    """Training images, their labels with noise, test images and labels."""
    found = load_digits()
    images = torch.from_numpy(np.rint(found.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(found.target.astype(np.int64))
    rng = np.random.default_rng(SEED)
    order = torch.from_numpy(rng.permutation(len(labels)))
    train, test = order[:600], order[600:]
    noisy = labels[train].clone()
    wrong = torch.from_numpy(rng.choice(600, round(NOISE * 600), replace=False))
    noisy[wrong] = (noisy[wrong] + torch.from_numpy(rng.integers(1, 10, len(wrong)))) % 10
    return [images[train], noisy, images[test].float() / 255, labels[test]]


@torch.no_grad()
def error(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    network.eval()
    wrong = sum((network(a).argmax(1) != b).sum().item() for a, b in zip(x.split(600), y.split(600), strict=True))
    network.train()
    return wrong / len(y)


@torch.no_grad()
def energy(network: torch.nn.Module, x: torch.Tensor, points: int, half_width: float) -> np.ndarray:
    """|F|^2 of the logits on a segment through each example, mean over examples and classes, by frequency."""
    network.eval()
    v = torch.randn_like(x)
    v /= v.flatten(1).norm(dim=1)[:, None, None, None]
    distances = -half_width + 2 * half_width * np.arange(points) / points
    outputs = np.stack([network(x + float(t) * v).numpy() for t in distances])
    network.train()
    return (np.abs(np.fft.rfft(outputs, axis=0)) ** 2).mean(axis=(1, 2))


def train(width: int, job: dict, options: list[str]) -> tuple[list[float], list[np.ndarray]]:
    """The test error at each recorded epoch, and the spectrum of the training set at some of them."""
    torch.manual_seed(SEED)
    images, labels, test_images, test_labels = digits()
    layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
    network = cnn5(width, 1, track=True).to(memory_format=layout)
    if "compile" in options:
        network.compile()
    optimizer = adam(network.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + step // SCHEDULE_STEPS) ** -0.5)
    clean = images.float() / 255
    errors, spectra = [], []
    for epoch in range(job["epochs"] + 1):
        if epoch:
            for chosen in torch.randperm(len(labels)).split(BATCH):
                x = shifted(images[chosen], SHIFT, flip=False).float() / 255
                optimizer.zero_grad()
                functional.cross_entropy(network(x.to(memory_format=layout)), labels[chosen]).backward()
                optimizer.step()
                schedule.step()
        if epoch in job["recorded"]:
            error(network, clean, labels)
            errors.append(error(network, test_images, test_labels))
        if epoch in job["spectra"]:
            for x in (clean, clean[:90], test_images):  # the splits: training, relabelled, test
                spectra.append(energy(network, x[: job["examples"]], job["points"], job["half_width"]))
    return errors, spectra


def train_when_told(job: dict, options: list[str], threads: int, widths, done) -> None:
    torch.set_num_threads(threads)
    while (width := widths.get()) is not None:
        done.put((width, *train(width, job, options)))


def draw(path: str, recorded: list[int], curves: dict[int, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for width, errors in sorted(curves.items()):
        pyplot.semilogx(np.maximum(recorded, 0.5), errors, label=f"{width}")
    pyplot.legend(title="width")
    pyplot.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("figure")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--options", default="")
    parser.add_argument(
        "--job", type=json.loads, help="epochs, recorded, spectra, widths, examples, points, half_width"
    )
    arguments = parser.parse_args()
    job, options = arguments.job, arguments.options.split(",")
    curves = {}
    if arguments.processes == 1:
        curves = {width: train(width, job, options)[0] for width in job["widths"]}
    else:
        context = multiprocessing.get_context("spawn")
        widths, done = context.SimpleQueue(), context.SimpleQueue()
        for width in [*sorted(job["widths"], reverse=True), *[None] * arguments.processes]:
            widths.put(width)
        rest = (job, options, 1, widths, done)
        workers = [context.Process(target=train_when_told, args=rest) for _ in range(arguments.processes)]
        for worker in workers:
            worker.start()
        for _ in job["widths"]:
            width, errors, _ = done.get()
            curves[width] = errors
        for worker in workers:
            worker.join()
    draw(arguments.figure, job["recorded"], curves)
    print({width: round(errors[-1], 3) for width, errors in sorted(curves.items())})


if __name__ == "__main__":
    main()
