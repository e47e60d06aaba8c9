"""The precision in which parameters travel, applied on both sides before anything is hashed or added.

Why here and not in the transport: engines without a network must reach the same bits as real sites.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float32", "float16"]
DTYPES: Mapping[Precision, type[np.floating]] = {"float32": np.float32, "float16": np.float16}


def rounded(
    vectors: Mapping[str, NDArray[np.float32]], precision: Precision
) -> dict[str, NDArray[np.float32]]:
    """Return read-only vectors whose values have the precision of the exchange.

    Values beyond the range of float16 become infinite, which the other side refuses by name.
    """
    if precision == "float32":
        return dict(vectors)
    with np.errstate(over="ignore"):
        exchanged = {name: vector.astype(np.float16).astype(np.float32) for name, vector in vectors.items()}
    for vector in exchanged.values():
        vector.flags.writeable = False
    return exchanged
