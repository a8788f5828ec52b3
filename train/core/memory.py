"""Keeps the memory that a training frees, so that the next batch need not ask the kernel for it again."""

import ctypes
import logging

LOG = logging.getLogger("lympho")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt, from glibc's malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep large blocks that are freed instead of returning them; False where there is no glibc.

    A batch's maps are blocks of 10 to 100 MB. By default glibc maps each anew and returns it when freed, and the
    kernel fills every page with zeros before its first use: on one core that takes a third of an epoch of the mixture
    of experts and two fifths of a scoring pass. The process stays as large as its largest batch was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))
