"""Sample ids: the one thing that margins need and that a data set does not tell."""

import operator
from collections.abc import Mapping, Sequence, Sized
from typing import Any, SupportsIndex, cast

from torch.utils.data import Dataset, IterableDataset


class Indexed(Dataset[Any]):
    """A map-style data set whose items gain the sample's id, which methods with margins need.

    data: a data set or sequence with a length, of items `(x, y, ...)` or dicts.

    Tuples and lists become tuples `(x, y, ..., id)`; dicts become new dicts with the key "id". The
    id is an int from 0 to len(data) - 1; the default collate makes an int64 tensor (B,) of a batch.
    Wrap exactly the data that is trained on, such as `Indexed(Subset(...))`, and keep its order
    when a run is continued.

    Raises TypeError for data without a length or with other items, ValueError for dicts that have
    an "id" already, IndexError for an index out of range.

    >>> import ima
    >>> data = ima.Indexed([("image 0", 3), ("image 1", 5)])
    >>> data[1]
    ('image 1', 5, 1)
    """

    def __init__(self, data: Dataset[Any] | Sequence[Any]) -> None:
        came = type(data).__name__
        # Streams first: some define a length, and still have no stable numbering of samples.
        if isinstance(data, IterableDataset | Mapping) or not hasattr(data, "__getitem__"):
            raise TypeError(
                f"Indexed got {came}, which cannot be indexed, so its samples have no ids; "
                "give a map-style data set, with __getitem__ and __len__"
            )
        self.data = data
        try:
            len(self)
        except (TypeError, NotImplementedError) as error:
            raise TypeError(
                f"Indexed got {came}, which has no length, but every training sample keeps a "
                "margin and their number must be known; give a data set with __len__"
            ) from error

    def __len__(self) -> int:
        # torch's Dataset declares no __len__; the constructor has made sure that there is one.
        return len(cast("Sized", self.data))

    def __getitem__(self, index: SupportsIndex) -> Any:
        try:
            asked = operator.index(index)
        except TypeError as error:
            raise TypeError(
                f"Indexed takes one whole number as index, got {type(index).__name__}; "
                "let a DataLoader make the batches"
            ) from error
        count = len(self)
        if not -count <= asked < count:
            raise IndexError(f"index {asked} is out of range for a data set of {count} samples")
        # data[-1] and data[count - 1] are one sample and must share one margin.
        sample = asked % count
        return _with_id(self.data[sample], sample)


def _with_id(item: Any, sample: int) -> Any:
    if isinstance(item, Mapping):
        fields = cast("Mapping[Any, Any]", item)
        if "id" in fields:
            raise ValueError(
                f'item {sample} has a key "id" already, with a {type(fields["id"]).__name__}; '
                "rename it before wrapping the data set in Indexed"
            )
        return {**fields, "id": sample}
    if isinstance(item, (tuple, list)):
        values = tuple(cast("Sequence[Any]", item))
        if isinstance(item, list) and values and all(isinstance(v, Mapping) for v in values):
            # What MONAI's cropping transforms with num_samples > 1 give: no (x, y, ...).
            raise TypeError(
                f"item {sample} is a list of {len(values)} dicts; Indexed expects one dict or one "
                "(x, y, ...) a sample: let the transforms give one crop each (num_samples=1)"
            )
        return (*values, sample)
    raise TypeError(
        f"item {sample} is a {type(item).__name__}; Indexed expects a tuple or list (x, y, ...) or "
        "a dict: return the target together with the image"
    )
