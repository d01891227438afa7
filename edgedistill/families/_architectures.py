"""Architectures of our own, which transformers does not have: registered, so that it loads them.

`from_pretrained` of a folder whose config.json names one finds its class here, and no code is ever
read from a model's folder.
"""

from __future__ import annotations

from functools import cache
from typing import Any

STATIC = "static-embeddings"  # the model type in config.json


@cache
def register() -> dict[str, Any]:
    """Make our classes known to transformers' Auto classes, once; return them by model type."""
    import torch
    from torch import nn
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForSequenceClassification,
        PretrainedConfig,
        PreTrainedModel,
    )
    from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

    class StaticConfig(PretrainedConfig):
        """Sizes of a table of pieces and of the layer above it."""

        model_type = STATIC

        def __init__(
            self,
            vocab_size: int = 30522,
            hidden_size: int = 256,
            intermediate_size: int = 512,
            classifier_dropout: float = 0.1,
            max_position_embeddings: int = 512,
            type_vocab_size: int = 0,
            pad_token_id: int | None = 0,
            initializer_range: float = 0.02,
            **more: Any,
        ) -> None:
            self.vocab_size = vocab_size
            self.hidden_size = hidden_size
            self.intermediate_size = intermediate_size
            self.classifier_dropout = classifier_dropout
            self.max_position_embeddings = max_position_embeddings  # a limit on texts, no table
            self.type_vocab_size = type_vocab_size  # what the encoder makes; the model reads none
            self.initializer_range = initializer_range
            super().__init__(**more)
            self.pad_token_id = pad_token_id

    class Static(PreTrainedModel):
        config: Any
        config_class = StaticConfig
        base_model_prefix = "static"

        def _init_weights(self, module: Any) -> None:
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    class StaticModel(Static):
        """The mean of the pieces' vectors, padding left out."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
            self.post_init()

        def get_input_embeddings(self) -> Any:
            return self.embeddings

        def set_input_embeddings(self, value: Any) -> None:
            self.embeddings = value

        def forward(self, input_ids: Any, attention_mask: Any = None, **rest: Any) -> Any:
            vectors = self.embeddings(input_ids)
            if attention_mask is None:
                return BaseModelOutputWithPooling(
                    last_hidden_state=vectors, pooler_output=vectors.mean(1)
                )
            mask = attention_mask.to(vectors.dtype).unsqueeze(-1)
            pooled = (vectors * mask).sum(1) / mask.sum(1)
            return BaseModelOutputWithPooling(last_hidden_state=vectors, pooler_output=pooled)

    class StaticForSequenceClassification(Static):
        """The pooled pieces, one layer, and the labels."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.num_labels = config.num_labels
            self.static = StaticModel(config)
            self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
            self.dropout = nn.Dropout(config.classifier_dropout)
            self.classifier = nn.Linear(config.intermediate_size, config.num_labels)
            self.post_init()

        def forward(self, input_ids: Any, attention_mask: Any = None, **rest: Any) -> Any:
            pooled = self.static(input_ids, attention_mask=attention_mask).pooler_output
            inner = torch.relu(self.dense(self.dropout(pooled)))
            return SequenceClassifierOutput(logits=self.classifier(self.dropout(inner)))

    AutoConfig.register(STATIC, StaticConfig, exist_ok=True)
    AutoModel.register(StaticConfig, StaticModel, exist_ok=True)
    AutoModelForSequenceClassification.register(
        StaticConfig, StaticForSequenceClassification, exist_ok=True
    )
    return {STATIC: StaticForSequenceClassification}
