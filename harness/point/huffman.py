"""Canonical Huffman coding of a stream of integers, through the library bitarray: the
code book is the number of codes of each length and the symbols.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import torch
from bitarray import bitarray
from bitarray.util import canonical_decode, canonical_huffman
from torch import Tensor


def huffman(symbols: Tensor) -> dict[str, Tensor]:
    """Return the stream of `symbols` (n,), integers in [0, 65536), as uint8, with the
    codes of each length and the symbols in order of their codes.
    """
    values = symbols.tolist()
    codes, lengths, order = canonical_huffman(Counter(values))
    stream = bitarray()
    stream.encode(codes, values)
    return {
        "stream": torch.from_numpy(np.frombuffer(stream.tobytes(), dtype=np.uint8).copy()),
        "lengths": torch.tensor(lengths, dtype=torch.int32),
        "symbols": torch.from_numpy(
            np.array(order, dtype=np.uint16 if max(order) > 255 else np.uint8)
        ),
    }


def unhuffman(parts: dict[str, Tensor], count: int) -> Tensor:
    """Return the `count` symbols that `huffman` coded, int64; raise KeyError or
    ValueError if parts are missing, inconsistent or too short.
    """
    stream = bitarray()
    stream.frombytes(parts["stream"].numpy().tobytes())
    symbols = list(
        islice(
            canonical_decode(stream, parts["lengths"].tolist(), parts["symbols"].tolist()), count
        )
    )
    if len(symbols) != count:
        raise ValueError(f"a Huffman stream of {len(symbols)} symbols where {count} are expected")
    return torch.tensor(symbols, dtype=torch.int64)
