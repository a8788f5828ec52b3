"""What any training needs and no model owns: the loop, files, checkpoints, figures of merit."""
