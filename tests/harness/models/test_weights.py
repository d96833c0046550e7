"""Weights of dense models from files, timm's tags and the hub: loaded whole whatever
they lie in, or refused in one line that says why.
"""

import argparse
import ast
import copy
import hashlib
import os
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import safetensors
import safetensors.torch
import timm
import torch
from torch import nn

from harness.data.folder import FOLDER_VARIABLE
from harness.models import build, checkpoint, weights
from harness.run import fingerprint
from leaderboard.records.errors import UserError
from leaderboard.records.params import ModelParams
from leaderboard.records.schema import Trained

CLASSES = 5
KINDS = {
    "resnet": ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8}),
    "vit": (
        "vit_tiny_patch16_224",
        {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3},
    ),
}
HERE = os.environ.get(FOLDER_VARIABLE)  # before a test sets its own


def named(kind, weights, **others):
    """Return the params of a tiny model with such weights."""
    name, args = KINDS[kind]
    return ModelParams(
        timm=name, args={**args, **others.pop("args", {})}, weights=weights, **others
    )


def tiny(kind, **args):
    """Build a tiny model whose tensors are all random."""
    model = build.build(named(kind, "recipe", args=args), 3, CLASSES)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1)
    return model


def states(kind):
    return tiny(kind).state_dict()


def same(model, state):
    found = model.state_dict()
    return found.keys() == state.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in state.items()
    )


def refusal(params, channels=3, classes=CLASSES):
    """Return the one line by which weights are refused, short enough to be read."""
    with pytest.raises(UserError) as error:
        weights.load(params, channels, classes)
    line = str(error.value)
    assert "\n" not in line and len(line) < 800
    return line


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder, and a hub that cannot be reached."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


# formats


def save(state, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save(state, file)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.pth", "sub/a.pt", "a.bin", "a.th", "a.pth.tar", "A.PTH"]
)
def test_a_file_of_any_usual_ending_is_loaded_whole(folder, kind, name):
    state = states(kind)
    save(state, folder / name)
    loaded = weights.load(named(kind, name), 3, CLASSES)
    assert same(loaded.model, state) and loaded.origin == f"weights {Path(name).name}"
    assert loaded.sha256 == sha256(folder / name)


def test_a_file_is_found_by_its_absolute_name_without_a_data_folder(tmp_path_factory, monkeypatch):
    file = tmp_path_factory.mktemp("elsewhere") / "a.pth"
    state = states("vit")
    torch.save(state, file)
    monkeypatch.setenv(FOLDER_VARIABLE, str(file.parent / "other"))
    (file.parent / "other").mkdir()
    loaded = weights.load(named("vit", str(file)), 3, CLASSES)
    assert same(loaded.model, state) and loaded.origin == "weights a.pth"


def test_a_file_of_torch_before_its_zip_archives_is_loaded(folder):
    state = states("resnet")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    assert same(weights.load(named("resnet", "old.pth"), 3, CLASSES).model, state)


def test_a_file_without_the_counts_of_old_batch_norms_is_loaded(folder):
    state = states("resnet")
    counted = {name for name in state if name.endswith("num_batches_tracked")}
    save({name: state[name] for name in state.keys() - counted}, folder / "a.safetensors")
    assert counted and same(weights.load(named("resnet", "a.safetensors"), 3, CLASSES).model, state)


def test_weights_in_half_precision_become_single(folder):
    state = {name: tensor.half() for name, tensor in states("vit").items()}
    save(state, folder / "a.safetensors")
    found = weights.load(named("vit", "a.safetensors"), 3, CLASSES).model.state_dict()
    assert all(
        found[name].dtype == torch.float32 and torch.equal(found[name], tensor.float())
        for name, tensor in state.items()
    )


# nesting and prefixes

