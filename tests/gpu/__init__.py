"""The steps of `make gpu-check`, which tests/gpu_check.py runs, each in a process of its own."""
