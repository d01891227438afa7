"""Keep large tables in halves, so that loading a file needs less memory.

While onnxruntime loads a file of its own it holds all of it, and then each tensor once more while
it is taken over: the peak is the file and its largest tensor. In a small encoder that tensor is
the embedding table, most of the file. Cut by columns it is two tables of half the width, looked up
by the same ids and put side by side again: the same numbers for two nodes more. A 2-layer, 384-wide
student with a table in int8, 15.9 MB: peak 23.8 MB instead of 28.3, p90 within noise. The smallest
weights come first, so that what is given back serves the next: of the same student with a table in
int4, 10.0 MB, the peak is 16 MB instead of 17 (means of five loads, which differ by 1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgedistill.graph.simplify import drop_unread
from edgedistill.graph.weights import Additions, attributes, captured

LEAST = 2_000_000  # bytes; a smaller table is no peak
SHARE = 0.25  # of all weights, at least


def halve(model: Any) -> Any:
    """Cut tables that only Gather reads, and that are much of the file, in place; returns it."""
    from onnx import helper, numpy_helper

    graph = model.graph
    sizes = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    least = max(LEAST, SHARE * sum(sizes.values()))
    tables = {
        tensor.name: tensor
        for tensor in graph.initializer
        if sizes[tensor.name] >= least and len(tensor.dims) == 2 and tensor.dims[1] % 2 == 0
    }
    for node in graph.node:
        looked_up = node.op_type == "Gather" and attributes(node).get("axis", 0) == 0
        for place, name in enumerate((*node.input, *captured(node))):
            if name in tables and not (looked_up and place == 0):
                del tables[name]
    for value in graph.output:
        tables.pop(value.name, None)
    if not tables:
        return model
    additions, nodes = Additions(graph), []
    for name, tensor in tables.items():
        for half, values in enumerate(np.split(numpy_helper.to_array(tensor), 2, axis=1)):
            additions.add(f"{name}.half_{half}", values)
    for node in graph.node:
        if node.input and node.input[0] in tables:
            parts = [f"{node.output[0]}.half_{half}" for half in range(2)]
            for half, part in enumerate(parts):
                reads = [f"{node.input[0]}.half_{half}", node.input[1]]
                nodes.append(helper.make_node("Gather", reads, [part], name=f"{part}.Gather"))
            node = helper.make_node(
                "Concat", parts, [node.output[0]], name=f"{node.output[0]}.Concat", axis=-1
            )
        nodes.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)
    _smallest_first(graph)
    return model


def _smallest_first(graph: Any) -> None:
    """Order the weights by their bytes, in place."""
    ordered = sorted(graph.initializer, key=lambda tensor: len(tensor.raw_data))
    ordered = [type(tensor).FromString(tensor.SerializeToString()) for tensor in ordered]
    del graph.initializer[:]
    graph.initializer.extend(ordered)
