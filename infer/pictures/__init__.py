"""Picture files: listing, reading, checking, decoding to crops in worker processes. Knows no patient and no network."""
