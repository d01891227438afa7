import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgedistill.data import weights
from edgedistill.errors import ModelError

TENSORS = {
    "a.weight": np.ones((3, 4), np.float16),
    "b.bias": np.ones(5, np.float32),
    "b.running_mean": np.ones(5, np.float32),
    "positions": np.arange(7),
}


@pytest.fixture
def path(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_the_header_tells_shapes_types_and_parameters(path):
    found = weights.read(path.parent)
    assert found is not None
    assert found.tensors["a.weight"] == ("F16", (3, 4))
    assert found.parameters() == 12 + 5
    assert found.dtype() == "float16"
    assert found.bytes == path.stat().st_size


@pytest.mark.parametrize("left", [0, 4, 60, -1, -30])
def test_a_cut_file_is_noticed(path, left):
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ModelError, match=r"model\.safetensors.*(cut off|damaged)") as error:
        weights.read(path.parent)
    assert "\n" not in str(error.value)


def test_bytes_too_many_are_noticed(path):
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(ModelError, match="cut off or damaged"):
        weights.read(path.parent)


@pytest.mark.parametrize(
    "told",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": 3},
        [],
    ],
)
def test_a_header_that_lies_is_noticed(tmp_path, told):
    head = json.dumps(told).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + b"0" * 4)
    with pytest.raises(ModelError, match="damaged"):
        weights.read(tmp_path)


def test_an_absurd_header_is_not_read(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ModelError, match="no safetensors file"):
        weights.read(tmp_path)


def test_one_flipped_bit_changes_the_digest(path):
    before = weights.read(path.parent).digest()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert weights.read(path.parent).digest() != before


def test_shards_and_a_missing_one(tmp_path):
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for name, file in names.items():
        save_file({name: np.ones(3, np.float32)}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    found = weights.read(tmp_path)
    assert [path.name for path in found.files] == [index.name, *names.values()]
    assert found.parameters() == 6
    (tmp_path / names["b"]).unlink()
    with pytest.raises(ModelError, match=f"lacks '{names['b']}'"):
        weights.read(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(ModelError, match="outside its folder"):
        weights.read(tmp_path)


def test_a_folder_without_weights(tmp_path):
    assert weights.read(tmp_path) is None
