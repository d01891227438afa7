"""Simplifying: shapes and masks that need no computing, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.errors import ExportError
from edgedistill.graph import export, session, simplify

torch = pytest.importorskip("torch")


class Out:
    def __init__(self, logits):
        self.logits = logits


class Heads(torch.nn.Module):
    """Split into heads, weigh by a mask that may have two or four dimensions, put together."""

    def __init__(self, takes_four: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = torch.nn.Embedding(50, 8)
        self.head = torch.nn.Linear(8, 3)
        self.takes_four = takes_four

    def forward(self, ids, mask):
        if mask.dim() == 2:
            mask = torch.where(mask[:, None, None, :] > 0, 0.0, -3.4e38)
        elif not self.takes_four:
            raise ValueError("too many values to unpack")
        h = self.table(ids)
        h = h.view(h.shape[0], h.shape[1], 2, 4).transpose(1, 2)
        weights = torch.softmax(h @ h.transpose(2, 3) + mask, dim=-1)
        mixed = (weights @ h).transpose(1, 2).reshape(ids.shape[0], ids.shape[1], 8)
        return Out(self.head(mixed[:, 0]))


def forward(model, batch):
    return model(batch["input_ids"], batch["attention_mask"])


def feed(rows, length, seed=0):
    draws = np.random.default_rng(seed)
    mask = np.ones((rows, length), np.int64)
    mask[-1, length // 2 + 1 :] = 0
    return {"input_ids": draws.integers(0, 50, (rows, length)), "attention_mask": mask}


FEEDS = [feed(2, 6), feed(1, 4), feed(3, 9), feed(5, 6)]


@pytest.mark.parametrize("takes_four", (True, False))
def test_an_export_computes_no_shape_and_answers_at_others(takes_four):
    model = Heads(takes_four).eval()
    made = export.export(model, forward, FEEDS)
    kinds = [node.op_type for node in made.graph.node]
    assert "Concat" not in kinds and "Shape" not in kinds
    assert ("Where" in kinds) != takes_four, "the mask is spread only where it has to be"
    running = session.start(made.SerializeToString())
    for shape in ((7, 13), (1, 1), (4, 2)):
        other = feed(*shape, seed=9)
        right = export.torch_logits(model, forward)(other)
        np.testing.assert_allclose(session.logits(running, other), right, atol=1e-5)


def test_a_model_that_reads_the_mask_otherwise_keeps_its_own():
    class Counts(torch.nn.Module):
        def forward(self, ids, mask):
            return Out(torch.stack([mask.float().sum(dim=-1).flatten()] * 2, dim=1))

    assert simplify.with_additive_mask(Counts(), forward, FEEDS) is forward


def test_examples_of_one_length_are_refused():
    with pytest.raises(ExportError, match="one length"):
        export.export(Heads(), forward, [feed(2, 6), feed(1, 6), feed(3, 6)])


def test_an_example_of_one_row_is_refused():
    with pytest.raises(ExportError, match="two rows"):
        export.export(Heads(), forward, [feed(1, 6), feed(2, 4)])


def test_dropout_does_not_come_back():
    class Dropped(Heads):
        def forward(self, ids, mask):
            h = torch.nn.functional.dropout(self.table(ids).mean(dim=1), 0.5, self.training)
            return Out(self.head(h) + 0 * mask.sum())

    made = export.export(Dropped().train(), forward, FEEDS)
    assert "Dropout" not in {node.op_type for node in made.graph.node}


def test_what_the_exporter_raises_is_ours():
    def broken(model, batch):
        raise RuntimeError("no such operator\nand a long story")

    class NoMask(torch.nn.Module):
        pass

    only_ids = [{"input_ids": each["input_ids"]} for each in FEEDS]
    with pytest.raises(ExportError, match=r"^NoMask can't be exported: RuntimeError: no such op"):
        export.export(NoMask(), broken, only_ids)


def test_a_reshape_of_two_unknowns_stays_computed():
    """(b, l, 4) to (l, b, 4) has no constant target."""
    shape = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "l", 4])]
    tensors = [numpy_helper.from_array(np.array([1, 0, 2]), "order")]
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "order"], ["t"]),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    made = helper.make_model(
        helper.make_graph(nodes, "g", shape, out, tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    feeds = [{"x": np.ones(size, np.float32)} for size in ((2, 3, 4), (5, 1, 4), (4, 6, 4))]
    simplify.fold_shapes(made, feeds)
    assert [node.op_type for node in made.graph.node] == ["Shape", "Gather", "Reshape"]
