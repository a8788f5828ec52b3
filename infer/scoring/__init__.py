"""From patients to results: decoded pictures, batches, sums a patient, one probability."""
