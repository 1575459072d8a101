"""Peer mmdeploy-runtime, in an environment with NumPy 1.

The SDK reads a folder with the model and three JSON files, written here. For a network with scores it returns them
bilinearly enlarged, float32 (C, H, W), without the argmax, so `scores.argmax(0)` belongs to the work.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _protocol import Channel
from mmdeploy_runtime import Segmentor


def main() -> None:
    """Open the model, save the mask, and serve."""
    channel, job = Channel(), json.loads(sys.argv[1])
    image = np.load(job["image"])
    with tempfile.TemporaryDirectory() as folder:
        segmentor = Segmentor(model_path=_write_sdk_model(Path(folder), job), device_name="cpu", device_id=0)

        def mask() -> Any:
            return segmentor(image).argmax(0).astype(np.uint8)

        np.savez(job["result"], mask=mask())
        versions = {name: importlib.metadata.version(name) for name in ("mmdeploy-runtime", "numpy")}
        channel.serve({"mask": mask}, {"versions": versions, "threads": "its own default: one per core"})


def _write_sdk_model(folder: Path, job: dict[str, Any]) -> str:
    shutil.copyfile(job["model"], folder / "end2end.onnx")
    height, width = job["input_hw"]
    transforms = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "keep_ratio": False, "size": [width, height]},
        {"type": "Normalize", "mean": _levels(job["mean"]), "std": _levels(job["std"]), "to_rgb": False},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"], "meta_keys": ["img_shape", "ori_shape", "scale_factor"]},
    ]
    tasks = [
        _task("Transform", "preprocess", ["img"], ["prepared"], transforms=transforms),
        _task("Net", "net", ["prepared"], ["inferred"], is_batched=False, input_map={"img": "input"}, output_map={}),
        _task(
            "mmseg",
            "postprocess",
            ["prepared", "inferred"],
            ["mask"],
            component="ResizeMask",
            params={"num_classes": job["classes"], "with_argmax": False},
        ),
    ]
    network = {"name": "net", "net": "end2end.onnx", "weights": "", "backend": "onnxruntime", "precision": "FP32"}
    version = importlib.metadata.version("mmdeploy-runtime")
    files = {
        "deploy.json": {
            "version": version,
            "task": "Segmentor",
            "models": [{**network, "batch_size": 1, "dynamic_shape": False}],
            "customs": [],
        },
        "pipeline.json": {"pipeline": {"input": ["img"], "output": ["mask"], "tasks": tasks}},
        "detail.json": {"version": version, "codebase_config": {"type": "mmseg", "task": "Segmentation"}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


def _task(module: str, name: str, inputs: list[str], outputs: list[str], **fields: Any) -> dict[str, Any]:
    return {"type": "Task", "module": module, "name": name, "input": inputs, "output": outputs, **fields}


def _levels(values: list[float]) -> list[float]:
    return [255 * value for value in values]


main()
