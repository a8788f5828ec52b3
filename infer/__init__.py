"""lympho's runtime: scores folders of patients with an exported bundle. Needs no torch and no scikit-learn."""

__version__ = "0.1.0"