NESTED = {  # what lies around the tensors (others are of no use), what is said
    "state_dict": (lambda state, _: {"state_dict": state, "epoch": 3}, "state_dict"),
    "model": (lambda state, _: {"model": state, "optimizer": {"state": {}}}, "model"),
    "model_state_dict": (lambda state, _: {"model_state_dict": state}, "model_state_dict"),
    "net": (lambda state, _: {"net": state, "acc": 93.1}, "net"),
    "network": (lambda state, _: {"network": state}, "network"),
    "params": (lambda state, _: {"params": state}, "params"),
    "averaged": (
        lambda state, other: {"state_dict": other, "state_dict_ema": state},
        "state_dict_ema",
    ),
    "averaged model": (lambda state, other: {"model": other, "model_ema": state}, "model_ema"),
    "not averaged": (lambda state, _: {"state_dict": state, "state_dict_ema": None}, "state_dict"),
    "one in another": (lambda state, _: {"model": {"state_dict": state}}, "model.state_dict"),
    "timm's training": (
        lambda state, _: {
            "epoch": 1,
            "arch": "x",
            "state_dict": state,
            "args": argparse.Namespace(lr=0.1),
            "version": 2,
        },
        "state_dict",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("around", "said"), NESTED.values(), ids=NESTED)
def test_the_tensors_are_found_under_the_usual_keys_and_the_record_says_which(
    folder, kind, around, said
):
    state, other = states(kind), states(kind)
    torch.save(around(state, other), folder / "a.pth")
    loaded = weights.load(named(kind, "a.pth"), 3, CLASSES)
    assert same(loaded.model, state) and loaded.origin == f"weights a.pth ({said})"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("module.", "'module.'"),
        ("model.", "'model.'"),
        ("_orig_mod.", "'_orig_mod.'"),
        ("module._orig_mod.", "'module.', '_orig_mod.'"),
        ("_orig_mod.module.", "'_orig_mod.', 'module.'"),
    ],
)
def test_prefixes_of_wrappers_are_stripped_and_the_record_says_which(folder, kind, prefix, said):
    state = states(kind)
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": wrapped}, folder / "a.pth")
    loaded = weights.load(named(kind, "a.pth"), 3, CLASSES)
    assert same(loaded.model, state)
    assert loaded.origin == f"weights a.pth (state_dict; {said} stripped)"


