"""Class colours of Cityscapes and Pascal VOC."""

from __future__ import annotations

from collections.abc import Sequence

Color = tuple[int, int, int]

# Source: the label table of the Cityscapes benchmark (Cordts et al., 2016), training classes.
CITYSCAPES: dict[str, Color] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}


def voc_color(class_id: int) -> Color:
    """Return the Pascal VOC colour of a class.

    The bits of the id, three at a time, fill R, G and B from the highest bit down.

    Source: the colour map of the Pascal VOC challenge (Everingham et al., 2010).
    """
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (class_id & 1) << shift
        green |= (class_id >> 1 & 1) << shift
        blue |= (class_id >> 2 & 1) << shift
        class_id >>= 3
    return red, green, blue


def default_colors(names: Sequence[str]) -> tuple[Color, ...]:
    """Return Cityscapes colours if all names match, else Pascal VOC colours."""
    if len(names) > 2 and all(name.lower() in CITYSCAPES for name in names):
        return tuple(CITYSCAPES[name.lower()] for name in names)
    return tuple(voc_color(i) for i in range(len(names)))
