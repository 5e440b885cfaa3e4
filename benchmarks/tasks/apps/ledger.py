"""What the tasks do: count themselves in a file that all processes share. Cheap, and it tells what was lost or run twice."""

import mmap
import os

_file = os.open(os.environ["LEDGER"], os.O_RDWR)
_counts = mmap.mmap(_file, 0)


def note(number: int) -> None:
    _counts[number] += 1
