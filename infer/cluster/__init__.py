"""--ray: patients scored by actors on the nodes of a Ray cluster. Ray is imported here alone, and only for it."""
