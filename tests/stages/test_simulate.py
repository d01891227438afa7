"""int8 simulated in training is what the int8 file computes, and weights learn to bear it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgedistill import plugins
from edgedistill.train import weights
from edgedistill.train.batches import Examples
from edgedistill.train.simulate import simulated

RANGES = [(127, False), (64, True)]


def ran(graph, feed):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    running = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    return running.run(None, {each.name: feed[each.name] for each in graph.graph.input})[0]


def dynamic(model, reduce_range):
    scheme = plugins.find("schemes", "dynamic_int8")
    return scheme.apply(model, None, scheme.Settings(reduce_range=reduce_range))


@pytest.mark.parametrize(("largest", "reduce_range"), RANGES)
def test_a_product_is_computed_as_the_file_does(largest, reduce_range):
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 5)
    tensors = [
        numpy_helper.from_array(layer.weight.detach().numpy().T.copy(), "weights"),
        numpy_helper.from_array(layer.bias.detach().numpy(), "bias"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["product"], name="product"),
        helper.make_node("Add", ["product", "bias"], ["y"], name="bias"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, size])
        for name, size in (("x", 24), ("y", 5))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = dynamic(model, reduce_range)
    batch = torch.randn(4, 3, 24) * torch.tensor([0.1, 1.0, 5.0, 0.0])[:, None, None] + 0.3
    theirs = np.concatenate([ran(made, {"x": row[None].numpy()}) for row in batch])
    net = torch.nn.Sequential(layer)
    plain = net(batch)
    with simulated(net, largest):
        ours = net(batch)
        with simulated(net, 3):
            assert torch.equal(net(batch), ours)
    np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=2e-5)
    assert np.abs(plain.detach().numpy() - theirs).max() > 1e-3
    assert torch.equal(net(batch), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16), simulated(net, largest):
        half = net(batch)  # exact integers: only the result is rounded
    np.testing.assert_allclose(half.detach().float().numpy(), theirs, rtol=2**-7, atol=0.02)


def test_a_convolution_is_computed_with_rounded_weights_and_inputs():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
    images = torch.rand(2, 3, 8, 8) * torch.tensor([1.0, 7.0])[:, None, None, None]
    scale = layer.weight.detach().abs().amax((1, 2, 3)) / 127
    none = torch.zeros(4, dtype=torch.int32)
    rounded = torch.fake_quantize_per_channel_affine(layer.weight, scale, none, 0, -127, 127)
    steps = images.amax((1, 2, 3)) / 255
    inputs = torch.fake_quantize_per_channel_affine(images, steps, none[:2], 0, 0, 255)
    expected = torch.nn.functional.conv2d(inputs, rounded, None, 2, 1)
    net = torch.nn.Sequential(layer)
    with simulated(net, 127):
        assert torch.allclose(net(images), expected, atol=1e-5)
    assert not torch.allclose(net(images), expected, atol=1e-3)


@pytest.mark.parametrize("model_type", ("bert", "distilbert"))
@pytest.mark.parametrize(("largest", "reduce_range"), RANGES)
def test_a_models_answers_are_nearer_to_its_file_than_in_float(
    model_type, largest, reduce_range, tiny, exported
):
    source, (folder, _) = tiny(model_type), exported(model_type)
    task = plugins.find("tasks", source.settings["task"])
    model = weights.load(source.model, task).eval()
    encoder = task.open_encoder(source.model, source.settings["encoder"])
    made, rows = dynamic(onnx.load(folder / "model.onnx"), reduce_range), Examples([source.rows])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    away = off = 0.0
    for index in range(20):
        feed = {n: np.asarray(v) for n, v in encoder.batch(rows.rows(np.array([index]))).items()}
        inputs = {name: torch.from_numpy(value) for name, value in feed.items()}
        theirs = ran(made, feed)
        with torch.no_grad():
            away += ((task.forward(model, inputs).logits.numpy() - theirs) ** 2).sum()
            with simulated(model, largest):
                off += ((task.forward(model, inputs).logits.numpy() - theirs) ** 2).sum()
    assert off < 0.8 * away
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_weights_learn_to_bear_it():
    """Of a product whose inputs have one large column, rounding is felt, and trained away."""
    torch.manual_seed(0)
    inputs = torch.randn(256, 16)
    inputs[:, 0] *= 300
    truth = (inputs[:, 1:] @ torch.randn(15, 4)).argmax(1)
    net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))

    def train(largest, steps):
        least = float("inf")  # as the loop keeps the best: what comes last is chance
        learner = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(steps):
            learner.zero_grad()
            with simulated(net, largest):
                loss = torch.nn.functional.cross_entropy(net(inputs), truth)
            least = min(least, float(loss.detach()))
            loss.backward()
            learner.step()
        return least

    def lost():
        with torch.no_grad(), simulated(net, 127):
            return float(torch.nn.functional.cross_entropy(net(inputs), truth))

    train(0, 400)
    before = lost()
    assert train(127, 100) < 0.9 * before
