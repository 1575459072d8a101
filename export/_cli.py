"""`seginfer export` and `seginfer parity`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from seginfer._cli.certificate import certificate_rows
from seginfer._cli.inputs import open_segmenter, sample
from seginfer._cli.output import Output
from seginfer._errors import ExportError, InputError
from seginfer._files.activation import activation_problem
from seginfer._files.model_file import ModelFile, check_name, pipeline_sha256
from seginfer._spec.certificate import Certificate
from seginfer._spec.model_spec import InputSpec, ModelSpec
from seginfer._spec.schema import unstructure
from seginfer._tensorrt.options import EngineOptions
from seginfer.backends import read_any_model

from . import Source, certify, export_onnx, load_source, load_weights
from ._behaviour import is_trained
from ._images import name_images, select_images
from ._label_files import read_labels
from ._sources import import_object
from .parity.builds import RepeatedBuilds, certify_builds
from .parity.samples import sample_images
from .parity.user_reference import Reference
from .precision import find_precision

_log = logging.getLogger("seginfer")


def export(args: argparse.Namespace, output: Output) -> int:
    """Export a module to a certified .onnx file."""
    with redirect_stdout(sys.stderr):  # output of the user's code must not mix with the result
        certificate = _export(args, output)
    _report(output, certificate, {"path": args.output}, f"wrote {args.output}")
    return 0


def _export(args: argparse.Namespace, output: Output) -> Certificate:
    check_name(args.output)
    spec = ModelSpec.load(args.spec)
    source = _source(args, output)
    reference = _reference(args)
    given = list(_images(args.calibration, args, spec.input).values()) if args.calibration else None
    images, calibration = select_images(
        spec.input, find_precision(args.precision), _images(args.images, args, spec.input), given
    )
    if not spec.provenance.source:
        spec = replace(spec, provenance=replace(spec.provenance, source=source.name))
    with _show_progress(output, len(images), "exporting and ") as on_progress:
        return export_onnx(
            source.module,
            spec,
            args.output,
            images=images,
            reference=reference,
            labels=read_labels(args.labels, images) if args.labels else None,
            calibration=calibration or None,
            batch_size=_batch_size(args.batch_size, source),
            split_head=not args.keep_upsampling,
            precision=args.precision,
            on_progress=on_progress,
        )


def parity(args: argparse.Namespace, output: Output) -> int:
    """Compare a model file or an engine with PyTorch. Exit with 1 if a limit is not met."""
    if args.builds is not None:
        return _parity_of_builds(args, output)
    with redirect_stdout(sys.stderr):
        certificate = _compare(args, output)
    _report(output, certificate, {"path": args.model}, certificate.summary())
    return 0 if certificate.passed else 1


def _compare(args: argparse.Namespace, output: Output) -> Certificate:
    model = read_any_model(args.model)
    spec = model.spec
    if args.source is None and args.reference is None:
        raise InputError("parity needs a SOURCE or a --reference to compare with, got neither; give one of them")
    if isinstance(model, ModelFile) and (problem := activation_problem(args.model, spec)):
        raise InputError(f"{args.model} contradicts its ModelSpec: {problem}; attach a corrected one")
    module = _source(args, output).module if args.source is not None else None
    reference = _reference(args)
    images = _images(args.images, args, spec.input)
    with (
        open_segmenter(args, output, args.model, verify=False) as segmenter,
        _show_progress(output, len(images)) as on_progress,
    ):
        certificate = certify(
            module,
            segmenter,
            images,
            precision=spec.provenance.precision or "fp32",
            reference=reference,
            labels=read_labels(args.labels, images) if args.labels else None,
            on_progress=on_progress,
        )
    sha256 = pipeline_sha256(args.model, spec) if isinstance(model, ModelFile) else model.key.digest()
    return replace(certificate, pipeline_sha256=sha256)


def _parity_of_builds(args: argparse.Namespace, output: Output) -> int:
    """Build engines and compare each with PyTorch. Exit with 1 if one does not meet a limit."""
    with redirect_stdout(sys.stderr):
        found = _compare_builds(args, output)
    _report_builds(output, args.model, found)
    return 0 if all(certificate.passed for certificate in found.certificates) else 1


def _compare_builds(args: argparse.Namespace, output: Output) -> RepeatedBuilds:
    model = read_any_model(args.model)
    if not isinstance(model, ModelFile):
        raise InputError(f"--builds builds from an .onnx file, got the engine {args.model}; leave --builds out")
    if args.backend not in ("tensorrt", "tensorrt_rtx"):
        raise InputError(f"--builds needs --backend tensorrt or tensorrt_rtx, got {args.backend}")
    if args.source is None:
        raise InputError("--builds compares with PyTorch and needs a SOURCE, got none; give it")
    source = _source(args, output)
    images = _images(args.images, args, model.spec.input)
    with _show_progress(output, len(images) * args.builds, "building and ") as on_progress:
        options = EngineOptions(library=args.backend)
        return certify_builds(
            source.module,
            args.model,
            images,
            builds=args.builds,
            options=options,
            device=args.device,
            on_progress=on_progress,
        )


def _source(args: argparse.Namespace, output: Output) -> Source:
    with output.waiting("loading the module"):
        source = load_source(args.source, args.kwargs, trust_code=args.trust_code)
        if args.weights:
            load_weights(source.module, args.weights, args.weights_key)
        elif args.weights_key:
            raise InputError("--weights-key needs --weights, got none; give the checkpoint")
        elif not args.source.endswith(".pt2") and is_trained(source.module) is None:
            _log.warning("no --weights were given: unless %s loads its own, its weights are random", args.source)
    return source


def _reference(args: argparse.Namespace) -> Reference | None:
    if args.reference is None:
        return None
    function = import_object(args.reference, "package.module:function as the reference")
    if not callable(function):
        raise ExportError(f"{args.reference} must be a function of one image, got {type(function).__name__}")
    return cast("Reference", function)


def _images(paths: Sequence[Path], args: argparse.Namespace, spec: InputSpec) -> dict[str, NDArray[np.uint8]]:
    if not paths:
        return name_images(sample_images(spec))
    return sample(paths, args.max_images, gray=spec.color == "gray")


def _batch_size(requested: int | None, source: Source) -> int | None:
    if requested and source.batch_size and requested != source.batch_size:
        raise InputError(f"{source.name} takes batches of {source.batch_size} only, got --batch-size {requested}")
    return requested or source.batch_size


@contextmanager
def _show_progress(output: Output, total: int, before: str = "") -> Iterator[Callable[[int, int], None]]:
    with output.progress(f"{before}comparing with PyTorch", total) as advance:
        shown = 0

        def show(done: int, _total: int) -> None:
            nonlocal shown
            if done > shown:  # a changed graph is compared from the first image on
                shown = done
                advance()

        yield show


def _report(output: Output, certificate: Certificate, data: dict[str, Any], line: str) -> None:
    def show() -> None:
        output.table("parity with PyTorch", ("", "value"), certificate_rows(certificate))
        output.say(line)

    claims = {"proved": certificate.proved() if certificate.passed else "", "not_proved": certificate.not_proved()}
    output.result({**data, "certificate": unstructure(certificate), **claims}, show)


def _report_builds(output: Output, model: object, found: RepeatedBuilds) -> None:
    def show() -> None:
        for i, (certificate, agreement) in enumerate(zip(*found, strict=True)):
            rows = [("agrees with the first build", f"{agreement:.6%}"), *certificate_rows(certificate)]
            output.table(f"build {i + 1}: parity with PyTorch", ("", "value"), rows)
            output.say(certificate.summary())

    certificates = [unstructure(certificate) for certificate in found.certificates]
    data = {"path": model, "certificates": certificates, "agreement_with_first": list(found.agreement)}
    output.result(data, show)
