"""Training of lympho's four models and their ensemble on labelled patients."""
