"""Network outputs to results, one folder per task."""

from __future__ import annotations

from collections.abc import Callable

from .._spec.model_spec import ModelSpec, TaskName
from .dense.task import DenseTask
from .task import Task

# One line per task.
TASKS: dict[TaskName, Callable[[ModelSpec], Task]] = {
    "semantic": DenseTask,
    "binary": DenseTask,
    "multilabel": DenseTask,
}


def task_of(spec: ModelSpec) -> Task:
    """Return the task that decodes the outputs of a network."""
    return TASKS[spec.task](spec)
