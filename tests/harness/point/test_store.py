"""What is stored is read back bit for bit, in its cheapest form; what is damaged or
foreign is refused in one line.
"""

import io
import json
import shutil
from zipfile import ZipFile

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.point import store, weights_file
from harness.point.huffman import huffman, unhuffman
from leaderboard.records.errors import UserError
from methods import Codebook, Codes, store_as_codes


@given(
    st.integers(1, 16).flatmap(
        lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1), max_size=70))
    )
)
def test_packing_loses_nothing_and_takes_the_bits_rounded_up_to_bytes(case):
    bits, values = case
    codes = torch.tensor(values, dtype=torch.int64)
    packed = weights_file.pack(codes, bits)
    assert packed.numel() == -(-len(values) * bits // 8)
    assert torch.equal(weights_file.unpack(packed, bits, len(values)), codes)


def test_four_bits_put_the_lower_code_into_the_lower_half_and_three_bits_put_eight_codes_into_three_bytes():
    assert weights_file.pack(torch.tensor([0x3, 0xA], dtype=torch.uint8), 4).tolist() == [0xA3]
    assert weights_file.pack(torch.arange(8, dtype=torch.uint8), 3).tolist() == [
        0b10001000,
        0b11000110,
        0b11111010,
    ]


@settings(deadline=None)
@given(
    st.integers(1, 400),
    st.floats(0, 1),
    st.sampled_from([torch.float32, torch.float16, torch.float64]),
)
def test_sparse_tensors_are_read_back_bit_for_bit_and_never_stored_larger_than_plain(
    size, density, dtype
):
    generator = torch.Generator().manual_seed(size)
    tensor = (
        torch.randn(size, generator=generator).to(dtype)
        * (torch.rand(size, generator=generator) < density)
        + 0.0
    )
    plain = weights_file.encode({"w": torch.ones_like(tensor)}, {})
    content = weights_file.encode({"w": tensor}, {})
    (back,), _ = weights_file.decode(content)[0].values(), None
    assert back.dtype == dtype and torch.equal(weights_file._raw(back), weights_file._raw(tensor))
    assert len(content) <= len(plain)


FLOATS = {
    torch.float64: (torch.int64, 0x7FF0000000000BAD),
    torch.float32: (torch.int32, 0x7F800BAD),
    torch.float16: (torch.int16, 0x7C0B),
    torch.bfloat16: (torch.int16, 0x7F8B),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [5, 4000])
def test_negative_zero_becomes_zero_and_all_other_bits_survive(dtype, size):
    integers, payload = FLOATS[dtype]
    tensor = torch.zeros(size, dtype=dtype)
    tensor[:5] = torch.tensor([-0.0, 0.0, float("inf"), float("-inf"), -1.0])
    bits = tensor.view(integers)
    # a NaN with a payload, and the smallest number above 0
    bits[1:3] = torch.tensor([payload, 1], dtype=integers)
    content = weights_file.encode({"w": tensor}, {})
    back = weights_file.decode(content)[0]["w"]
    expected = torch.tensor([0, *bits[1:].tolist()], dtype=integers)
    assert torch.equal(back.view(integers), expected) and bits[0] != 0, (
        "what was given is not changed"
    )
    assert content == weights_file.encode({"w": expected.view(dtype)}, {})


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_negative_zero_in_a_byte_becomes_zero(dtype):
    tensor = torch.tensor([-0.0, -1.0, 0.0, 2.0]).to(dtype)
    back = weights_file.decode(weights_file.encode({"w": tensor}, {}))[0]["w"]
    assert back.view(torch.uint8).tolist() == [0, *tensor.view(torch.uint8)[1:].tolist()]


def test_no_codes_decode_to_a_negative_zero():
    codes = Codes(
        torch.tensor([[3, 0]], dtype=torch.uint8),
        torch.tensor([[-0.5]]).half(),
        torch.tensor([[3]], dtype=torch.uint8),
        3,
        2,
    )
    table = Codebook(torch.tensor([0, 1]), torch.tensor([[-0.0], [2.0]]).half())
    for form in (codes, table):
        weight = form.decode(torch.Size([1, 2]))
        assert torch.signbit(weight).tolist()[0][0], "else this tests nothing"
        back = weights_file.decode(weights_file.encode({"w": weight}, {"w": form}))[0]["w"]
        assert torch.equal(back, weight) and not torch.signbit(back[0, 0])


class Zeros(torch.nn.Module):
    """Has -0.0 in a weight, a bias, buffers of three types and a constant."""

    def __init__(self, zero):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)
        for tensor in self.layer.parameters():
            tensor.data[::2] = zero
        for name, dtype in {
            "b16": torch.float16,
            "b32": torch.float32,
            "b64": torch.float64,
        }.items():
            self.register_buffer(name, torch.full((16,), zero, dtype=dtype))
        self.zero = zero

    def forward(self, images):
        return (
            self.layer(images.flatten(1))
            + self.b16
            + self.b32
            + self.b64
            + torch.tensor([self.zero])
        )


