"""The bundle's README: what it is, what ships, and code that needs only runtime and tokenizer.

The snippets stand in snippets/<kind>.md, one file a kind of encoder, with {{names}} that are
filled in here. Tests cut the Python and Node ones out of a written README and run them.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedistill.bundle.untrusted import printable

FOLDER = Path(__file__).with_name("snippets")
SHOWN_LABELS = 12
FILES = {
    "model.onnx": "the model",
    "model.fixed.onnx": "the same model with inputs of one fixed shape",
    "model.ort": "the same model in onnxruntime's own format, instead of model.onnx: opened with "
    "`model.ort.config` of the manifest it is mapped, which takes less memory and time",
    "required_operators.config": "what a reduced build of onnxruntime needs for model.ort",
    "tokenizer.json": "text to tokens",
    "image.json": "image to pixels",
    "labels.json": "the labels in output order",
    "golden.json": "inputs with the outputs that this model must give, to prove a port",
    "manifest.json": "all of this for a program, with sizes and hashes",
    "report.json": "what was measured, for a program",
    "report.md": "what was measured",
    "report.html": "what was measured, with a plot",
    "README.md": "this file",
    "LICENSE.txt": "the licence of the model it was made from",
}


def make(manifest: Mapping[str, Any], folder: Path) -> str:
    """Write the README of a bundle whose model, encoder and golden vectors lie in `folder`."""
    model, golden = manifest["model"], manifest["golden"]
    labels = [f"`{_quoted(label)}`" for label in manifest["labels"][:SHOWN_LABELS]]
    more = len(manifest["labels"]) - len(labels)
    names = sorted({path.name for path in folder.iterdir()} | {"README.md", "manifest.json"})
    ships = [f"- `{name}`: {FILES.get(name, 'a file')}" for name in manifest["ship"]]
    beside = [f"- `{n}`: {FILES.get(n, 'a file')}" for n in names if n not in manifest["ship"]]
    threshold = manifest["decide"]["threshold"]
    lines = [
        f"# {manifest['task']} for {_quoted(manifest['target']['name'])}",
        "",
        f"A model that answers with one of: {', '.join(labels)}"
        + (f" and {more} more (`labels.json`)." if more else "."),
        f"{model['bytes'] / 1e6:.2f} MB, {model['precision']}, for onnxruntime "
        f"{model['onnxruntime']} or newer (opset {model['opset']}, IR {model['ir']}). How well and "
        "how fast it answers, and against which baseline, stands in `report.html`.",
        "",
        "An app needs these files:",
        "",
        *ships,
        "",
        "Beside them lie:",
        "",
        *beside,
        "",
        "## Use it",
        "",
        "Run one example at a time"
        if model["batch"] == 1
        else f"Run {model['batch']} examples at a time",
    ]
    lines[-1] += " with the session options below: so the model was scored."
    first = model["inputs"][0]["shape"]
    if first[0] == 1 and len(first) == 2 and not isinstance(first[1], int):
        lines[-1] += " Never pad it: the model takes one row of any length and has no mask."
    if threshold is not None:
        lines.append(f"An answer whose probability is below {threshold} is best not trusted.")
    snippets = (FOLDER / f"{manifest['encode']['kind']}.md").read_text("utf-8")
    values = _values(manifest, folder)
    filled = re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], snippets)
    return "\n".join(lines) + "\n\n" + filled + _proof(manifest, golden)


def _proof(manifest: Mapping[str, Any], golden: Mapping[str, Any]) -> str:
    told = (
        f"`{golden['file']}` holds {golden['rows']} examples: the `input`, the `encoded` input "
        "that the encoder must make of it, and the `output` (before softmax) that the model must "
        f"give, within ±{golden['tolerance']:g}. Long arrays stand as base64 of little-endian "
        f"bytes. {_encoded(manifest)} `edgedistill verify .` holds a bundle against them."
    )
    return f"\n## Prove a port\n\n{textwrap.fill(told, 100, break_on_hyphens=False)}\n"


def _encoded(manifest: Mapping[str, Any]) -> str:
    """Say what lies between the golden `encoded` and what the model takes."""
    if manifest["encode"]["kind"] == "image":
        return (
            "`encoded` holds the pixels as uint8 (height, width, channels), before they are "
            "rescaled and normalised for the model."
        )
    inputs = {each["name"]: each["type"] for each in manifest["model"]["inputs"]}
    takes = ", ".join(f"`{name}` as {kind}" for name, kind in inputs.items())
    mask = "; the mask is 1 for each token" if "attention_mask" in inputs else ""
    return (
        "`encoded` is one row as the encoder makes it, in int32 and perhaps with more than the "
        f"model takes, which is {takes}, with the batch as first dimension{mask}."
    )


def _quoted(text: str) -> str:
    """Return a text that markdown shows as it is and that can't end a code span."""
    return printable(text, 60).replace("`", "'").replace("|", "\\|")


