"""Training of each ensemble member, and its predictions for patients it was not trained on."""