def test_program_and_weights_file_have_no_negative_zero_and_agree_bit_for_bit(tmp_path):
    written = []
    for zero in (0.0, -0.0):
        torch.manual_seed(0)
        folder = tmp_path / str(zero)
        folder.mkdir()
        store.write(folder, store.export(Zeros(zero).eval(), torch.ones(2, 1, 4, 4)), {})
        complete = torch.export.load(folder / store.PROGRAM)
        tensors, _ = weights_file.decode((folder / store.WEIGHTS).read_bytes())
        found = {**complete.state_dict, **complete.constants}
        assert set(found) == set(tensors) and len(found) == 6
        for name, tensor in found.items():
            assert torch.equal(
                weights_file._raw(tensor.detach()), weights_file._raw(tensors[name])
            ), name
            assert not torch.signbit(tensor[tensor == 0]).any()
        written.append([(folder / name).read_bytes() for name in (store.WEIGHTS, store.PROGRAM)])
    assert written[0] == written[1]


def test_a_mostly_zero_tensor_takes_a_bit_per_entry_and_its_values():
    tensor = torch.zeros(8000)
    tensor[::80] = 1.5
    content = weights_file.encode({"w": tensor}, {})
    header = int.from_bytes(content[:8], "little")
    assert len(content) - 8 - header == 1000 + 400


def quantized() -> tuple[torch.nn.Linear, Codes]:
    codes = Codes(
        codes=torch.randint(0, 8, (5, 7), dtype=torch.uint8),
        scale=torch.rand(5, 2).half(),
        zero=torch.randint(0, 8, (5, 2), dtype=torch.uint8),
        bits=3,
        group=4,
    )
    layer = torch.nn.Linear(7, 5)
    store_as_codes(layer, codes)
    return layer, codes


def test_codes_are_read_back_as_the_weight_they_stand_for_at_their_bit_width():
    layer, codes = quantized()
    content = weights_file.encode({"weight": layer.weight}, {"weight": codes})
    tensors, bits = weights_file.decode(content)
    assert torch.equal(tensors["weight"], layer.weight) and bits == {"weight": 3}
    header = int.from_bytes(content[:8], "little")
    # ceil(35 * 3 / 8), 10 float16 scales, 10 zero points
    assert len(content) - 8 - header == 14 + 20 + 10


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=200))
def test_huffman_coding_loses_nothing_and_is_within_a_bit_a_symbol_of_the_entropy(values):
    symbols = torch.tensor(values)
    parts = huffman(symbols)
    assert torch.equal(unhuffman(parts, len(values)), symbols)
    shares = torch.unique(symbols, return_counts=True)[1] / len(values)
    entropy = float(-(shares * shares.log2()).sum())
    assert (
        entropy * len(values) - 1e-3
        <= 8 * parts["stream"].numel()
        < (entropy + 1) * len(values) + 8
    )


def test_frequencies_of_five_one_one_and_one_take_thirteen_bits():
    parts = huffman(torch.tensor([0, 0, 0, 0, 0, 1, 2, 3]))
    # 5 of 1 bit, 1 of 2, 2 of 3
    assert parts["lengths"].tolist() == [0, 1, 1, 2] and parts["stream"].numel() == 2


def indexed(
    peaked: bool, projection: torch.Tensor | None = None
) -> tuple[torch.nn.Linear, Codebook]:
    index = (
        torch.randint(0, 32, (4096,))
        if not peaked
        else (3 * torch.randn(4096)).abs().long().clamp(max=31)
    )
    codes = Codebook(index, torch.randn(32, 1).half(), projection)
    layer = torch.nn.Linear(
        64, len(index) * (1 if projection is None else projection.shape[1]) // 64
    )
    store_as_codes(layer, codes)
    return layer, codes


