"""Train the soccer U-Net, and write weights, model card, clip and samples."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from card import model_card
from dataset import CLASSES, HELD_OUT_FAMILIES, SPLITS, TRAIN_FAMILIES
from evaluate import Metrics, evaluate, evaluate_families
from frames import FrameSet, crop_and_resize, read_mask
from monai.losses.dice import DiceFocalLoss
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from seginfer.export.zoo.unet import UNet, soccer_unet

EXAMPLES = """examples:
  python train.py --data /tmp/soccer --out /tmp/soccer-model
  python train.py --data /tmp/soccer --out /tmp/soccer-model --epochs 1 --threads 4   # a quick look
"""


@dataclass(frozen=True)
class Recipe:
    """Settings that decide the weights, together with the frames.

    Attributes:
        epochs: passes over the training frames.
        batch_size: frames per step.
        peak_lr: highest learning rate of the one-cycle schedule.
        weight_decay: weight decay of AdamW.
        seed: seed of initial weights, order of frames and augmentation.
        threads: threads of PyTorch. Another number may change the last bits of the weights.
    """

    epochs: int = 10
    batch_size: int = 8
    peak_lr: float = 4e-3
    weight_decay: float = 1e-3
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True)
class Cost:
    """Duration of the training in seconds. `cpu_s` is the sum over threads."""

    wall_s: float
    cpu_s: float


def sampled_loss(loss: nn.Module, logits: Tensor, masks: Tensor, phase: tuple[int, int]) -> Tensor:
    """Compute the loss on every second row and column of the image.

    The deployed model resizes logits to the image, so training does the same, which keeps thin lines sharp. A quarter
    of the pixels takes a quarter of the time. With a random phase in each step, it is right on average.

    Args:
        loss: maps (N, C, h, w) logits and (N, 1, h, w) class ids to a scalar.
        logits: (N, C, 192, 320) float32.
        masks: (N, 360, 640) uint8.
        phase: first row and first column, each 0 or 1.

    Returns:
        A scalar.
    """
    row, column = phase
    image_hw = (masks.shape[1], masks.shape[2])
    sampled = crop_and_resize(logits, image_hw)[..., row::2, column::2]
    truth = masks[:, None, row::2, column::2].long()
    value: Tensor = loss(sampled.contiguous(), truth)
    return value


def train(recipe: Recipe, training: FrameSet, validation: FrameSet) -> tuple[UNet, Cost]:
    """Train from random weights.

    Args:
        recipe: settings and seeds.
        training: frames with augmentation.
        validation: frames whose mIoU is printed after each third epoch. No choice depends on it.

    Returns:
        The network after the last step, in evaluation mode, and the cost.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    network = soccer_unet().to(memory_format=torch.channels_last)
    loader = DataLoader(training, batch_size=recipe.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.peak_lr, total_steps=recipe.epochs * len(loader), pct_start=0.2
    )
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for epoch in range(recipe.epochs):
        _train_epoch(network, loader, optimizer, schedule, title=f"epoch {epoch + 1}/{recipe.epochs}")
        if (epoch + 1) % 3 == 0:
            tqdm.write(f"epoch {epoch + 1}: validation mIoU {evaluate(network, validation).mean_iou:.3f}")
    cost = Cost(time.perf_counter() - wall_s, time.process_time() - cpu_s)
    return network.to(memory_format=torch.contiguous_format).eval(), cost


def _train_epoch(
    network: UNet,
    loader: DataLoader[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    title: str,
) -> None:
    # batch=True pools classes over the batch. Few frames hold all eight, and an absent class has no Dice coefficient.
    loss = DiceFocalLoss(to_onehot_y=True, softmax=True, batch=True, gamma=2.0, lambda_focal=2.0)
    network.train()
    progress = tqdm(loader, desc=title, unit="step")
    for batch, masks in progress:
        phase = tuple(torch.randint(2, (2,)).tolist())
        value = sampled_loss(loss, network(batch.to(memory_format=torch.channels_last)), masks, phase)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{value.item():.3f}")


def run_simulator(script: str, *arguments: str) -> None:
    """Run a rendering script of the example in another process."""
    # Mesa and PyTorch's Triton each load an LLVM, and crash in one process.
    subprocess.run([sys.executable, str(Path(__file__).with_name(script)), *arguments], check=True)


def write_samples(test: Path, folder: Path) -> None:
    """Copy one test frame per training camera family, with its mask.

    It is the frame with the most classes.
    """
    folder.mkdir()
    masks = sorted(test.glob("*_mask.png"))
    for turn, family in enumerate(TRAIN_FAMILIES):
        candidates = masks[turn :: len(HELD_OUT_FAMILIES)]
        best = max(candidates, key=_visible_classes)
        shutil.copyfile(best, folder / f"{family}_mask.png")
        shutil.copyfile(best.with_name(best.name.replace("_mask", "")), folder / f"{family}.png")


def _visible_classes(mask: Path) -> int:
    pixels = np.bincount(read_mask(mask).ravel(), minlength=len(CLASSES))
    return int((pixels > 300).sum())


def publish(network: UNet, text: str, test: Path, out: Path) -> None:
    """Write weights, card, clip and samples into `out`.

    Files are replaced when all of them are complete.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".partial-") as name:
        temporary = Path(name)
        # Not save_file, whose file only the owner may read.
        (temporary / "pitch.safetensors").write_bytes(safetensors.torch.save(network.state_dict()))
        (temporary / "MODEL_CARD.md").write_text(text, encoding="utf-8")
        run_simulator("clip.py", str(temporary / "clip.webm"))
        write_samples(test, temporary / "samples")
        (out / "samples").mkdir(exist_ok=True)
        for path in sorted(temporary.rglob("*.*")):
            os.replace(path, out / path.relative_to(temporary))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for rendered frames, reused between runs")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, model card, clip and samples")
    parser.add_argument("--epochs", type=int, default=Recipe.epochs, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=Recipe.threads, help="CPU threads, default: %(default)s")
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    """Render, train, measure and publish."""
    recipe = Recipe(epochs=args.epochs, threads=args.threads)
    run_simulator("render.py", "--data", str(args.data))
    folders = {name: args.data / name for name in SPLITS}
    training = FrameSet(folders["train"], augment_seed=recipe.seed)
    network, cost = train(recipe, training, FrameSet(folders["validation"]))
    scores: dict[str, dict[str, Metrics]] = {
        name: evaluate_families(network, folders[name], SPLITS[name].families) for name in ("validation", "test")
    }
    publish(network, model_card(network, recipe, cost, scores), folders["test"], args.out)
    tqdm.write(f"wrote {args.out}: test mIoU {scores['test']['all'].mean_iou:.3f} at 640x360")


def main() -> int:
    """Run the command line. Interruption leaves no partial output."""
    args = parse_args()
    try:
        run(args)
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted; {args.out} is unchanged, complete splits in {args.data} are kept\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