def _values(manifest: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Return what the snippets name, as source text."""
    model, encode, session = manifest["model"], manifest["encode"], manifest["session"]
    inputs = [each["name"] for each in model["inputs"]]
    integers = next((e["type"] for e in model["inputs"] if e["type"].startswith("int")), "int64")
    values = {
        "model": model["file"],
        "inputs": json.dumps(inputs),
        "inputs_first": json.dumps(inputs[0]),
        "input_list": ", ".join(json.dumps(name) for name in inputs),
        "output": json.dumps(manifest["decide"]["outputs"]),
        "threads": str(session.get("threads", 1)),
        "temperature": repr(float(manifest["decide"]["temperature"])),
        "integers": integers,
        "python_options": _python_options(session),
        "js_options": _js_options(session),
    }
    return values | (
        _text(encode, folder, integers) if encode["kind"] == "text" else _image(encode)
    )


def _python_options(session: Mapping[str, Any]) -> str:
    threads = session.get("threads", 1)
    lines = [f"options.intra_op_num_threads = {threads}"]
    if not session.get("arena", True):
        lines.append("options.enable_cpu_mem_arena = False")
    level = session.get("optimization", "all")
    if level != "all":
        name = "DISABLE_ALL" if level == "none" else f"ENABLE_{level.upper()}"
        lines.append(
            "options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_" + name
        )
    lines += [
        f"options.add_session_config_entry({json.dumps(name)}, {json.dumps(value)})"
        for name, value in _entries(session).items()
    ]
    return "\n".join(lines)


def _entries(session: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that are config entries in every binding; defaults are left out."""
    entries = {}
    if session.get("threads", 1) > 1 and not session.get("spinning", False):
        entries["session.intra_op.allow_spinning"] = "0"
    if not session.get("prepacking", True):
        entries["session.disable_prepacking"] = "1"
    return entries | dict(session.get("config", {}))


def _js_options(session: Mapping[str, Any]) -> str:
    level = {"none": "disabled"}.get(
        session.get("optimization", "all"), session.get("optimization")
    )
    told: dict[str, Any] = {"intraOpNumThreads": session.get("threads", 1)}
    if not session.get("arena", True):
        told["enableCpuMemArena"] = False
    if level != "all":
        told["graphOptimizationLevel"] = "disabled" if level == "none" else level
    tree: dict[str, Any] = {}
    for name, value in _entries(session).items():
        *path, last = name.split(".")
        at = tree
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    if tree:
        told["extra"] = tree
    return json.dumps(told)


_CUT_ONE = {
    "right": """const HEAD = {head}, TAIL = {tail}; // special tokens around the text
function keep(ids) { // which tokens stay when the text is too long
  const all = ids.map((_, at) => at), most = manifest.encode.max_length;
  return ids.length <= most ? all : [...all.slice(0, most - TAIL), ...all.slice(ids.length - TAIL)];
}""",
    "left": """const HEAD = {head}, TAIL = {tail}; // special tokens around the text
function keep(ids) { // which tokens stay when the text is too long
  const all = ids.map((_, at) => at), most = manifest.encode.max_length;
  return ids.length <= most ? all : [...all.slice(0, HEAD), ...all.slice(ids.length - most + HEAD)];
}""",
}
_CUT_TWO = """const SPECIAL = {special}; // special tokens before, between and after the two texts
function keep(ids, text, other) { // which tokens stay when the texts are too long: longest first
  const count = (one) => tokenizer.encode(one, { add_special_tokens: false }).ids.length;
  const lengths = [count(text), count(other)], most = manifest.encode.max_length - {sum};
  let [short, long] = [Math.min(...lengths), Math.max(...lengths)];
  if (short + long > most) {
    long = short > most ? short : Math.max(short, most - short);
    if (short + long > most) [short, long] = [Math.floor(most / 2), Math.ceil(most / 2)];
  }
  const kept = lengths[0] > lengths[1] ? [long, short] : [short, long];
  const start = [SPECIAL[0], SPECIAL[0] + lengths[0] + SPECIAL[1]];
  return ids.map((_, at) => at).filter((at) => [0, 1].every((one) => {
    const place = at - start[one]; // in this text
    return place < 0 || place >= lengths[one] || (place >= {from} && place < {to});
  }));
}"""


_SWIFT_ONE = """let most = {most} - {special}  // tokens of the text, without the special ones
func encode(_ text: String) -> (ids: [Int], types: [Int]) {
    let one = Array(tokenizer.encode(text: text, addSpecialTokens: false).{side}(most))
    return (Array({ids}.joined()), Array({types}.joined()))
}"""
_SWIFT_TWO = """let most = {most} - {special}  // tokens of both texts, without the special ones
func encode(_ text: String, _ other: String) -> (ids: [Int], types: [Int]) {
    let both = [text, other].map { tokenizer.encode(text: $0, addSpecialTokens: false) }
    var (short, long) = (min(both[0].count, both[1].count), max(both[0].count, both[1].count))
    if short + long > most {  // the longer one is cut first
        long = short > most ? short : max(short, most - short)
        if short + long > most { (short, long) = (most / 2, most - most / 2) }
    }
    let kept = both[0].count > both[1].count ? (long, short) : (short, long)
    let (one, two) = (Array(both[0].{side}(kept.0)), Array(both[1].{side}(kept.1)))
    return (Array({ids}.joined()), Array({types}.joined()))
}"""
_SWIFT_KINDS = {"WordPiece": "BertTokenizer", "Unigram": "T5Tokenizer"}  # else BPE


def _swift_cut(told: Any, max_length: int, side: str) -> str:
    """Write in Swift how texts are cut and what stands around them; `told`: an encoded example."""
    rows = zip(told.sequence_ids, told.ids, told.type_ids, strict=True)
    ids, types, special = [], [], 0
    for text, group in itertools.groupby(rows, key=lambda row: row[0]):
        _, numbers, kinds = zip(*group, strict=True)
        name = None if text is None else ("one", "two")[text]
        ids.append(name or json.dumps(numbers))
        types.append(f"{name}.map {{ _ in {kinds[0]} }}" if name else json.dumps(kinds))
        special += 0 if name else len(numbers)
    filled = {
        "ids": f"[{', '.join(ids)}]",
        "types": f"[{', '.join(types)}]",
        "side": "suffix" if side == "left" else "prefix",
        "most": str(max_length),
        "special": str(special),
    }
    cut = _SWIFT_TWO if "two" in ids else _SWIFT_ONE
    return re.sub(r"\{(\w+)\}", lambda found: filled[found[1]], cut)


def _swift_kind(model: Mapping[str, Any]) -> str:
    """Write the config that swift-transformers wants beside tokenizer.json, as a literal."""
    told: dict[str, Any] = {
        "tokenizer_class": _SWIFT_KINDS.get(model["type"], "PreTrainedTokenizer")
    }
    if model["type"] == "WordPiece":
        told["do_lower_case"] = False  # the normalizer of tokenizer.json does, where it is wanted
    elif isinstance(model.get("unk_token"), str):
        told["unk_token"] = model["unk_token"]
    return "[" + json.dumps(told, ensure_ascii=False)[1:-1] + "]"


def _text(encode: Mapping[str, Any], folder: Path, integers: str) -> dict[str, str]:
    from tokenizers import Tokenizer

    pair, side = encode.get("pair", False), encode.get("cut_side", "right")
    tokenizer = Tokenizer.from_file(str(folder / encode["file"]))
    told = tokenizer.encode("a", "a") if pair else tokenizer.encode("a")
    special = [len(run) for run in re.split("0+", "".join(map(str, told.special_tokens_mask)))]
    wide = integers == "int64"
    if pair:
        bounds = {"from": "0", "to": "kept[one]"}
        if side == "left":
            bounds = {"from": "lengths[one] - kept[one]", "to": "lengths[one]"}
        filled = {"special": json.dumps(special), "sum": str(sum(special)), **bounds}
        cut = _CUT_TWO
    else:
        filled, cut = {"head": str(special[0]), "tail": str(special[-1])}, _CUT_ONE[side]
    for name, value in filled.items():
        cut = cut.replace("{" + name + "}", value)
    texts = ["text", "other"] if pair else ["text"]
    spoken = ["What is the weather like?", "It will rain all day."]
    options = "{ text_pair: other, return_token_type_ids: true }"
    return {
        "texts": ", ".join(texts),
        "js_texts": f"text, {options if pair else '{ return_token_type_ids: true }'}",
        "kotlin_texts": ", ".join(f"{one}: String" for one in texts),
        "swift_texts": ", ".join(f"_ {one}: String" for one in texts),
        "swift_given": ", ".join(texts),
        "swift_cut": _swift_cut(told, encode["max_length"], side),
        "swift_kind": _swift_kind(json.loads(tokenizer.to_str())["model"]),
        "example": json.dumps(spoken[: len(texts)]),
        "js_cut": cut,
        "js_array": "BigInt64Array.from(columns[name], BigInt)"
        if wide
        else "Int32Array.from(columns[name])",
        "kotlin_cast": "" if wide else ".map { it.toInt() }.toIntArray()",
        "swift_integer": "Int64" if wide else "Int32",
        "swift_type": "int64" if wide else "int32",
        "max_length": str(encode["max_length"]),
    }


_RESIZE = {
    "none": "# its size is right already",
    "exact": 'size = (how["resize"]["width"], how["resize"]["height"])\n'
    "    image = image.resize(size, Image.Resampling.{filter})",
    "edge": 'edge, short = how["resize"]["shortest_edge"], min(image.size)\n'
    "    other = int(edge * max(image.size) / short)\n"
    "    size = (edge, other) if image.width <= image.height else (other, edge)\n"
    "    image = image.resize(size, Image.Resampling.{filter})",
}


def _image(encode: Mapping[str, Any]) -> dict[str, str]:
    (height, width), gray, resize = encode["size"], encode["channels"] == 1, encode.get("resize")
    form = "none" if resize is None else "edge" if "shortest_edge" in resize else "exact"
    listed = {name: ", ".join(repr(float(one)) for one in encode[name]) for name in ("mean", "std")}
    return {
        "mode": '"L"' if gray else '"RGB"',
        "python_resize": _RESIZE[form].replace("{filter}", encode["resample"].upper()),
        "height": str(height),
        "width": str(width),
        "channels": str(encode["channels"]),
        "size_words": f"{width} wide and {height} high",
        "channel_words": "one gray value a pixel" if gray else "red, green and blue",
        "sharp_channels": "grayscale()" if gray else "removeAlpha()",
        "rescale": repr(float(encode["rescale"])),
        **listed,
        "mean_f": re.sub(r"(?<=\d)(,|$)", r"f\1", listed["mean"]),
        "std_f": re.sub(r"(?<=\d)(,|$)", r"f\1", listed["std"]),
    }
