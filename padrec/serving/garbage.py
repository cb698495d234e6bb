"""Garbage collection while requests wait."""

import atexit
import gc

atexit.register(gc.unfreeze)  # or modules would report leaks at the end


def spare_what_is_loaded() -> None:
    """Collect garbage, and leave what is there out of later collections.

    A collection of all that torch and transformers load holds up requests for a quarter of a second; under load there
    is one every few seconds. Call it again after something large was replaced, which is collected then.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
