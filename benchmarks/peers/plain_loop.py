"""A distillation loop as most people write it: transformers.Trainer with the teacher in its loss.

Dynamic padding, rows in random order, the teacher run at every step, float32, Trainer's defaults.
Started by benchmarks/speed.py; trains as many steps as each line of stdin says, and answers with
one line of JSON: {"seconds": ..., "steps": ...}.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import kl_div, log_softmax, softmax
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from edgedistill.data.arrays import Arrays


class Distiller(Trainer):
    """Trainer with the soft labels of a live teacher beside the labels."""

    def __init__(self, *more: Any, teacher: Any, temperature: float, alpha: float, **rest: Any):
        super().__init__(*more, **rest)
        self.teacher, self.temperature, self.alpha = teacher, temperature, alpha

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any):
        found = model(**inputs)
        with torch.no_grad():
            told = self.teacher(**{k: v for k, v in inputs.items() if k != "labels"}).logits
        t = self.temperature
        soft = kl_div(
            log_softmax(found.logits / t, dim=-1), softmax(told / t, dim=-1), reduction="batchmean"
        )
        loss = self.alpha * t * t * soft + (1 - self.alpha) * found.loss
        return (loss, found) if return_outputs else loss


class Commanded(TrainerCallback):
    """Trains only as many steps as it was told, then says how long they took, and waits."""

    def __init__(self) -> None:
        self.left, self.steps, self.begun = 0, 0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self.left == 0:
            self.left = self.steps = int(sys.stdin.readline() or 0)
            if not self.steps:
                os._exit(0)
            self.begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.left -= 1
        if self.left == 0:
            answer = {"seconds": time.perf_counter() - self.begun, "steps": self.steps}
            print(json.dumps(answer), file=sys.__stdout__, flush=True)


def main(told: dict[str, Any]) -> None:
    """Train on command; `told` names the folders and the settings."""
    torch.set_num_threads(told["threads"])
    rows = Arrays(Path(told["rows"]))
    names = [name for name in rows.names if name != "truth"]
    examples = [
        {**{name: rows.value(name, i).tolist() for name in names}, "labels": int(truth)}
        for i, truth in enumerate(rows.stacked("truth"))
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Distiller(
            AutoModelForSequenceClassification.from_pretrained(told["student"]),
            TrainingArguments(
                folder,
                per_device_train_batch_size=told["batch"],
                max_steps=1_000_000,
                learning_rate=told["rate"],
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=examples,
            data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(told["tokenizer"])),
            callbacks=[Commanded()],
            teacher=AutoModelForSequenceClassification.from_pretrained(told["teacher"]).eval(),
            temperature=told["temperature"],
            alpha=told["alpha"],
        )
        trainer.train()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
