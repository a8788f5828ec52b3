"""From patients to results: decoded pictures, batches, sums per patient, one probability."""
