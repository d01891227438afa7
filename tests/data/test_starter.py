import numpy as np
import pytest

from edgedistill.data import models, split, starter


def test_digits_are_split_by_their_pixels():
    data = starter.data()
    assert sum(len(part) for part in data.splits.values()) == 1797
    assert data.labels() == [str(digit) for digit in range(10)]
    for name in ("validation", "test"):
        assert len(data.splits[name]) / 1797 == pytest.approx(0.25, abs=0.03)
    assert set(data.overlap.values()) == {0}
    test = data.splits["test"].examples
    assert all(split.position(test.content(index)) < 0.25 for index in range(len(test)))
    pixels = np.concatenate([value.ravel() for value in test.values])
    assert (pixels.dtype, pixels.min(), pixels.max()) == (np.uint8, 0, 255)


def test_the_model_loads_whole_and_is_to_be_finetuned(tmp_path):
    import torch
    from transformers import AutoModel

    starter.model(tmp_path)
    found = models.read(tmp_path, task="image-classification")
    assert (found.model_type, found.has_head) == ("resnet", False)
    assert list(found.encoder) == ["image.json"]
    model, about = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(about[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    out = model.eval()(torch.randn(2, 1, starter.SIZE, starter.SIZE)).last_hidden_state
    assert out.shape[2:] == (2, 2)
    assert out.isfinite().all()


def test_the_model_is_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        starter.model(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
