"""Keeps freed memory in the process, so that the next batch need not request it from the kernel again."""

import ctypes
import logging

LOG = logging.getLogger("lympho")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt parameters, from glibc's malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of returning them to the kernel; False where there is no glibc.

    The feature maps of a batch are blocks of 10 to 100 MB. By default glibc maps each block anew and returns it when
    freed, and the kernel zero-fills every page before its first use: on one core this takes a third of a training
    epoch of the mixture of experts and two fifths of a scoring pass. The process stays as large as its largest batch.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))
