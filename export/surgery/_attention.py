"""Attention over (N, L, C) as attention with one head.

torch.onnx cannot translate attention over three dimensions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from ._splice import arguments, replace


def add_head(node: Node) -> str | None:
    """Rewrite aten.scaled_dot_product_attention."""
    given = arguments(node)
    if given["query"].meta["val"].ndim != 3:
        return None

    def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        options: dict[str, Any] = {name: given[name] for name in ("is_causal", "scale")}
        mask = mask[:, None] if mask is not None and mask.ndim == 3 else mask
        result: Tensor = F.scaled_dot_product_attention(
            query[:, None], key[:, None], value[:, None], attn_mask=mask, **options
        )
        return result[:, 0]

    replace(node, attention, given["query"], given["key"], given["value"], given["attn_mask"])
    return "attention with one head"
