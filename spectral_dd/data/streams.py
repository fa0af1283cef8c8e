"""Random streams on the host: what each is for. The devices' draws come from `jax.random` keys instead."""

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What a stream is for. It is part of the stream's seed, so streams of one member never coincide."""

    DIGITS_SPLIT = 0
    SUBSET = 1
    NOISE = 2
    TEST_ORDER = 3
    RESAMPLE = 4
    PARTNERS = 5
    TEST_SPLIT = 6
    PLANES = 7


def generator(stream: Stream, *seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence((stream, *seed)))