def test_a_real_parallel_and_compiled_model_saves_what_is_loaded(folder):
    model = tiny("vit")
    torch.save(nn.DataParallel(torch.compile(model)).state_dict(), folder / "a.pth")
    assert same(weights.load(named("vit", "a.pth"), 3, CLASSES).model, model.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_a_prefix_that_is_a_name_of_the_model_stays(folder, prefix):
    holder = nn.Module()
    holder.model, holder.module = nn.Linear(2, 3), nn.Linear(3, 3)
    state = {name: torch.rand_like(tensor) for name, tensor in holder.state_dict().items()}
    torch.save({f"{prefix}{name}": tensor for name, tensor in state.items()}, folder / "a.pth")
    notes = checkpoint.load(folder / "a.pth", holder, named("resnet", "a.pth"), 3)
    assert same(holder, state) and notes == ([f"{prefix!r} stripped"] if prefix else [])


def test_two_names_that_would_become_one_are_refused(folder):
    state = states("vit")
    torch.save(state | {"module.norm.bias": state["norm.bias"]}, folder / "a.pth")
    assert "1 unexpected (module.norm.bias)" in refusal(named("vit", "a.pth"))


# names of authors


def test_names_that_timm_knows_are_converted_and_the_record_says_so(folder):
    state = states("vit")
    save({f"visual.trunk.{name}": tensor for name, tensor in state.items()}, folder / "a.pth")
    loaded = weights.load(named("vit", "a.pth"), 3, CLASSES)
    assert same(loaded.model, state) and loaded.origin == "weights a.pth (converted by timm)"


def test_the_names_of_the_author_of_the_cifar_resnets_are_converted(folder):
    model = timm.create_model("resnet20_cifar")
    theirs = {name.replace("fc.", "linear."): it for name, it in model.state_dict().items()}
    save(theirs, folder / "a.pth")
    loaded = weights.load(ModelParams(timm="resnet20_cifar", weights="a.pth"), 3, 10)
    assert same(loaded.model, model.state_dict())


# what does not fit


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_other_classes_is_refused_by_the_numbers_of_both(folder, kind):
    save(states(kind), folder / "a.safetensors")
    line = refusal(named(kind, "a.safetensors"), classes=7)
    head = {"resnet": "fc.weight", "vit": "head.weight"}[kind]
    assert f"a.safetensors are for 5 classes ({head}), the data have 7: " in line


OTHERS = {  # what was saved, and what is said of it
    "another size": (
        "vit",
        {"img_size": 32},
        ["1 of another shape (pos_embed (1, 65, 12) for (1, 17, 12))"],
    ),
    "another patch": (
        "vit",
        {"patch_size": 8},
        [
            "2 of another shape (pos_embed (1, 5, 12) for (1, 17, 12), patch_embed.proj.weight (12, 3, 8, 8) for (12, 3, 4, 4))"
        ],
    ),
    "another width": (
        "vit",
        {"embed_dim": 6},
        [" of another shape (cls_token (1, 1, 6) for (1, 1, 12), pos_embed", "…)"],
    ),
    "deeper": (
        "vit",
        {"depth": 3},
        ["12 unexpected (blocks.2.norm1.weight, blocks.2.norm1.bias, blocks.2.attn.qkv.weight…)"],
    ),
    "shallower": (
        "vit",
        {"depth": 1},
        ["12 missing (blocks.1.norm1.weight, blocks.1.norm1.bias, blocks.1.attn.qkv.weight…)"],
    ),
    "another architecture": (
        "resnet",
        {},
        [
            " missing (cls_token, pos_embed, patch_embed.proj.weight…)",
            " unexpected (conv1.0.weight, conv1.1.weight, conv1.1.bias…)",
        ],
    ),
}


@pytest.mark.parametrize(("kind", "args", "said"), OTHERS.values(), ids=OTHERS)
def test_another_architecture_is_refused_by_counts_and_the_first_tensors(folder, kind, args, said):
    torch.save(tiny(kind, **args).state_dict(), folder / "a.pth")
    line = refusal(named("vit", "a.pth"))
    assert "a.pth do not fit 'vit_tiny_patch16_224' with {'img_size': 16" in line
    assert all(part in line for part in said) and "correct `timm` and `args`" in line


def test_an_author_s_position_embedding_of_another_size_is_not_resized(folder):
    """Under timm's names but for one, so that timm converts it and would resize."""
    state = tiny("vit", img_size=32).state_dict()
    save(state | {"pre_logits.weight": torch.zeros(2)}, folder / "a.pth")
    line = refusal(named("vit", "a.pth"))
    assert "1 of another shape (pos_embed (1, 65, 12) for (1, 17, 12))" in line


def test_images_of_other_channels_are_refused(folder):
    save(states("resnet"), folder / "a.pth")
    assert "1 of another shape (conv1.0.weight (6, 3, 3, 3) for (6, 1, 3, 3))" in refusal(
        named("resnet", "a.pth"), channels=1
    )


def test_names_that_fill_pages_are_cut(folder):
    save({"x\n" * 5000 + str(number): torch.zeros(1) for number in range(4)}, folder / "a.pth")
    assert "4 unexpected (x x x" in refusal(named("vit", "a.pth"))


# files that are none


class Code:
    """A pickle that makes the file `ran` when it is read as pickles are."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place / "ran"),)


def scripted(state, file):
    torch.jit.script(nn.Linear(2, 2)).save(file)


PICKLED = {
    "in a checkpoint": lambda state, file: torch.save(
        {"state_dict": state, "x": Code(file.parent)}, file
    ),
    "in an old checkpoint": lambda state, file: torch.save(
        {"state_dict": state, "x": Code(file.parent)}, file, _use_new_zipfile_serialization=False
    ),
    "a whole model": lambda _, file: torch.save(tiny("vit"), file),
    "TorchScript": scripted,
    "a pickle of something else": lambda _, file: file.write_bytes(pickle.dumps(Code(file.parent))),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("write", PICKLED.values(), ids=PICKLED)
def test_a_pickle_with_code_is_not_run_and_the_line_says_how_to_convert_it(folder, write):
    write(states("vit"), folder / "a.pth")
    line = refusal(named("vit", "a.pth"))
    assert "run code" in line and "weights_only=False" in line and "safetensors" in line
    assert not (folder / "ran").exists()


def test_the_code_that_a_pickle_names_is_named(folder):
    PICKLED["in a checkpoint"]({}, folder / "a.pth")
    assert f"hold more than tensors ({os.mkdir.__module__}.mkdir)" in refusal(named("vit", "a.pth"))


DAMAGED = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "cut at the end": lambda whole: whole[:-100],
    "empty": lambda whole: b"",
    "a text": lambda whole: b"hello world",
    "a pointer of git lfs": lambda whole: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1"
    ),
    "zeros": lambda whole: bytes(1000),
}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "old.pth"])
@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named(folder, name, damage):
    if name == "old.pth":
        torch.save(states("vit"), folder / name, _use_new_zipfile_serialization=False)
    else:
        save(states("vit"), folder / name)
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    line = refusal(named("vit", name))
    assert f"weights {folder / name} are damaged" in line and "get the file again" in line


def in_itself():
    content = {}
    content["model"] = content
    return content


NO_WEIGHTS = {
    "a list": ([1, 2], "found list:"),
    "a tensor": (torch.zeros(3), "found Tensor:"),
    "nothing": ({}, "found dict:"),
    "other keys": ({"generator": {}, "step": 3}, "found dict with generator, step:"),
    "numbers among tensors": ({"a": torch.zeros(1), "b": 2}, "found dict with a, b:"),
    "numbered tensors": ({0: torch.zeros(1)}, "found dict with 0:"),
    "a dict in itself": (in_itself(), "found dict with model:"),
    "an empty one": ({"state_dict": {}}, "found dict:"),
}


@pytest.mark.parametrize(("content", "said"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_a_file_without_weights_is_refused_by_what_it_holds(folder, content, said):
    torch.save(content, folder / "a.pth")
    line = refusal(named("vit", "a.pth"))
    assert f"hold no state_dict, {said}" in line and "state_dict_ema, model_ema, state_dict" in line


@pytest.mark.parametrize("name", ["nowhere.pth", "recipie", "Timm", "hf_hub:a/b", ".", "x" * 300])
def test_what_names_no_file_is_told_where_it_was_looked_for_and_what_there_is(folder, name):
    line = refusal(named("vit", name))
    assert line.startswith(f"no weights {folder / name}: ")
    assert "recipe, timm, hf-hub:OWNER/NAME or a file" in line
    assert weights.source_sha256(named("vit", name)) == ""


@pytest.mark.parametrize("name", ["a.npz", "a.onnx", "a"])
def test_a_file_of_another_ending_is_not_opened(folder, name):
    (folder / name).write_bytes(b"x")
    assert ".safetensors or, by torch.save, as .pth, .pt" in refusal(named("vit", name))


@pytest.mark.parametrize("digits", [8, 9, 63, 64])
def test_a_pinned_file_is_loaded(folder, digits):
    save(states("vit"), folder / "a.pth")
    pin = sha256(folder / "a.pth")[:digits]
    assert weights.load(named("vit", "a.pth", sha256=pin), 3, CLASSES).sha256.startswith(pin)


@pytest.mark.parametrize("digits", [8, 64])
def test_another_file_than_the_pinned_one_is_refused_before_it_is_read(folder, digits):
    save(states("vit"), folder / "a.pth")
    pin = sha256(folder / "a.pth")[:digits]
    (folder / "a.pth").write_bytes(b"another")
    line = refusal(named("vit", "a.pth", sha256=pin))
    assert f"weights a.pth are not the file that `sha256` pins: its digits are {pin}, found" in line
    assert sha256(folder / "a.pth") in line


# timm's tags and the hub


def on_hub(folder, name, file, state, revision="main"):
    """Put weights where the hub's own loader keeps what it has fetched."""
    home = folder / "hub" / f"models--{name.replace('/', '--')}"
    commit = hashlib.sha1(revision.encode()).hexdigest()
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text(commit)
    target = home / "snapshots" / commit / file
    save(state, target)
    return target


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_of_the_hub_is_loaded_by_timm_s_loader(folder, kind, file):
    state = states(kind)
    place = on_hub(folder, "somebody/tiny", file, state)
    loaded = weights.load(named(kind, "hf-hub:somebody/tiny"), 3, CLASSES)
    assert same(loaded.model, state) and loaded.origin == "weights hf-hub:somebody/tiny"
    assert loaded.sha256 == sha256(place)
    pinned = named(kind, "hf-hub:somebody/tiny", sha256="0" * 8)
    assert "weights hf-hub:somebody/tiny are not the file that `sha256` pins" in refusal(pinned)


def test_a_revision_of_the_hub_is_another_file(folder):
    main, old = states("vit"), states("vit")
    on_hub(folder, "somebody/tiny", "model.safetensors", main)
    on_hub(folder, "somebody/tiny", "model.safetensors", old, revision="v1")
    for name, state in {"somebody/tiny": main, "somebody/tiny@v1": old}.items():
        assert same(weights.load(named("vit", f"hf-hub:{name}"), 3, CLASSES).model, state)


def test_on_the_hub_too_weights_are_unpacked_fitted_and_never_run(folder):
    state = states("vit")
    place = on_hub(folder, "somebody/tiny", "pytorch_model.bin", {"module.x": torch.zeros(1)})
    assert " missing (cls_token" in refusal(named("vit", "hf-hub:somebody/tiny"))
    torch.save({"model": state}, place)
    loaded = weights.load(named("vit", "hf-hub:somebody/tiny"), 3, CLASSES)
    assert loaded.origin == "weights hf-hub:somebody/tiny (model)" and same(loaded.model, state)
    PICKLED["in a checkpoint"](state, place)
    assert "to read that may run code" in refusal(named("vit", "hf-hub:somebody/tiny"))
    assert not (place.parent / "ran").exists()


@pytest.mark.parametrize("name", ["somebody/tiny", "tiny", "a/b/c", "", "a@b@c", "a b/c", ".."])
def test_what_the_hub_does_not_give_is_one_line(name):
    line = refusal(named("vit", f"hf-hub:{name}"))
    assert line.startswith(f"weights hf-hub:{name} cannot be had (") and "name a file" in line


@pytest.mark.parametrize(
    ("kind", "tag", "file"),
    [
        ("resnet", "timm/resnet10t.c3_in1k", "model.safetensors"),
        ("vit", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "pytorch_model.bin"),
    ],
)
def test_timm_s_tag_is_loaded_from_the_hub(folder, kind, tag, file):
    assert f"weights hf-hub:{tag} cannot be had" in refusal(named(kind, "timm"))
    state = states(kind)
    place = on_hub(folder, tag, file, state)
    loaded = weights.load(named(kind, "timm"), 3, CLASSES)
    assert same(loaded.model, state) and loaded.origin == f"weights hf-hub:{tag}"
    assert loaded.sha256 == sha256(place)


def tagged(monkeypatch, url, hub=None):
    """Have timm's registry name an address for every model."""
    cfg = SimpleNamespace(url=url, hf_hub_id=hub)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: cfg)


