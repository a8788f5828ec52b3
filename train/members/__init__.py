"""How each member of the ensemble is trained and predicts patients it has not seen."""
