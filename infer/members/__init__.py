"""The models that vote: one file a member, and the list of all."""
