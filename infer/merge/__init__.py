"""`python -m infer.merge`: makes one run of the shards that several machines scored, from their folders alone."""
