"""Holds a GPU's memory until its standard input ends: `python -m tests.gpu.hold MIB`, so much is left free.

By the driver's own interface (https://docs.nvidia.com/cuda/cuda-driver-api/), so that no further package is needed.
"""

import ctypes
import sys

MIB = 1 << 20
STEP = 64 * MIB  # a block may not fit although that much is free


def hold(left: int) -> None:
    """Take all memory of the first GPU but `left` bytes.

    Raises:
        OSError: there is no driver, or it refuses.
    """
    driver = ctypes.CDLL("libcuda.so.1")

    def call(name: str, *arguments: object) -> None:
        if failed := getattr(driver, name)(*arguments):
            raise OSError(f"{name} failed with {failed}")

    device, context, block = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    while free.value > left:
        size = free.value - left
        while driver.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(size)):
            size -= STEP
            if size <= 0:
                break
        if size < STEP:  # as near as it gets
            break
        call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    print(f"{free.value // MIB} MiB of {total.value // MIB} MiB left free", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    hold(int(sys.argv[1]) * MIB)
