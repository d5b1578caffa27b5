"""Which particles are in memory at a time."""

from torch import Tensor

PIXELS_AT_ONCE = 2**22
"""16 MB of them; what is computed of images takes several times as much."""


def chunks_of(index: Tensor, boxes: Tensor, most: int) -> list[Tensor]:
    """Divide rows into chunks of one box each, of large boxes into smaller ones.

    Parameters
    ----------
    index : Tensor of int64, shape (n,)
        Rows; their order is kept among those of one box.
    boxes : Tensor of int64, shape (n,)
        Box of each row.
    most : int
        The most rows a chunk.
    """
    return [
        rows
        for box in boxes.unique().tolist()
        for rows in index[boxes == box].split(
            max(1, min(most, PIXELS_AT_ONCE // box**2))
        )
    ]
