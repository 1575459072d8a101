"""Modules and weights come from factories, exported programs and checkpoints, and none of it is unpickled blindly."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from networks import SIZE, Tiny, make_spec, pictures
from safetensors.torch import save_file

from seginfer import ExportError, MissingFileError, SegInferError, WeightsError
from seginfer.export import export_onnx, load_source, load_weights, weights_sha256


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.path)!r}, 'w')",)


def other_weights() -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in Tiny().state_dict().items()}


def test_a_factory_is_imported_and_called_with_its_arguments() -> None:
    source = load_source("networks:Tiny", {"channels": 7})
    assert source.module.last.out_channels == 7
    assert source.batch_size is None
    assert source.name == "networks:Tiny"


def test_a_factory_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_nets.py").write_text("import torch\ndef build(n=2):\n    return torch.nn.Conv2d(3, n, 1)\n")
    monkeypatch.chdir(tmp_path)
    assert load_source("my_own_nets:build", {"n": 4}).module.out_channels == 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("networks", "package.module:factory"),
        ("no_such_package_here:f", "cannot import"),
        ("networks:no_such_factory", "cannot import"),
        ("networks:make_spec", "must return a torch.nn.Module"),
        ("networks:Returning", "failed with TypeError"),
    ],
)
def test_a_factory_that_gives_no_module_is_an_error(source: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        load_source(source)


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_checkpoints_of_training_frameworks_are_understood(wrap: str | None, prefix: str, tmp_path: Path) -> None:
    state = {prefix + name: tensor for name, tensor in other_weights().items()}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pt")
    module = Tiny()
    load_weights(module, tmp_path / "w.pt")
    assert torch.equal(module.last.weight, other_weights()["last.weight"])


@pytest.mark.parametrize(
    ("keys", "named"),
    [(("model", "ema"), "'model' and 'ema'"), (("state_dict", "state_dict_ema"), "'state_dict' and 'state_dict_ema'")],
)
def test_several_state_dicts_are_a_choice(keys: tuple[str, str], named: str, tmp_path: Path) -> None:
    raw, averaged = Tiny().state_dict(), other_weights()
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}}, "param_groups": []}
    torch.save({keys[0]: raw, keys[1]: averaged, "optimizer": optimizer, "epoch": 3}, tmp_path / "w.pt")
    module = Tiny()
    with pytest.raises(WeightsError, match=f"several state dicts, {named}; choose one with key="):
        load_weights(module, tmp_path / "w.pt")
    load_weights(module, tmp_path / "w.pt", keys[1])
    assert torch.equal(module.last.weight, averaged["last.weight"])
    with pytest.raises(WeightsError, match="no state dict under the key 'best'; its keys are"):
        load_weights(module, tmp_path / "w.pt", "best")


def test_a_single_state_dict_under_any_key_is_found(tmp_path: Path) -> None:
    for content in (
        {"ema": other_weights()},
        {"train": {"ema": other_weights(), "lr": 0.1}, "loss": {"w": torch.ones(2)}},
    ):
        torch.save(content, tmp_path / "w.pt")
        module = Tiny()
        load_weights(module, tmp_path / "w.pt")
        assert torch.equal(module.last.weight, other_weights()["last.weight"])
    load_weights(module, tmp_path / "w.pt", "train.ema")


def test_safetensors_are_read_and_change_the_hash(tmp_path: Path) -> None:
    module = Tiny()
    before = weights_sha256(module)
    save_file(other_weights(), tmp_path / "w.safetensors")
    load_weights(module, tmp_path / "w.safetensors")
    assert weights_sha256(module) != before
    load_weights(module, tmp_path / "w.safetensors")
    again = Tiny()
    load_weights(again, tmp_path / "w.safetensors")
    assert weights_sha256(module) == weights_sha256(again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("last.bias"), "1 missing \\(last.bias\\)"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unexpected \\(extra\\)"),
        (lambda s: s.update({"last.bias": torch.zeros(9)}), "other shape \\(last.bias \\(9,\\) for \\(3,\\)\\)"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change: object, message: str, tmp_path: Path) -> None:
    state = other_weights()
    change(state)  # type: ignore[operator]
    save_file(state, tmp_path / "w.safetensors")
    module = Tiny()
    before = weights_sha256(module)
    with pytest.raises(WeightsError, match=message):
        load_weights(module, tmp_path / "w.safetensors")
    assert weights_sha256(module) == before


def test_a_pickle_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "w.pt")
    (tmp_path / "raw.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in ("w.pt", "raw.pkl"):
        with pytest.raises(WeightsError, match="would run code"):
            load_weights(Tiny(), tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_missing_truncated_and_foreign_checkpoints_are_errors(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(MissingFileError):
        load_weights(Tiny(), path)
    if name.endswith("pt"):
        torch.save(other_weights(), path)
    else:
        save_file(other_weights(), path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not a checkpoint at all"):
        path.write_bytes(broken)
        with pytest.raises(WeightsError):
            load_weights(Tiny(), path)
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="state dict"):
        load_weights(Tiny(), tmp_path / "list.pt")


def save_program(path: Path, *, batch: int, dynamic: bool) -> None:
    shapes = ({0: torch.export.Dim("n", min=1, max=64)},) if dynamic else None
    program = torch.export.export(Tiny().eval(), (torch.rand(batch, 3, *SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, path)


@pytest.mark.parametrize(("batch", "dynamic", "bound"), [(2, True, None), (1, False, 1), (2, False, 2)])
def test_an_exported_program_is_exported_on(batch: int, dynamic: bool, bound: int | None, tmp_path: Path) -> None:
    save_program(tmp_path / "m.pt2", batch=batch, dynamic=dynamic)
    source = load_source(str(tmp_path / "m.pt2"), trust_code=True)
    assert source.batch_size == bound
    images = pictures((70, 90))
    certificate = export_onnx(
        source.module, make_spec(), tmp_path / "m.onnx", images=images, batch_size=source.batch_size
    )
    assert certificate.passed


def test_a_program_is_loaded_by_those_who_trust_it_only(tmp_path: Path) -> None:
    """No list of members can say that an archive is harmless: five such lists were got around."""
    save_program(tmp_path / "m.pt2", batch=1, dynamic=False)
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "trap.pt")
    with (
        zipfile.ZipFile(tmp_path / "m.pt2") as archive,
        zipfile.ZipFile(tmp_path / "trapped.pt2", "w") as trapped,
    ):
        for name in archive.namelist():
            is_sample = "/sample_inputs/" in name
            trapped.writestr(name, (tmp_path / "trap.pt").read_bytes() if is_sample else archive.read(name))
    for path in ("m.pt2", "trapped.pt2"):
        with pytest.raises(ExportError, match="--trust-code"):
            load_source(str(tmp_path / path))
    assert not (tmp_path / "sprung").exists()


def test_missing_truncated_and_foreign_programs_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    with pytest.raises(MissingFileError):
        load_source(str(path), trust_code=True)
    save_program(path, batch=1, dynamic=False)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not an archive"):
        path.write_bytes(broken)
        with pytest.raises(SegInferError):
            load_source(str(path), trust_code=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "not a program")
    with pytest.raises(ExportError, match="cannot load"):
        load_source(str(path), trust_code=True)