def test_the_file_of_a_tag_in_the_data_folder_is_taken_before_the_hub(folder, monkeypatch):
    here, there = states("vit"), states("vit")
    on_hub(folder, "timm/x", "model.safetensors", there)
    tagged(monkeypatch, "https://nowhere.invalid/of_a_tag.pth", "timm/x")
    assert same(weights.load(named("vit", "timm"), 3, CLASSES).model, there)
    save(here, folder / "weights" / "of_a_tag.pth")
    loaded = weights.load(named("vit", "timm"), 3, CLASSES)
    assert same(loaded.model, here) and loaded.origin == "weights of_a_tag.pth"


def test_an_address_without_a_hash_is_taken_and_its_hash_recorded(folder, monkeypatch):
    save(states("vit"), folder / "weights" / "plain.pth")
    tagged(monkeypatch, "https://nowhere.invalid/plain.pth")
    loaded = weights.load(named("vit", "timm"), 3, CLASSES)
    assert loaded.sha256 == sha256(folder / "weights" / "plain.pth")


def test_what_an_address_gives_is_kept_in_the_data_folder(folder, monkeypatch):
    state = states("vit")
    torch.save(state, folder / "there.pth")
    digits = sha256(folder / "there.pth")[:8]
    (folder / "there.pth").rename(folder / f"there-{digits}.pth")
    tagged(monkeypatch, (folder / f"there-{digits}.pth").as_uri())
    assert same(weights.load(named("vit", "timm"), 3, CLASSES).model, state)
    assert [file.name for file in (folder / "weights").iterdir()] == [f"there-{digits}.pth"]
    (folder / f"there-{digits}.pth").unlink()
    assert same(weights.load(named("vit", "timm"), 3, CLASSES).model, state)


