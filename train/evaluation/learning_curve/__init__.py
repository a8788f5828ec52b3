"""The learning curve: how good the models are when fitted on fewer patients, and whether more would help."""
