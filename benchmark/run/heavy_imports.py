"""What the fork server imports once, so that cells start in milliseconds; nothing here may start threads or CUDA."""

import warnings

import diffusers.models.unets.unet_2d
import diffusers.schedulers.scheduling_ddim
import diffusers.schedulers.scheduling_ddpm
import sklearn.datasets
import torch
import trak

from ..sandbox.lifetime import adopt_orphans
from . import code, worker

__all__ = ["code", "diffusers", "sklearn", "torch", "trak", "worker"]

adopt_orphans()
code.engine_hashes()  # what every hash of code looks up is then there in all processes that are forked from this one
warnings.filterwarnings("ignore", "forkserver: waitpid")  # the end of an orphan, which it did not start