@pytest.mark.parametrize("name", ["resnet10t.nobody", "resnet10t"])
def test_a_model_that_timm_has_no_weights_of_is_one_line(name, monkeypatch):
    if name == "resnet10t":
        tagged(monkeypatch, "")
    params = ModelParams(timm=name, weights="timm")
    with pytest.raises(UserError, match=f"timm has no weights of '{name}'"):
        weights.source_sha256(params)


# the hash that decides whether dense stands


def test_the_hash_of_the_source_is_that_of_the_file_that_would_be_read(folder):
    assert weights.source_sha256(named("vit", "recipe")) == ""
    assert weights.source_sha256(named("vit", "a.pth")) == ""
    save(states("vit"), folder / "a.pth")
    assert weights.source_sha256(named("vit", "a.pth")) == sha256(folder / "a.pth")
    assert weights.source_sha256(named("vit", "hf-hub:somebody/tiny")) == ""
    assert weights.source_sha256(named("vit", "hf-hub:a/b/c")) == ""
    place = on_hub(folder, "somebody/tiny", "model.safetensors", states("vit"))
    assert weights.source_sha256(named("vit", "hf-hub:somebody/tiny")) == sha256(place)
    assert weights.source_sha256(named("vit", "timm")) == ""


def test_a_file_is_hashed_once_until_it_is_changed(folder, monkeypatch):
    hashed, real = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: hashed.append(file.name) or real(file, kind)
    )
    save(states("vit"), folder / "a.pth")
    first = weights.source_sha256(named("vit", "a.pth"))
    assert weights.load(named("vit", "a.pth"), 3, CLASSES).sha256 == first and len(hashed) == 1
    save(states("vit"), folder / "a.pth")
    assert weights.source_sha256(named("vit", "a.pth")) != first and len(hashed) == 2


