"""Model card, with numbers computed in the training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from dataset import CLASSES, CLIP_SEED, HELD_OUT_FAMILIES, IMAGE_HW, SPLITS, TEAM_SIZE
from frames import INPUT_HW, MEAN, PAD_VALUE, STD, content_hw

from seginfer.export.zoo.unet import SOCCER_WIDTHS, UNet

if TYPE_CHECKING:
    from evaluate import Metrics
    from train import Cost, Recipe

CAMERAS = {
    "robot": "0.6-1.6 m high, 3-14 m from the ball, a player, a goal or a random spot; vertical field of view 40-70°",
    "near": "0.4-4.9 m high, 2.2-7 m from the ball; 45-70°",
    "stand": "3-9 m high, 10-24 m away; 30-55°",
    "chase": "2-3.5 m behind a player, 1.4-2.4 m high, looking towards the ball; 50-65°; **not in training**",
}


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _class_table(metrics: Metrics) -> str:
    columns = (metrics.iou, metrics.dice, metrics.sensitivity, metrics.specificity)
    rows = [
        (f"{class_id} {name}", *(f"{column[class_id]:.3f}" for column in columns))
        for class_id, name in enumerate(CLASSES)
    ]
    means = tuple(f"**{np.nanmean(column):.3f}**" for column in columns)
    return _table(("class", "IoU", "Dice", "sensitivity", "specificity"), [*rows, ("**mean**", *means)])


def _family_table(scores: dict[str, dict[str, Metrics]]) -> str:
    rows = [
        (split, *(f"{by_family[family].mean_iou:.3f}" for family in ("all", *HELD_OUT_FAMILIES)))
        for split, by_family in scores.items()
    ]
    return _table(("mIoU", "all", *HELD_OUT_FAMILIES), rows)


def _split_table() -> str:
    rows = [
        (s.name, str(s.num_frames), f"{s.first_seed}-{s.first_seed + s.num_matches - 1}", ", ".join(s.families))
        for s in SPLITS.values()
    ]
    return _table(("split", "frames", "match seeds", "camera families"), rows)


def _data_section() -> str:
    cameras = "\n".join(f"- `{name}`: {text}." for name, text in CAMERAS.items())
    return f"""## Data

Rendered with dm_control 1.0.50 (Apache-2.0) and MuJoCo 3.17.0: {TEAM_SIZE} against {TEAM_SIZE} players on a
pitch of random size, {IMAGE_HW[1]}x{IMAGE_HW[0]} RGB, supersampled twofold, no shadows, random ambient and diffuse
light. Players and ball follow smooth random paths. Masks come from the simulator's object ids; the white lines, which
have no id, from their colour inside the field. A pixel gets the class that covers most of it.

{_split_table()}

Cameras:

{cameras}

Nothing was chosen by the test split, and the weights are those after the last step, not the best of several.
`clip.webm` shows the match of seed {CLIP_SEED}; `samples/` holds one test frame of each training family."""


def _training_section(recipe: Recipe, cost: Cost) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in asdict(recipe).items())
    return f"""## Training

MONAI's `DiceFocalLoss` on logits resized to the image (a quarter of the pixels in each step), AdamW, one-cycle
schedule; flips, brightness, slight tint and noise. Settings: {settings}.
It took {cost.wall_s:.0f} s ({cost.cpu_s:.0f} s of CPU time) on {recipe.threads} CPU threads, without a GPU, with
PyTorch {torch.__version__}; rendering comes on top."""


def _input_section(network: UNet) -> str:
    parameters = sum(p.numel() for p in network.parameters())
    image, content = (f"{w}x{h}" for h, w in (IMAGE_HW, content_hw(IMAGE_HW)))
    size = ", ".join(str(extent) for extent in INPUT_HW)
    mean, std = (", ".join(f"{v:g}" for v in values) for values in (MEAN, STD))
    return f"""## Network

`seginfer.export.zoo.unet.soccer_unet()`: a U-Net with widths {SOCCER_WIDTHS} and {parameters:,} parameters.

- Input: `(N, 3, {size})` float32, RGB, (pixel / 255 - mean) / std with mean ({mean}), std ({std}).
- Resize: `cv2.resize`, `INTER_LINEAR` on uint8, keeps the aspect ratio: {image} becomes {content}; centred, padded
  with {PAD_VALUE}.
- Output: `(N, {len(CLASSES)}, {size})` float32 logits; crop the padding, resize bilinearly (`align_corners=False`)
  to the image, then take the largest."""


LIMITS = """## Limits

- Simulated pictures only. It has never seen a photograph and will not work on one.
- One kind of player, one ball, one texture of grass, two team colours, no shadows, no lens distortion, no motion blur.
- Home and away are told by blue and red alone. Both goals are one class.
- Lines and players far away are thinner than a pixel of the network's input; most errors are there and along edges."""


def model_card(network: UNet, recipe: Recipe, cost: Cost, scores: dict[str, dict[str, Metrics]]) -> str:
    """Write the card.

    Args:
        network: the trained network.
        recipe: settings of the training.
        cost: duration of the training.
        scores: metrics by split ("validation", "test"), then by camera family and "all".

    Returns:
        Markdown.
    """
    test = scores["test"]["all"]
    return f"""# pitch: a small U-Net for simulated soccer

Segments frames of dm_control's soccer pitch into {len(CLASSES)} classes: {", ".join(CLASSES)}.
It exists so that seginfer's examples and tests have a trained model with known ground truth. Licence: Apache-2.0.
Written by `examples/soccer/train.py`, which makes it again.

## Results

Test split, {SPLITS["test"].num_frames} frames of matches and poses that training never saw, measured at
{IMAGE_HW[1]}x{IMAGE_HW[0]}; one confusion matrix over all pixels, pixel accuracy {test.accuracy:.4f}:

{_class_table(test)}

By camera family:

{_family_table(scores)}

{_input_section(network)}

{_data_section()}

{_training_section(recipe, cost)}

{LIMITS}
"""
