"""How each member of the ensemble becomes graphs and a section of the manifest."""
