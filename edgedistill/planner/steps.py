"""The steps of one plan, each made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from edgedistill import plugins
from edgedistill.errors import JobError, ModelError, nearest
from edgedistill.job import Job
from edgedistill.planner import reading
from edgedistill.planner.facts import Facts, Model
from edgedistill.planner.wishes import Wishes
from edgedistill.records import Shape, Source, Step
from edgedistill.settings import coerce, names, plain
from edgedistill.target import Target
from edgedistill.train import pace


class Tutor(NamedTuple):
    """A teacher assistant: a student of the teacher whose answers train others."""

    model: Step
    reader: Model  # how it reads rows
    shape: Shape


class Steps:
    """Makes the steps of one plan; encodings and labels are shared."""

    def __init__(self, job: Job, target: Target, facts: Facts) -> None:
        self.job, self.target, self.facts = job, target, facts
        self.wishes = Wishes(job, facts)
        self.processes = facts.host.processes
        self.allow_code = job.run.allow_code
        family = facts.teacher.family
        self.family: Any = plugins.find("families", family) if family else None  # of an .onnx none
        self.task: Any = plugins.find("tasks", facts.task, allow_code=self.allow_code)
        self._shared: dict[tuple[Any, ...], Step] = {}
        self.wishes.check()
        self.teacher = self._teacher()
        self.weights()

    def step(
        self,
        stage: str,
        inputs: Mapping[str, Step | Source],
        *,
        told: Mapping[str, Any] | None = None,
        **decided: Any,
    ) -> Step:
        """Make a step: defaults, then what is decided here, then what is wished (or `told`).

        Raises `JobError` for a value that the stage, its task or the rule on code does not take.
        """
        module = plugins.find("stages", stage)
        host, run = self.facts.host, self.job.run
        known: dict[str, Any] = {
            "task": self.facts.task,
            "labels": self.facts.labels,
            "metric": self.facts.metric,
            "seed": run.seed,
            "threads": host.threads,
            "dtype": host.dtype,
            "device": host.device,
            "processes": host.processes,
            "opset": host.opset,
            "ir": host.ir,
            "integers": self.target.runtime.integers,
            "single": self.target.runtime.batch == 1 and not decided.get("fixed"),
        }
        values = {name: value for name, value in known.items() if name in names(module.Settings)}
        values |= decided
        wished = self.wishes.of(stage) if told is None else told
        elsewhere = {**values, **wished}.get("device", "cpu") != "cpu"
        if elsewhere and "dtype" in values and "dtype" not in decided:
            values["dtype"] = host.gpu_dtype
        values |= wished
        settings = plain(coerce(module.Settings, values, stage))
        undecided = [name for name, value in settings.items() if value == "auto"]
        if undecided:
            raise JobError(f"{stage}.{undecided[0]}: 'auto' can't be decided here; name a value")
        if settings.get("metric", self.facts.metric) not in self.task.METRICS:
            hint = nearest(settings["metric"], self.task.METRICS)
            raise JobError(f"{stage}.metric: unknown metric '{settings['metric']}': {hint}")
        for kind, name in module.plugins(settings):
            plugins.find(kind, name, allow_code=self.allow_code)
        return Step(stage, settings, dict(inputs))

    def threads_of_two(self) -> int:
        """Return the threads of each of two trainings at once: a student's and its control's.

        Two on half the threads take less time than one after the other on all of them: a step is
        short, and much of it waits for memory.
        """
        host, wish = self.facts.host, self.wishes.settings("distill")
        alone = host.processes > 1 or wish.device != "cpu"
        return host.threads if alone else max(1, host.threads // 2)

    # ------------------------------------------------------------ rows and the teacher

    def encode(self, split: str, model: Model, *, made: Sequence[str] = ()) -> Step:
        key = ("encode", split, identity(model.encoder_source), str(model.encoder), tuple(made))
        if key not in self._shared:
            inputs = {"rows.0": self.facts.splits[split], "encoder.0": model.encoder_source}
            if {*made} & {*self.task.READS_MODEL}:  # as it came: its head tells nothing of words
                inputs["model.0"] = self.facts.teacher.source
            self._shared[key] = self.step(
                "encode",
                inputs,
                encoder=model.encoder,
                made=tuple(made),
                seed=self.job.run.seed if made else 0,  # it decides the draws of made rows alone
            )
        return self._shared[key]

    def fold(self, model: Model, vocabulary: int) -> Step:
        """Make the encoder of a model with fewer pieces, by what the training rows use."""
        rows = enumerate(
            name for name in ("train", "unlabelled", "own_train") if name in self.facts.splits
        )
        key = ("fold", identity(model.encoder_source), str(model.encoder), vocabulary)
        if key not in self._shared:
            self._shared[key] = self.step(
                "fold",
                {
                    "encoder.0": model.encoder_source,
                    **{f"train.{index}": self.encode(split, model) for index, split in rows},
                },
                vocabulary=vocabulary,
                encoder=model.encoder,
            )
        return self._shared[key]

    def label(self, rows: Step, by: Tutor | None = None) -> Step:
        """Make the answers for encoded rows: the teachers', or those of an assistant."""
        key = ("label", id(rows), id(by and by.model))
        if key not in self._shared and by:
            told = {n: value for n, value in self.wishes.of("label").items() if n != "weights"}
            inputs = {"teacher.0": by.model, "rows.0": rows}
            self._shared[key] = self.step("label", inputs, told=told, encoder=by.reader.encoder)
        elif key not in self._shared:
            further = self.facts.further
            several: dict[str, Step | Source] = {"teacher.0": self.teacher, "rows.0": rows}
            for index, model in enumerate(further, start=1):
                several[f"teacher.{index}"] = model.source
                several[f"rows.{index}"] = self._as_read_by(model, rows)
            self._shared[key] = self.step(
                "label",
                several,
                encoder=self.facts.teacher.encoder,
                further=tuple(model.encoder for model in further),
            )
        return self._shared[key]

    def weights(self) -> tuple[float, ...]:
        """Return the weight of each teacher's logits. Raises `JobError` where they don't match."""
        count = 1 + len(self.facts.further)
        weights = self.wishes.settings("label").weights or (1.0,) * count
        if len(weights) != count or not any(weights):
            several = f"{count} teacher" + ("s" if count > 1 else "")
            wrong = f"{len(weights)} weights for {several}" if any(weights) else "none is above 0"
            raise JobError(
                f"label.weights: {wrong}: "
                "the first is that of model.path, then those of model.teachers"
            )
        return weights

    def _as_read_by(self, model: Model, rows: Step) -> Step:
        """Return the same rows, in the same order, in the encoding of another teacher."""
        return self.encode(self.facts.split_of(rows), model, made=rows.settings["made"])

    def _teacher(self) -> Step | Source:
        model, wish = self.facts.teacher, self.job.model.finetune
        if wish == "never" and not model.has_head:
            raise ModelError(
                "the model has no head for this task, and model.finetune is 'never': "
                "leave it 'auto', and it gets one from the training rows"
            )
        if model.has_head and wish != "always":
            return model.source
        batch = self.wishes.settings("finetune").batch
        usual = {"whole": pace.finetuning(model.shape.get("hidden", 768))}
        rows = reading.read(self, answered=False)
        train = {f"train.{n}": self.encode(name, model) for n, (name, _) in enumerate(rows.parts)}
        return self.step(
            "finetune",
            {"model.0": model.source, **train, **reading.validation(self, model)},
            encoder=model.encoder,
            rate=getattr(plugins.find("families", model.family), "RATE", usual)["whole"],
            repeats=rows.repeats,
            steps=self.wishes.steps("finetune", rows.rows, batch * self.processes),
        )

    # ------------------------------------------------------------ graphs

    def export(self, model: Step | Source, of: Model, *, fixed: int = 0) -> Step:
        if of.given is not None:
            return self.adopt(model, of, fixed=fixed)
        return self.step("export", {"model.0": model}, encoder=of.encoder, fixed=fixed)

    def adopt(self, graph: Step | Source, of: Model, *, fixed: int = 0) -> Step:
        """Bring an .onnx of the user's to the form that an export has."""
        assert of.given is not None
        return self.step(
            "adopt",
            {"graph.0": graph},
            encoder=of.encoder,
            ports=dict(of.given.inputs),
            output=of.given.output,
            channels_last=of.given.channels_last,
            batch=of.given.batch,
            fixed=fixed,
        )

    def fixed(self, graph: Step, of: Model) -> Step | None:
        """Return the same graph for one row of one length, where the target asks for it."""
        length = self.target.runtime.fixed
        if not length:
            return None
        longest = of.encoder.get("max_length", 0)
        if longest > length:
            raise JobError(
                f"the target '{self.target.name}' fixes graphs to {length} tokens, and texts are "
                f"read up to {longest}: --set task.max_length={length}"
            )
        if graph.stage == "quantize":
            exported = graph.inputs["graph.0"]
            assert isinstance(exported, Step)
            (model,) = exported.inputs.values()
            single = self.export(model, of, fixed=length)
            return self.quantize(single, graph.settings["scheme"], of)
        (model,) = graph.inputs.values()
        return self.export(model, of, fixed=length)

    def quantize(self, graph: Step, scheme: str, of: Model, *, trained: bool = True) -> Step:
        """Make the step of one scheme; of an untrained graph no accuracy can be recovered."""
        told = self.wishes.of("quantize")
        plugin = plugins.find("schemes", scheme, allow_code=self.allow_code)
        told.pop("scheme_settings", None)
        wished = self.scheme_settings()
        known = names(plugin.Settings)  # what another scheme alone has is not this one's
        values = {
            **plugin.for_processors(self.target.processors),
            **{name: value for name, value in wished.items() if name in known},
        }
        settings = coerce(plugin.Settings, values, f"quantize.scheme_settings ({scheme})")
        _decided(settings, "quantize.scheme_settings")
        wrong = [one for one in self.target.processors if one not in plugin.exact_on(settings)]
        if wrong:
            raise JobError(
                f"quantize.scheme_settings: so set, {scheme} is not exact on '{wrong[0]}', which "
                f"'{self.target.name}' names"
            )
        inputs: dict[str, Step | Source] = {"graph.0": graph, "train.0": self.encode("train", of)}
        if trained and self.wishes.settings("quantize").recover:
            inputs["validation.0"] = self.encode("validation", of)
        told = told if trained else {**told, "recover": 0}
        return self.step(
            "quantize",
            inputs,
            told=told,
            recover_points=self._int8_may_cost(),
            size_mb=self.target.limits.get("size_mb", 0.0),
            trained=trained,
            scheme=scheme,
            scheme_settings=plain(settings),
            encoder=of.encoder,
            session=session(self.target, self._precise(scheme, settings)),
            batch=self.target.runtime.batch,
            instructions=self.facts.host.instructions,
        )

    def scheme_settings(self) -> Mapping[str, Any]:
        """Return the settings that the job has for the schemes that know them."""
        wished = self.wishes.of("quantize").get("scheme_settings") or {}
        if not isinstance(wished, Mapping):
            raise JobError(f"quantize.scheme_settings: expected settings by name, got {wished!r}")
        return wished

    def _int8_may_cost(self) -> float:
        """Return the points above which accuracy is recovered: at most half the allowed drop."""
        half = self.target.limits.get("max_drop_points", 1.0) / 2
        asked = self.job.quantize.max_drop
        return half if asked is None else min(half, asked)

    def evaluate(self, graph: Step, split: str, of: Model, *, rows: int = 0) -> Step:
        config = {}
        if graph.stage == "quantize":
            scheme = graph.settings["scheme"]
            plugin = plugins.find("schemes", scheme, allow_code=self.allow_code)
            told = coerce(plugin.Settings, graph.settings["scheme_settings"], "quantize")
            config = self._precise(scheme, told)
        return self.step(
            "evaluate",
            {"graph.0": graph, "rows.0": self.encode(split, of)},
            session=session(self.target, config),
            batch=self.target.runtime.batch,
            encoder=of.encoder,
            instructions=self.facts.host.instructions,
            rows=rows,
            seed=self.job.run.seed if rows else 0,  # it decides which rows are drawn
        )

    def _precise(self, scheme: str, settings: Any) -> dict[str, str]:
        """Return what a quantized graph needs to be right on this host, where it saturates."""
        plugin = plugins.find("schemes", scheme, allow_code=self.allow_code)
        exact = plugin.exact_on(settings)
        here = self.facts.host.instructions
        return {} if here in exact or not exact else {"session.x64quantprecision": "1"}


def _decided(settings: Any, place: str) -> None:
    """Raise `JobError` where a setting is left to be decided that nothing decides later."""
    for field in fields(settings):
        if getattr(settings, field.name) == "auto":
            known = ", ".join(map(str, field.metadata.get("choices") or ()))
            where = f"{place}.{field.name}"
            raise JobError(f"{where}: 'auto' is not one of its values: known: {known}")


def identity(thing: Step | Source) -> str | int:
    """Return what tells steps and sources of one plan apart."""
    return thing.hash if isinstance(thing, Source) else id(thing)


def session(target: Target, config: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the session options that ship for a target."""
    return {
        "threads": target.runtime.threads,
        "spinning": target.runtime.spinning,
        "arena": True,
        "prepacking": True,
        "optimization": "all",
        "config": dict(config or {}),
    }
