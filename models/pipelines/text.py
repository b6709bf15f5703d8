"""Text as Stable Diffusion's pipelines encode it: a tokenizer and a CLIP text model from local folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ..networks import local

SIZE = 32  # captions a pass


class TextEncoder:
    """Captions to embeddings [B, L, D] float32, cut or padded to the length the encoder knows.

    projected: instead of one for each token, the one of the whole caption, projected and of length 1, so that L is 1.
    """

    def __init__(self, tokenizer: Path, encoder: Path, projected: bool = False) -> None:
        try:
            from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise UserError(f"{encoder} needs transformers: pip install 'tdabench[encoders]' ({error})") from error
        disable_progress_bar()
        self.tokenizer: Any = local(CLIPTokenizer, tokenizer)
        kind, self.projected = CLIPTextModelWithProjection if projected else CLIPTextModel, projected
        self.encoder: Any = local(kind, encoder, use_safetensors=True).float().eval().requires_grad_(False)
        self.length = min(self.tokenizer.model_max_length, self.encoder.config.max_position_embeddings)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Tensor:
        """Return the last hidden states, or the captions' own vectors; equal captions have equal ones."""
        distinct = list(dict.fromkeys(captions))
        parts = [self._encode(distinct[i : i + SIZE]) for i in range(0, len(distinct), SIZE)]
        place = {caption: i for i, caption in enumerate(distinct)}
        return torch.cat(parts)[torch.tensor([place[caption] for caption in captions])]

    def _encode(self, captions: list[str]) -> Tensor:
        tokens = self.tokenizer(
            captions, padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        masked = getattr(self.encoder.config, "use_attention_mask", None)
        found = self.encoder(tokens.input_ids, attention_mask=tokens.attention_mask if masked else None)[0]
        return torch.nn.functional.normalize(found, dim=-1)[:, None] if self.projected else found
