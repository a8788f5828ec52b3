"""The machine: CPUs, threads, syncing to disk, the encoding of file names. Imports only infer.errors."""
