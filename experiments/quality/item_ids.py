"""Writes the folder of `ids/item.yaml`: the interactions of an LC-Rec folder, and an index with one code for each item.

```bash
python -m experiments.quality.item_ids path/to/beauty runs/quality/ids/item
```
"""

import shutil
import sys
from pathlib import Path

import torch

from padrec import Catalog, LCRecReader
from padrec.data.readers.semantic_id_index import write_index


def write_item_ids(source: Path, folder: Path) -> None:
    """Write `item.index.json` and `item.inter.json` to a new folder.

    Args:
        source: an LC-Rec folder.
        folder: made; must not be there yet.

    Raises:
        InputError: wrong data in `source`.
    """
    reader = LCRecReader(str(source))
    catalog = reader.read().catalog
    folder.mkdir(parents=True)
    one_slot = Catalog(torch.arange(catalog.n_items, dtype=torch.int32)[:, None], catalog.keys)
    write_index(one_slot, folder / "item.index.json")
    shutil.copyfile(next(source.glob("*.inter.json")), folder / "item.inter.json")


if __name__ == "__main__":
    write_item_ids(Path(sys.argv[1]), Path(sys.argv[2]))
