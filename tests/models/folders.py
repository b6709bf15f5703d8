"""Tiny pipelines with random weights, saved as diffusers saves them, and folders of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from .. import tiny

UNET = {**tiny.UNET, "in_channels": 3, "out_channels": 3}
TEXT_UNET = {**tiny.TEXT_UNET, "sample_size": 4, "in_channels": 2, "out_channels": 2}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "in_channels": 2,
    "out_channels": 4,  # noise, and variances as DiT learns them
    "num_layers": 1,
    "sample_size": 4,
    "patch_size": 2,
    "num_embeds_ada_norm": 3,
    "norm_num_groups": 1,
}
AUTOENCODER = {
    "block_out_channels": [4, 4],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 2,
    "norm_num_groups": 2,
    "sample_size": 8,
    "scaling_factor": 0.7,
    "shift_factor": 0.1,
}
TEXT = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
LATENT = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, "beta_schedule": "scaled_linear"}
MARKS = ("<|startoftext|>", "<|endoftext|>")


def seeded(seed, make, *args, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(*args, **kwargs)


def autoencoder(**changes):
    from diffusers import AutoencoderKL

    return seeded(3, AutoencoderKL, **{**AUTOENCODER, **changes}).eval()


def save_ddpm(folder: Path, unet=None, kind="DDPMPipeline", scheduler="DDPMScheduler", **settings) -> Path:
    import diffusers

    net = seeded(1, diffusers.UNet2DModel, **{**UNET, **(unet or {})})
    getattr(diffusers, kind)(net, getattr(diffusers, scheduler)(**settings)).save_pretrained(folder)
    return folder


def save_dit(folder: Path, **changes) -> Path:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    net = seeded(1, DiTTransformer2DModel, **{**DIT, **changes})
    # the pipeline's own decoding knows no shift
    DiTPipeline(net, autoencoder(shift_factor=None), DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder


def save_stable_diffusion(folder: Path, scheduler="DDIMScheduler", unet=None, settings=LATENT) -> Path:
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextConfig(**TEXT, max_position_embeddings=6, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    diffusers.StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=seeded(2, CLIPTextModel, text),
        tokenizer=tokenizer(folder.parent / "words"),
        unet=seeded(1, diffusers.UNet2DConditionModel, **{**TEXT_UNET, **(unet or {})}),
        scheduler=getattr(diffusers, scheduler)(**settings),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def tokenizer(folder: Path):
    """Return CLIP's tokenizer with a vocabulary of single letters, made offline."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqr"
    folder.mkdir(exist_ok=True)
    vocabulary = {token: i for i, token in enumerate([*MARKS, *letters, *(letter + "</w>" for letter in letters)])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=6)


def colours(n: int, seed: int = 0) -> torch.Tensor:
    """Return n smooth images [n, 3, 8, 8] of whole 8-bit values in [-1, 1]."""
    smooth = torch.cat([tiny.images(n, seed), tiny.images(n, seed + 50), tiny.images(n, seed + 90)], 1)
    return ((smooth + 1) * 127.5).round() / 127.5 - 1


def save_images(folder: Path, images: torch.Tensor, groups=None, captions=None) -> Path:
    """Write images as PNG files, into subfolders by group, with a metadata.jsonl of captions."""
    names = [f"{groups[i] + '/' if groups else ''}{i:02d}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        values = ((image + 1) * 127.5).round().byte().movedim(0, 2).squeeze(2).numpy()
        Image.fromarray(values).save(folder / name)
    if captions:
        rows = [{"file_name": name, "text": caption} for name, caption in zip(names, captions, strict=True)]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