@pytest.mark.parametrize("peaked", [False, True])
@pytest.mark.parametrize("projection", [None, torch.tensor([[0.5, -1.0, 0.1, 3.0]]).half()])
def test_a_codebook_is_read_back_bit_for_bit_and_huffman_coded_where_that_is_shorter(
    peaked, projection
):
    layer, codes = indexed(peaked, projection)
    content = weights_file.encode({"weight": layer.weight}, {"weight": codes})
    tensors, bits = weights_file.decode(content)
    assert torch.equal(tensors["weight"], layer.weight) and bits == {}, (
        "what is multiplied is not the index"
    )
    names = set(safetensors.torch.load(content))
    assert ("weight|stream" in names) is peaked and ("weight|index" in names) is not peaked
    packed = 4096 * 5 // 8
    assert len(content) < packed if peaked else packed < len(content) < packed + 500


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("centroids", torch.zeros(20, 1)),  # some of the 32 that are named are missing
        ("index", torch.zeros(2560)),
        ("index", torch.zeros(3, dtype=torch.uint8)),
        ("centroids", torch.zeros(5000, 1)),
        ("centroids", torch.zeros(32, 7)),
        ("projection", torch.zeros(1, 10**6)),
    ],
)
def test_a_codebook_that_does_not_fit_its_weight_is_refused(part, value):
    layer, codes = indexed(peaked=False)
    content = weights_file.encode({"weight": layer.weight}, {"weight": codes})
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    entries = safetensors.torch.load(content) | {f"weight|{part}": value}
    with pytest.raises(ValueError, match="not a weights file of shrinkmark, or damaged"):
        weights_file.decode(safetensors.torch.save(entries, metadata))


def test_groups_that_do_not_fit_their_codes_are_refused():
    layer, codes = quantized()
    content = weights_file.encode({"weight": layer.weight}, {"weight": codes})
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    larger = {
        weights_file.FORMAT: metadata[weights_file.FORMAT].replace(
            '"group":4', '"group":4000000000000'
        )
    }
    with pytest.raises(ValueError, match="do not fit its groups"):
        weights_file.decode(safetensors.torch.save(safetensors.torch.load(content), larger))


def test_a_weight_changed_after_its_codes_were_attached_is_refused():
    layer, codes = quantized()
    with torch.no_grad():
        layer.weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"codes of weight do not decode to its weight"):
        weights_file.encode({"weight": layer.weight}, {"weight": codes})


def test_the_same_tensors_give_the_same_bytes():
    tensors = {f"t{index}": torch.randn(3, index + 1) for index in range(9)}
    assert weights_file.encode(tensors, {}) == weights_file.encode(
        dict(reversed(tensors.items())), {}
    )


@pytest.fixture
def artefact(make_model, track_data, tmp_path):
    program = store.export(make_model("mobilenet"), track_data.validation.images[:2])
    store.write(tmp_path, program, {})
    return tmp_path


def test_a_graph_without_tensors_and_the_weights_file_are_the_artefact(
    artefact, track_data, tmp_path
):
    small = tmp_path / "small"
    small.mkdir()
    store.write_graph(artefact, small)
    shutil.copy(artefact / store.WEIGHTS, small / store.WEIGHTS)
    images = track_data.validation.images[:4]
    assert torch.equal(store.read(small).module(images), store.read(artefact).module(images))
    assert (small / store.GRAPH).stat().st_size < (artefact / store.PROGRAM).stat().st_size / 5
    (small / store.GRAPH).write_bytes((small / store.GRAPH).read_bytes()[:1000])
    with pytest.raises(UserError, match="artefact small cannot be read"):
        store.read(small)