def test_weights_pin_and_hash_decide_dense(params):
    def of(source="", **changed):
        mixer = params.tracks["digits"].models["mixer"].model_copy(update=changed)
        digits = params.tracks["digits"].model_copy(update={"models": {"mixer": mixer}})
        whole = params.model_copy(update={"tracks": {"digits": digits}})
        return fingerprint.dense_fingerprint(whole, "digits", "mixer", "c", source)

    found = [
        of(),
        of(weights="timm"),
        of(weights="a.pth"),
        of(weights="a.pth", source="1" * 64),
        of(weights="a.pth", source="2" * 64),
        of(weights="a.pth", source="2" * 64, sha256="2" * 8),
    ]
    assert len(set(found)) == len(found) and of() == found[0]


@pytest.mark.parametrize(
    ("origin", "foreign"),
    [
        ("own recipe, 30 epochs", False),
        ("weights a.pth (state_dict)", True),
        ("weights hf-hub:somebody/tiny", True),
        ("reference weights resnet20-12fca82f.th", True),  # as records had it
    ],
)
def test_a_record_says_whether_dense_is_somebody_elses(origin, foreign):
    about = {"timm": "x", "parameters": 1, "test_accuracy": 1.0, "dense": origin}
    trained = Trained(**about, scratch_epochs=1, fine_tune_epochs=1)
    assert trained.from_reference == foreign and trained.source_sha256 == ""


# real files

REAL = sorted((Path(HERE) / "weights").glob("*.safetensors")) if HERE else []


@pytest.mark.skipif(not REAL, reason=f"{FOLDER_VARIABLE} names no folder with real weights")
@pytest.mark.parametrize("file", REAL, ids=lambda file: file.stem)
def test_real_weights_are_what_timm_itself_loads(file):
    with safetensors.safe_open(file, "pt") as content:
        about = content.metadata()
    name, args = about["timm"], ast.literal_eval(about["args"])
    loaded = weights.load(ModelParams(timm=name, args=args, weights=str(file)), 3, 1000)
    expected = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **copy.deepcopy(args)
    )
    assert same(loaded.model, expected.state_dict())
    assert loaded.origin == f"weights {file.name}"
    assert re.fullmatch("[0-9a-f]{64}", loaded.sha256) and loaded.sha256 == sha256(file)