def test_an_artefact_runs_from_the_weights_file_not_from_the_weights_inside_the_program(
    artefact, track_data
):
    images = track_data.validation.images[:4]
    before = store.read(artefact).module(images)
    tensors, _ = weights_file.decode((artefact / store.WEIGHTS).read_bytes())
    (artefact / store.WEIGHTS).write_bytes(
        weights_file.encode(
            {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, {}
        )
    )
    assert before.abs().max() > 0 and store.read(artefact).module(images).abs().max() == 0


def test_logits_of_an_image_do_not_depend_on_its_batch_mates(artefact, track_data):
    images, module = track_data.validation.images[:8], store.read(artefact).module
    torch.testing.assert_close(module(images)[3:4], module(images[3:4]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-9],
        lambda content: b"",
        lambda content: content[:100],
        lambda content: b"\xff" * 64,
    ],
)
@pytest.mark.parametrize("name", [store.WEIGHTS, store.PROGRAM])
def test_a_damaged_file_is_one_line_that_says_what_to_do(artefact, name, damage):
    (artefact / name).write_bytes(damage((artefact / name).read_bytes()))
    with pytest.raises(UserError, match=r"cannot be read: .*: delete .* and run again") as error:
        store.read(artefact)
    assert "\n" not in str(error.value)


class Ran(Exception):
    pass


def run() -> None:
    raise Ran


class Hostile:
    def __reduce__(self):
        return run, ()


def rewritten(archive, change):
    """Write the zip `archive` again with the entries (name to content) that `change`
    makes of it.
    """
    with ZipFile(archive) as old:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
    change(entries)
    with ZipFile(archive, "w") as new:
        for entry, value in entries.items():
            new.writestr(entry, value)


def replaced(archive, ending, content):
    """Write the zip `archive` again with other content for the entry whose name ends
    so.
    """

    def change(entries):
        (name,) = [name for name in entries if name.endswith(ending)]
        entries[name] = content(entries[name])

    rewritten(archive, change)


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("sample_inputs/model.pt", lambda _: pickled(Hostile())),
        (
            "model_weights_config.json",
            lambda old: old.replace(b'"use_pickle": false', b'"use_pickle": true', 1),
        ),
        (
            "model_constants_config.json",
            lambda _: (
                b'{"config": {"custom_obj_0": {"path_name": "custom_obj_0", "use_pickle": true}}}'
            ),
        ),
        # torch goes by its name
        (
            "model_constants_config.json",
            lambda _: b'{"config": {"c": {"path_name": "opaque_obj_0", "use_pickle": false}}}',
        ),
        (
            "model_constants_config.json",
            lambda _: b'{"config": {"c": {"path_name": "custom_obj_0", "use_pickle": false}}}',
        ),
    ],
)
def test_a_program_that_holds_a_pickle_is_refused_before_it_is_loaded(artefact, ending, content):
    replaced(artefact / store.PROGRAM, ending, content)
    with pytest.raises(
        UserError, match=r"cannot be read: .*(holds more than tensors|names pickled objects)"
    ):
        store.read(artefact)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("constants/opaque_obj_0", "neither a tensor"),
        ("weights/model.pt", "neither a tensor"),  # torch's older form, a pickle
        ("aotinductor/model/model.wrapper.so", "neither a tensor"),  # code, which torch would load
    ],
)
def test_a_program_with_data_that_are_no_tensors_is_refused(artefact, name, said):
    rewritten(
        artefact / store.PROGRAM,
        lambda entries: entries.update({f"{next(iter(entries)).split('/')[0]}/data/{name}": b"x"}),
    )
    with pytest.raises(UserError, match=f"cannot be read: .*{said}"):
        store.read(artefact)


@pytest.mark.parametrize(
    "content", [b"[]", b'{"config": []}', b'{"config": {"c": 1}}', b"{}", b"nothing"]
)
def test_a_description_of_tensors_that_is_none_is_refused(artefact, content):
    replaced(artefact / store.PROGRAM, "model_weights_config.json", lambda _: content)
    with pytest.raises(UserError, match="cannot be read"):
        store.read(artefact)


def test_a_program_with_an_entry_twice_is_refused(artefact):
    with (
        ZipFile(artefact / store.PROGRAM, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr(archive.namelist()[0], b"other")
    with pytest.raises(UserError, match="stands in it twice"):
        store.read(artefact)


def pickled(value) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_a_foreign_safetensors_file_and_one_of_another_model_are_refused(artefact):
    safetensors.torch.save_file({"w": torch.zeros(3)}, artefact / store.WEIGHTS)
    with pytest.raises(UserError, match="not a weights file of shrinkmark"):
        store.read(artefact)
    (artefact / store.WEIGHTS).write_bytes(weights_file.encode({"w": torch.zeros(3)}, {}))
    with pytest.raises(UserError, match="disagree on tensor names"):
        store.read(artefact)
